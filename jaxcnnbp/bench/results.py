"""A run as data, to and from JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxcnnbp.bench.limit import Limit
from jaxcnnbp.bench.self_check import SelfCheck
from jaxcnnbp.timing import Timing

# "alone" is this package in a block of its own, as PyTorch is: beside another program a call finds other things in the
# caches, and other pages in the allocator, than after itself.
SIDES = ("jaxcnnbp", "autodiff", "nn", "alone", "torch")
# Below this the other side counts as faster: 5 % are within what a quiet machine varies by.
LOSS = 0.95
# The pass of a row of training: one step a call, or behind their number several in a loop.
STEP, LOOP = "step", "in a loop"
_SHORT = {"bfloat16": "bf16", "float64": "f64"}


@dataclass(frozen=True)
class Row:
    """One layer or model in one pass.

    Attributes:
      case: its name.
      layer: shapes and parameters, for reading.
      step: the pass; of training `STEP`, or the number of steps a call and `LOOP`.
      dtype: of everything.
      times: by side: "jaxcnnbp", "autodiff" and "nn" alternate call by call, "alone" (this package again) and "torch"
        have blocks of their own. A side that is not there was not or could not be measured, see `notes`.
      temp_bytes: largest temporary memory, as the compiler reports it, by side.
      residual_bytes: what is kept between the forward and the backward pass, by side.
      compile_s: seconds to trace, lower and compile, without a cache, by side.
      roofline_fraction: the time that the limit allows over that of this package; None for networks.
      layout: the memory format in which PyTorch was faster.
      notes: by side, why it is not there.
      implementation: what served this package, as `explain_choice` says; empty for networks.
    """

    case: str
    layer: str
    step: str
    dtype: str
    times: dict[str, Timing]
    temp_bytes: dict[str, int] = field(default_factory=dict)
    residual_bytes: dict[str, int] = field(default_factory=dict)
    compile_s: dict[str, float] = field(default_factory=dict)
    roofline_fraction: float | None = None
    layout: str = ""
    notes: dict[str, str] = field(default_factory=dict)
    implementation: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What identifies a row from run to run."""
        return self.case, self.step, self.dtype

    @property
    def name(self) -> str:
        """The case, with the dtype where that is not float32."""
        return f"{self.case}{self.suffix}"

    @property
    def suffix(self) -> str:
        """What tells rows of another dtype than float32 apart, short enough for a table."""
        return "" if self.dtype == "float32" else f" {_SHORT.get(self.dtype, self.dtype)}"

    def speedup(self, side: str) -> float | None:
        """How many times longer the other side takes than this package did under the same circumstances."""
        if side not in self.times:
            return None
        return self.times[side].median / (self.alone if side == "torch" else self.times["jaxcnnbp"]).median

    @property
    def bound(self) -> float | None:
        """How many times faster than autodiff the limit of the machine is; None if either is not known."""
        if "autodiff" not in self.times or not self.roofline_fraction:
            return None
        return self.times["autodiff"].median / (self.times["jaxcnnbp"].median * self.roofline_fraction)

    @property
    def alone(self) -> Timing:
        """The time of this package, undisturbed if that was measured."""
        return self.times.get("alone", self.times["jaxcnnbp"])

    def to_json(self) -> dict[str, Any]:
        """Flat: each side is a key."""
        plain = dataclasses.asdict(self)
        times = plain.pop("times")
        head = {"case": plain.pop("case"), "layer": plain.pop("layer"), "pass": plain.pop("step")}
        return head | {"dtype": plain.pop("dtype")} | {side: times.get(side) for side in SIDES} | plain

    @staticmethod
    def from_json(stored: dict[str, Any]) -> Row:
        """The reverse of `to_json`."""
        plain = dict(stored)
        times = {side: Timing(**plain.pop(side)) for side in SIDES if plain.get(side) is not None}
        rest = {name: value for name, value in plain.items() if name not in SIDES and name != "pass"}
        return Row(step=plain["pass"], times=times, **rest)


@dataclass(frozen=True)
class Results:
    """Everything that a run found out, with what it depends on."""

    machine: dict[str, Any]
    versions: dict[str, str]
    method: dict[str, Any]
    self_check: SelfCheck
    limit: dict[str, Limit]
    rows: tuple[Row, ...] = ()
    steps: tuple[Row, ...] = ()

    def to_json(self) -> str:
        """JSON text."""
        plain = dataclasses.asdict(self) | {
            "self_check": dataclasses.asdict(self.self_check) | {"ok": self.self_check.ok},
            "rows": [row.to_json() for row in self.rows],
            "steps": [row.to_json() for row in self.steps],
        }
        return json.dumps(plain, indent=1) + "\n"

    @staticmethod
    def from_json(text: str) -> Results:
        """The reverse of `to_json`."""
        plain = json.loads(text)
        check = {name: value for name, value in plain["self_check"].items() if name != "ok"}
        return Results(
            machine=plain["machine"],
            versions=plain["versions"],
            method=plain["method"],
            self_check=SelfCheck(**check),
            limit={dtype: Limit(**limit) for dtype, limit in plain["limit"].items()},
            rows=tuple(map(Row.from_json, plain["rows"])),
            steps=tuple(map(Row.from_json, plain["steps"])),
        )

    def over(self, older: Results) -> Results:
        """These results, and of `older` the rows that are not among them; the worse of the two self-checks."""
        worse = max(self.self_check, older.self_check, key=lambda check: check.deviation)
        return dataclasses.replace(
            self,
            self_check=worse,
            limit=older.limit | self.limit,
            rows=_merged(older.rows, self.rows),
            steps=_merged(older.steps, self.steps),
        )


def _merged(older: Sequence[Row], newer: Sequence[Row]) -> tuple[Row, ...]:
    found = {row.key: row for row in older} | {row.key: row for row in newer}
    return tuple(found.values())


def load(path: Path | str) -> Results:
    """The results in a file.

    Raises:
      OSError: the file cannot be read.
      ValueError: it holds something else.
    """
    text = Path(path).read_text(encoding="utf-8")
    try:
        return Results.from_json(text)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"`path` (={path}) holds no results of `jaxcnnbp bench` ({error!r}).") from error


def save(results: Results, path: Path | str) -> None:
    """Write results into a file; what stood there stays until they are complete."""
    path = Path(path).resolve()  # a link stays one
    beside = path.with_name(f"{path.name}.part")
    beside.write_text(results.to_json(), encoding="utf-8")
    beside.replace(path)


def speedups(rows: Iterable[Row], side: str) -> list[float]:
    """How many times longer `side` takes, for the rows where it was measured."""
    return [s for row in rows if (s := row.speedup(side)) is not None]


def geometric_mean(values: Sequence[float]) -> float:
    """exp of the mean logarithm; NaN of nothing.

    Example:
      >>> round(geometric_mean([2.0, 8.0]), 9)
      4.0
    """
    return math.exp(math.fsum(map(math.log, values)) / len(values)) if values else math.nan


def losses(rows: Iterable[Row], side: str) -> list[Row]:
    """The rows where `side` is faster by more than 5 %, the worst first."""
    slower = [(s, row) for row in rows if (s := row.speedup(side)) is not None and s < LOSS]
    return [row for _, row in sorted(slower, key=lambda pair: pair[0])]
