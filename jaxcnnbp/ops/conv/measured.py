"""What a device was measured to need: tables of problems, each with the time of every implementation.

The choice for a problem that is not in the table is made by its neighbours there. Problems are points whose
coordinates are logarithms (of the images, the outputs of one, the channels, ...), so that neighbours are alike in
proportion. In each of them an implementation has taken so many times as long as the fastest. The logarithm of that is
taken for a random function of the place, smooth but for a little that only twins share, of which the neighbours are
samples, and its expectation here is a weighted sum of theirs (kriging). Of those that are expected to be about as fast
as the fastest the one serves that compiles soonest. What another kind of processor measured counts too, as a little
further away.

Reference: https://en.wikipedia.org/wiki/Kriging, simple kriging; C. E. Rasmussen and C. K. I. Williams, Gaussian
Processes for Machine Learning (2006), section 2.2.
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
# Leaving each row out of the AVX-512 table in turn, the mean regret was 1.13 with these, with 20 neighbours 1.15, with
# reaches from 3 to 12 or three times the roughness at most 1.15, and 1.16 with weights by the distance alone. Without
# the roughness, all of it noise, it was the same, but 1.06 instead of 1.01 for a problem that is in the table itself.
NEIGHBOURS = 64
REACH = 6.0  # the distance at which two problems are alike to exp(-1/2)
ROUGHNESS, TWINS = 0.09, 0.5  # variance of what only twins share, in units of that of the rest; and its reach
NOISE = 0.01  # variance of one measurement
# An implementation is thought of as this many times as slow as the fastest as far as nothing near tells; more than
# `SLOWEST` times counts as that.
UNKNOWN, SLOWEST = 1.5, 7.4


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


# The coordinates of a problem, and how many doublings of the channels a step of one along each is worth.
_SCALES = {
    "images": 0.5,
    "outputs of an image": 0.7,
    "output columns": 0.4,
    "in channels": 1.0,
    "out channels": 1.0,
    "groups": 0.7,
    "taps": 1.0,
    "cells of a patch": 0.7,
    "stride": 1.5,
    "dilation": 1.5,
    "gaps": 1.5,
    # XLA has another convolution there, which some odd numbers of channels make ten times as slow.
    "more than 16 channels on a side": 2.0,
    "an odd number of in channels": 1.0,
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
        window.taps * problem.in_channels,
        math.prod(window.stride),
        math.prod(window.dilation),
        math.prod(window.input_dilation),
    )
    kinds = (
        max(problem.in_channels, problem.out_channels) > 16,
        problem.in_channels > 1 and problem.in_channels % 2,
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
      names: of all implementations.
      seconds: the logarithms of what each took for a product, `(rows, names)`, NaN where it was not measured.
      compile_seconds: those of its time to compile.
    """

    rows: tuple[Measured, ...]
    places: np.ndarray
    names: tuple[str, ...]
    seconds: np.ndarray
    compile_seconds: np.ndarray

    @staticmethod
    def of(here: Iterable[Measured], elsewhere: Iterable[Measured] = ()) -> Table:
        """A table of what this kind of processor measured, and of what others did."""
        here, elsewhere = tuple(here), tuple(elsewhere)
        places = [_coordinates(row.problem) for row in here] + [_coordinates(row.problem, True) for row in elsewhere]
        rows = here + elsewhere
        names = tuple(sorted({name for row in rows for name in row.seconds}))
        seconds, compile_seconds = (
            np.log([[each.get(name, math.nan) for name in names] for each in of_rows])
            for of_rows in ([row.seconds for row in rows], [row.compile_seconds for row in rows])
        )
        seconds -= np.log([[row.problem.products] for row in rows])
        return Table(rows, np.array(places) * _WEIGHTS, names, seconds, compile_seconds)

    def without(self, n: int) -> Table:
        """All rows but one, which it can then be judged by."""
        places, seconds, compile_seconds = (
            np.delete(each, n, 0) for each in (self.places, self.seconds, self.compile_seconds)
        )
        return Table(self.rows[:n] + self.rows[n + 1 :], places, self.names, seconds, compile_seconds)

    def estimate(self, problem: ConvProblem, names: Sequence[str]) -> tuple[dict[str, Expected], Measured]:
        """What to expect, by name for what was measured near; and the nearest problem."""
        place = np.array(_coordinates(problem)) * _WEIGHTS
        squared = ((self.places - place) ** 2).sum(1)
        near = np.argsort(squared)[:NEIGHBOURS]
        nearest, columns = self.rows[near[0]], [n for n, name in enumerate(self.names) if name in names]
        near = near[~np.isnan(self.seconds[near][:, columns]).all(1)]
        if not len(near):
            return {}, nearest
        seconds = self.seconds[near][:, columns]
        least = np.nanmin(seconds, 1)
        slower = np.minimum(seconds - least[:, None], math.log(SLOWEST))
        between = ((self.places[near, None] - self.places[near]) ** 2).sum(-1)
        alike, here = _alike(between) + NOISE * np.eye(len(near)), _alike(squared[near])
        best = _expected(np.linalg.solve(alike, here), least, least.mean()) + math.log(max(problem.products, 1))
        expected: dict[str, Expected] = {}
        for n, column in enumerate(columns):
            known = ~np.isnan(slower[:, n])
            if known.any():
                weights = np.linalg.solve(alike[known][:, known], here[known])
                time = best + _expected(weights, slower[known, n], math.log(UNKNOWN))
                compiling = self.compile_seconds[near[known], column]
                compile_time = _expected(weights, compiling, compiling.mean())
                expected[self.names[column]] = Expected(math.exp(time), math.exp(compile_time))
        return expected, nearest


def _alike(squared: np.ndarray) -> np.ndarray:
    """The covariance of the function at two places at so much squared distance."""
    return np.exp(-squared / (2 * REACH**2)) + ROUGHNESS * np.exp(-squared / (2 * TWINS**2))


def _expected(weights: np.ndarray, values: np.ndarray, mean: float) -> float:
    """Of a function that has this mean everywhere, by what was measured of it."""
    return mean + float(weights @ (values - mean))


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
