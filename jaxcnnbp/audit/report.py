"""What `compare_gradients` found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcnnbp.audit import table
from jaxcnnbp.audit.cost import Cost
from jaxcnnbp.audit.finite import Slope
from jaxcnnbp.audit.measure import Errors, distance, excess, off

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class GradientMismatch(AssertionError):
    """A gradient, or a value, is further from the oracle than rounding explains."""


@dataclass(frozen=True)
class Worst:
    """The element that is furthest from the oracle, measured by what it may be off by.

    Attributes:
      index: its multi-index.
      place: "interior", "edge" or "corner" of the spatial axes, then ", padding" if a window that holds it
        holds padding; "" without such axes.
      manual: its value by the hand-written rules.
      autodiff: by autodiff; None where it has no gradient.
      oracle: by the oracle; autodiff's again where no oracle was asked for.
      allowed: how far `manual` may be from the oracle.
    """

    index: tuple[int, ...]
    place: str
    manual: complex
    autodiff: complex | None
    oracle: complex
    allowed: float


@dataclass(frozen=True)
class Maps:
    """The whole arrays behind a row, in float64 or complex128."""

    manual: np.ndarray
    autodiff: np.ndarray | None
    oracle: np.ndarray
    allowed: np.ndarray

    def off(self) -> np.ndarray:
        """Where the hand-written gradient is further from the oracle's than it may be."""
        return off(self.manual, self.oracle, self.allowed)

    def excess(self) -> np.ndarray:
        """The errors of the hand-written gradient, each in units of what it may be off by."""
        return excess(distance(self.manual, self.oracle), self.allowed)


