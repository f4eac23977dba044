"""What a device was measured to need: tables of problems, each with the time of every implementation.

The choice for a problem that is not in the table is made by its neighbours there. Problems are points whose
coordinates are logarithms (of the images, the outputs of one, the channels, ...), so that neighbours are alike in
proportion. In each of them an implementation has taken so many times as long as the fastest; the mean of these
logarithms, weighted by how near the neighbours are, is what it is expected to take here. Of those that are expected to
be about as fast as the fastest the one serves that compiles soonest. What another kind of processor measured counts
too, as a little further away.

Reference: Shepard's inverse distance weighting, https://en.wikipedia.org/wiki/Inverse_distance_weighting
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxcnnbp.geometry.window import Window
from jaxcnnbp.ops.conv.geometry import ConvGeometry
from jaxcnnbp.ops.conv.problem import ConvProblem
from jaxcnnbp.ops.processor import cpu_kind

# As fast as another is what takes so many times as long: expectations are no surer than that. With the fastest alone
# the choice for problems that were left out of a table took up to 2 % less time and 7 to 28 % more to compile, and was
# slower than lax's own more often.
AS_FAST = 1.1
NEIGHBOURS = 12
# Added to the square of a distance, of which the weight of a neighbour is the inverse: one that is so much like the
# problem decides almost alone.
SAME = 0.25
# An implementation that few of the neighbours have is thought of as this many times as slow as the fastest, with the
# weight of so many neighbours; more than `SLOWEST` times counts as that.
UNKNOWN, UNKNOWN_WEIGHT, SLOWEST = 1.5, 0.3, 7.4


@dataclass(frozen=True)
class Measured:
    """One pass of one problem.

    Attributes:
      pass_name: which.
      problem: of what.
      seconds: of one call, by the name of the implementation.
      compile_seconds: to trace and compile it.
    """

    pass_name: str
    problem: ConvProblem
    seconds: dict[str, float]
    compile_seconds: dict[str, float]

    def to_json(self) -> str:
        """One line of a table."""
        window = self.problem.geometry.window
        values = {
            "pass": self.pass_name,
            "dtype": self.problem.dtype,
            "images": self.problem.images,
            "groups": self.problem.geometry.groups,
            "channels": [self.problem.in_channels, self.problem.out_channels],
            "spatial": window.spatial,
            "size": window.size,
            "stride": window.stride,
            "padding": window.padding,
            "dilation": window.dilation,
            "gaps": window.input_dilation,
            "seconds": {name: float(f"{s:.4g}") for name, s in self.seconds.items()},
            "compile": {name: float(f"{s:.2g}") for name, s in self.compile_seconds.items()},
        }
        return json.dumps(values, separators=(",", ":"))

    @staticmethod
    def from_json(line: str) -> Measured:
        """The reverse."""
        values = json.loads(line)
        spatial, size, stride, dilation, gaps = (
            tuple(values[name]) for name in ("spatial", "size", "stride", "dilation", "gaps")
        )
        window = Window(spatial, size, stride, tuple(map(tuple, values["padding"])), dilation, gaps)
        geometry = ConvGeometry(window, values["groups"], exact=False)
        in_channels, out_channels = values["channels"]
        problem = ConvProblem(geometry, in_channels, out_channels, values["images"], values["dtype"])
        return Measured(values["pass"], problem, values["seconds"], values["compile"])


class Expected(NamedTuple):
    """Of an implementation: seconds of a call, and to trace and compile it."""

    seconds: float
    compile_seconds: float


# The coordinates of a problem, and how many doublings of the channels a step of one along each is worth. A search for
# better ones on half of the problems made the choice for the other half no better.
_SCALES = {
    "images": 0.5,
    "outputs of an image": 0.7,
    "output columns": 0.4,
    "in channels": 1.0,
    "out channels": 1.0,
    "groups": 0.7,
    "taps": 1.0,
    "stride": 1.5,
    "dilation": 1.5,
    "gaps": 1.5,
    "wider padding than keeps the size": 0.5,
    "a window that exceeds the input": 1.0,
    "axes": 3.0,
    "dense, depthwise or grouped": 20.0,
    "bytes of an element": 3.0,
    "another kind of processor": 1.0,
}
_WEIGHTS = np.array(list(_SCALES.values()))


def _coordinates(problem: ConvProblem, elsewhere: bool = False) -> list[float]:
    """Of a problem on this kind of processor, or on another."""
    window = problem.geometry.window
    extent, output = window.extent, window.output
    beyond = sum(low + high - (e - 1) for (low, high), e in zip(window.padding, extent, strict=True))
    counts = (
        problem.images,
        math.prod(output),
        output[-1] if output else 1,
        problem.in_channels,
        problem.out_channels,
        problem.geometry.groups,
        window.taps,
        math.prod(window.stride),
        math.prod(window.dilation),
        math.prod(window.input_dilation),
    )
    kinds = (
        (beyond > 0) - (beyond < 0),
        any(e > n for e, n in zip(extent, window.dilated, strict=True)),
        min(window.rank, 3),
        0 if problem.dense else 1 if problem.depthwise else 2,
        math.log2(jnp.dtype(problem.dtype).itemsize),
        elsewhere,
    )
    return [*(math.log2(max(count, 1)) for count in counts), *kinds]


@dataclass(frozen=True)
class Table:
    """What was measured of one pass.

    Attributes:
      rows: the problems.
      places: their coordinates, as a kind of processor sees them, a row each.
    """

    rows: tuple[Measured, ...]
    places: np.ndarray

    @staticmethod
    def of(here: Iterable[Measured], elsewhere: Iterable[Measured] = ()) -> Table:
        """A table of what this kind of processor measured, and of what others did."""
        here, elsewhere = tuple(here), tuple(elsewhere)
        places = [_coordinates(row.problem) for row in here] + [_coordinates(row.problem, True) for row in elsewhere]
        return Table(here + elsewhere, np.array(places) * _WEIGHTS)

    def estimate(self, problem: ConvProblem, names: Sequence[str]) -> tuple[dict[str, Expected], Measured]:
        """What to expect, by name for what was measured near; and the nearest problem."""
        squared = ((self.places - np.array(_coordinates(problem)) * _WEIGHTS) ** 2).sum(1)
        near = np.argsort(squared)[:NEIGHBOURS]
        weights = (squared[near[0]] + SAME) / (squared[near] + SAME)
        rows = [(weight, self.rows[index]) for index, weight in zip(near, weights, strict=True)]
        least = [min((row.seconds[n] for n in names if n in row.seconds), default=math.inf) for _, row in rows]
        known = [(*pair, best) for pair, best in zip(rows, least, strict=True) if best < math.inf]
        per_product = _mean((weight, math.log(best / row.problem.products)) for weight, row, best in known)
        expected: dict[str, Expected] = {}
        for name in names:
            having = [neighbour for neighbour in known if name in neighbour[1].seconds]
            if having:
                slower = [(w, min(math.log(row.seconds[name] / best), math.log(SLOWEST))) for w, row, best in having]
                compiling = _mean((w, math.log(row.compile_seconds[name])) for w, row, _ in having)
                times = math.exp(_mean([*slower, (UNKNOWN_WEIGHT, math.log(UNKNOWN))]))
                seconds = math.exp(per_product) * problem.products * times
                expected[name] = Expected(seconds, math.exp(compiling))
        return expected, rows[0][1]


def _mean(weighted: Iterable[tuple[float, float]]) -> float:
    """Of pairs of a weight and a value; 0 of none."""
    pairs = list(weighted)
    return sum(w * value for w, value in pairs) / sum(w for w, _ in pairs) if pairs else 0.0


def estimate(pass_name: str, problem: ConvProblem, names: Sequence[str]) -> dict[str, float]:
    """Seconds that a call is expected to take, by name, for those that were measured on problems near this one."""
    expected, _ = table(cpu_kind(), pass_name).estimate(problem, names)
    return {name: each.seconds for name, each in expected.items()}


def expected_best(pass_name: str, problem: ConvProblem, names: tuple[str, ...]) -> tuple[str | None, str]:
    """The implementation that is to serve, None if nothing near was measured; and why."""
    expected, nearest = table(cpu_kind(), pass_name).estimate(problem, names)
    if not expected:
        return None, ""
    name = soonest_of_the_fast(expected)
    return name, _reason(name, expected, nearest)


def soonest_of_the_fast(expected: dict[str, Expected]) -> str:
    """The name of what compiles soonest of those that are about as fast as the fastest."""
    least = min(each.seconds for each in expected.values())
    fast = {name: each.compile_seconds for name, each in expected.items() if each.seconds <= AS_FAST * least}
    return min(fast, key=fast.__getitem__)


def _reason(name: str, expected: dict[str, Expected], nearest: Measured) -> str:
    lax_form, own = expected.get("xla"), expected[name]
    to_lax = "" if name == "xla" or lax_form is None else f", lax's {lax_form.seconds / own.seconds:.1f} times as long"
    window = nearest.problem.geometry.window
    size, spatial = ("x".join(map(str, axis)) for axis in (window.size, window.spatial))
    of = f"{size}, {nearest.problem.in_channels} to {nearest.problem.out_channels} on {spatial}"
    near = f"; nearest measured: {of}" if name in nearest.seconds else ""
    fastest = name == min(expected, key=lambda other: expected[other].seconds)
    return f"expected to be {'the fastest' if fastest else 'as fast as any and soon compiled'}{to_lax}{near}"


@functools.cache
def table(kind: str, pass_name: str) -> Table:
    """What was measured of one pass, as a kind of processor sees it."""
    here, elsewhere = list[Measured](), list[Measured]()
    for name, text in _files().items():
        rows = here if name == f"cpu-{kind}.jsonl" else elsewhere
        lines = (line for line in text.splitlines() if line.startswith(f'{{"pass":"{pass_name}"'))
        rows.extend(map(Measured.from_json, lines))
    return Table.of(here, elsewhere)


def digest() -> str:
    """Of all that was measured: by other tables other implementations serve, which round differently."""
    return hashlib.sha256("".join(_files().values()).encode()).hexdigest()[:12]


@functools.cache
def _files() -> dict[str, str]:
    files = (resources.files("jaxcnnbp.ops.conv") / "tables").iterdir()
    return {file.name: file.read_text(encoding="utf-8") for file in sorted(files, key=lambda file: file.name)}
