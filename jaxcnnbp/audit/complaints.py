"""What speaks against a gradient whose elements are all near the oracle's, and for one whose elements are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from jaxcnnbp.audit import table
from jaxcnnbp.audit.measure import distance

if TYPE_CHECKING:
    from jaxcnnbp.audit.compare import Trial, Yardstick
    from jaxcnnbp.audit.report import Row

# A rule that ignores its cotangent, squares it or takes its magnitude does not pass this on; no power of two, which
# would change no rounding, and below one, so that nothing overflows.
FACTOR = -0.75
# Each output alone costs as many runs of the oracle as all of them together.
MOST_OUTPUTS = 8


def with_complaints(rows: Sequence[Row], trial: Trial, yardstick: Yardstick, by_differences: bool) -> list[Row]:
    """The rows with what else is wrong, or right, about them.

    Args:
      rows: of the gradients.
      trial: what the gradients are of, and how to have those of other cotangents.
      yardstick: the oracle and the tolerance.
      by_differences: whether the derivative of the function as it is written is what is wanted, so that a difference
        decides between the rule and the oracle; not of one that stops gradients.
    """
    checked = _each_output(_linear(rows, trial), trial, yardstick)
    judge = yardstick.judge
    if judge is None or not by_differences or judge.cuts:
        return checked
    return [_by_difference(row) for row in checked]


def _linear(rows: Sequence[Row], trial: Trial) -> list[Row]:
    scaled = {name: (FACTOR * c).astype(c.dtype) for name, c in trial.cotangents.items()}
    found = trial.again(scaled).gradients

    def checked(row: Row, a: np.ndarray) -> Row:
        wanted = FACTOR * row.maps.manual
        off = ~(distance(a, wanted) <= 2 * row.maps.allowed)  # both are rounded
        if row.wrong or not off.any():
            return row
        place = tuple(map(int, np.argwhere(off)[0]))
        says = f"{table.number(a[place].item())} instead of {table.number(wanted[place].item())}"
        of = f"of one {FACTOR} times as large it makes {says} at {table.index(place)}"
        return replace(row, complaint=f"not linear in the cotangent: {of}")

    return [checked(row, a) for row, a in zip(rows, found, strict=True)]


def _each_output(rows: Sequence[Row], trial: Trial, yardstick: Yardstick) -> list[Row]:
    """The gradients of one output at a time: of a small one beside a large one an error would not show."""
    checked = list(rows)
    if yardstick.judge is None or not 1 < len(trial.cotangents) <= MOST_OUTPUTS:
        return checked
    for name in trial.cotangents:
        only = {other: c if other == name else np.zeros_like(c) for other, c in trial.cotangents.items()}
        manual = trial.again(only).gradients
        truth = yardstick.of_output(name, trial.dtypes)
        for place, (row, found, (true, allowed)) in enumerate(zip(checked, manual, truth, strict=True)):
            wrong = int((~(distance(found, true) <= allowed)).sum())
            if wrong and not row.wrong and not row.complaint:
                says = f"{wrong} of {found.size} elements are wrong for the output `{name}` alone"
                checked[place] = replace(row, complaint=says)
    return checked


def _by_difference(row: Row) -> Row:
    slope = row.slope
    if slope is None or not slope.smooth:
        return row
    measured = f"a finite difference along a random direction, {table.number(slope.measured)}"
    if not slope.manual_agrees and row.ok:
        against = f"contradicted by {measured}: the gradient says {table.number(slope.manual)}"
        return replace(row, complaint=against)
    if slope.manual_agrees and not slope.agrees and row.wrong:
        return replace(
            row, excuse=f"{row.wrong} elements are not the oracle's, but {measured}, agrees with the gradient"
        )
    return row