@dataclass(frozen=True)
class ReportRow:
    """One array: the gradient of one parameter or input, or one output.

    Attributes:
      name: its path, such as `conv1.kernel`.
      shape: its shape.
      dtype: its dtype.
      manual: distances of the hand-written gradient from the oracle's (from autodiff's, without an oracle).
      autodiff: distances of autodiff's gradient from the oracle's; None where it has none.
      worst: the worst element; None for an empty array.
      wrong: number of elements beyond what they may be off by.
      wrong_places: those elements by place.
      reason: where the tolerance comes from.
      hint: what the hand-written gradient looks like if it is wrong; "" if it looks like nothing known.
      axes: its spatial axes.
      slope: the finite difference; None if none was asked for.
      maps: the arrays themselves.
      complaint: what is wrong though every element is near the oracle's, such as a difference that says otherwise.
      excuse: why it is right though elements are off, such as a difference that agrees with it and not with the oracle.
      doubt: why neither can be told, and what to pass so that it can; "" if it can.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    manual: Errors
    autodiff: Errors | None
    worst: Worst | None
    wrong: int
    wrong_places: Mapping[str, int]
    reason: str
    hint: str
    axes: tuple[int, ...]
    slope: Slope | None
    maps: Maps = field(repr=False, compare=False)
    complaint: str = ""
    excuse: str = ""
    doubt: str = ""

    @property
    def ok(self) -> bool:
        """Whether every element is as near as rounding allows, and nothing else speaks against it."""
        return not self.complaint and not self.doubt and (self.wrong == 0 or bool(self.excuse))

    @property
    def unknown(self) -> bool:
        """Whether it cannot be told that it is right, nor that it is wrong."""
        return bool(self.doubt) and not self.complaint

    def verdict(self) -> str:
        """One sentence on the worst element: leaf, index, three values and tolerance; and what it all looks like."""
        if self.worst is None:
            return f"`{self.name}` is empty."
        w = self.worst
        if words := self.complaint or (self.doubt and f"cannot tell: {self.doubt}") or self.excuse:
            return f"`{self.name}`: {words}."
        of = table.some(self.wrong, int(np.prod(self.shape)))
        where = ", ".join(f"{n} {place}" for place, n in self.wrong_places.items())
        at = f", worst at {table.index(w.index)}{f' ({w.place})' if w.place else ''}" if w.index else ""
        manual, autodiff, oracle = table.three(w)
        return (
            f"`{self.name}`: {of} wrong{f' ({where})' if where else ''}{at}: manual {manual}, autodiff {autodiff},"
            f" oracle {oracle}; allowed +-{w.allowed:.2g}.{f' It looks like {self.hint}.' if self.hint else ''}"
        )


@dataclass(frozen=True)
class GradientReport:
    """Gradients by hand-written rules, by autodiff and by a float64 oracle, compared element by element.

    Attributes:
      rows: one a differentiated leaf.
      outputs: one an output of the function, forward.
      ties: places without a unique derivative met by the oracle (ties in maxima, relu at 0), by operation.
        Loops that are compiled (`scan`, `while`) are not looked into.
      cost: time and memory of the manual gradients and of autodiff; None if not timed.
      platform: what the compared gradients ran on.
      seed: the seed of cotangents, directions and noise.
      oracle: whether an oracle was run; if not, autodiff stands in its place everywhere.
      no_autodiff: why JAX's own autodiff has no gradient of the function, in its words; "" if it has one.
      rules: names of the functions with a hand-written rule that were called; without any, autodiff is what is judged.
      no_oracle: why there is no oracle, in JAX's words, so that finite differences judged, which see less; "" else.
      blamed: of several rules those that make a gradient wrong alone, with the leaves.
      given: whether the truth is the user's, `reference` or `expected`.
    """

    rows: tuple[ReportRow, ...]
    outputs: tuple[ReportRow, ...]
    ties: Mapping[str, int]
    cost: Cost | None
    platform: str
    seed: int
    oracle: bool = True
    no_autodiff: str = ""
    rules: tuple[str, ...] = ()
    no_oracle: str = ""
    blamed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    given: bool = False

    @property
    def ok(self) -> bool:
        """Whether every gradient and every output is as near to the oracle as rounding allows."""
        return all(row.ok for row in (*self.rows, *self.outputs))

    def __getitem__(self, name: str) -> ReportRow:
        """The row of the leaf `name`."""
        for row in (*self.rows, *self.outputs):
            if row.name == name:
                return row
        known = ", ".join(row.name for row in self.rows)
        raise KeyError(f"`name` (={name!r}) is no leaf of this report; the leaves are {known}.")

    def assert_close(self) -> None:
        """Raises `GradientMismatch`, with a sentence a wrong array, unless the report is `ok`."""
        if not self.ok:
            raise GradientMismatch("\n".join(table.faults(self)))

    def to_dict(self) -> dict[str, Any]:
        """The report as plain dicts, lists, numbers and strings; without the whole arrays."""
        rows = {part: [_row_dict(row) for row in getattr(self, part)] for part in ("rows", "outputs")}
        return {
            "ok": self.ok,
            "platform": self.platform,
            "seed": self.seed,
            "oracle": self.oracle,
            "no_autodiff": self.no_autodiff,
            "no_oracle": self.no_oracle,
            "ties": dict(self.ties),
            "rules": list(self.rules),
            "blamed": {rule: list(leaves) for rule, leaves in self.blamed.items()},
            "cost": None if self.cost is None else asdict(self.cost),
            **rows,
        }

    def to_json(self, indent: int | None = 2) -> str:
        """`to_dict` as JSON; infinities and NaN are written as strings."""
        return json.dumps(_plain(self.to_dict()), indent=indent, allow_nan=False)

    def plot(self, leaf: str | None = None, path: str | PathLike[str] | None = None) -> Figure:
        """A picture of the error of one leaf (default: the worst), saved to `path` if given; needs Matplotlib."""
        from jaxcnnbp.audit.plot import error_map

        return error_map(self[leaf] if leaf is not None else self.worst_row(), path)

    def to_html(self, title: str = "Gradient report", command: str = "") -> str:
        """The report as a page: one file with sortable tables, error maps, the worst elements and the environment.

        `title` says what was compared, `command` what made it.
        """
        from jaxcnnbp.audit.page import page_of

        return page_of(self, title, command)

    def save_html(self, path: str | PathLike[str], title: str = "Gradient report", command: str = "") -> None:
        """Writes `to_html(title, command)` to `path`."""
        Path(path).write_text(self.to_html(title, command), encoding="utf-8")

    def _repr_html_(self) -> str:
        from jaxcnnbp.audit.page import fragment_of

        return fragment_of(self)

    def worst_row(self) -> ReportRow:
        """The gradient with the largest error in units of what it may be off by."""
        return max(self.rows, key=table.excess)

    def __str__(self) -> str:
        return table.plain(self)

    def __rich__(self) -> Any:
        return table.rich(self)


def _row_dict(row: ReportRow) -> dict[str, Any]:
    kept = ("name", "shape", "dtype", "axes", "wrong", "reason", "hint", "complaint", "excuse", "doubt")
    parts = {key: None if (part := getattr(row, key)) is None else asdict(part) for key in _PARTS}
    return {key: getattr(row, key) for key in kept} | {"ok": row.ok, "wrong_places": dict(row.wrong_places)} | parts


_PARTS = ("manual", "autodiff", "worst", "slope")


def _plain(value: Any) -> Any:
    """`value` with what JSON lacks (tuples, complex numbers, infinities) in a form that it has."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, complex):
        return _plain(value.real) if value.imag == 0 else [_plain(value.real), _plain(value.imag)]
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value
