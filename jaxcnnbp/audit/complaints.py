"""What speaks against a gradient whose elements are all near the oracle's, and for one whose elements are not.

In this order: the rule in float64, where it runs there, is its formula, and decides; where formula and oracle differ,
or the oracle is not finite, finite differences of each element decide; what is left are roundings, which are measured
on the oracle, on autodiff in the same dtype, and on the steps of the rule itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from jaxcnnbp.audit import table
from jaxcnnbp.audit.differences import Differences, differences_in
from jaxcnnbp.audit.formula import OF_ELEMENT, Wide
from jaxcnnbp.audit.measure import distance, largest
from jaxcnnbp.audit.own_rules import REFUSALS
from jaxcnnbp.audit.tolerance import by_noise
from jaxcnnbp.audit.yardstick import Measure, says_nothing

if TYPE_CHECKING:
    from jaxcnnbp.audit.report import Maps, Row
    from jaxcnnbp.audit.trial import Trial
    from jaxcnnbp.audit.yardstick import Yardstick

# Each output alone costs as many runs of the oracle as all of them together.
MOST_OUTPUTS = 8
# How much further than autodiff's, in the same dtype, the roundings of a rule may be off whose formula is right.
WORSE_THAN_AUTODIFF = 4.0
RULE_RUNS = 4
# A slope may be off by this much of the gradient's length, beyond the estimated error of the difference.
ALONG = 1e-3


def weighed(rows: Sequence[Row], trial: Trial, yardstick: Yardstick) -> list[Row]:
    """The rows of the gradients with what else is wrong, or right, about them."""
    if yardstick.expected is not None:
        return list(rows)
    if yardstick.differences is not None:
        measured = [_along(row, place, yardstick.differences) for place, row in enumerate(rows)]
        cuts = ", ".join(sorted(yardstick.differences.numbers.cuts))
        return [row if row.ok or not cuts else replace(row, doubt=CUT.format(cuts), complaint="") for row in measured]
    wide = yardstick.wide
    if wide is None:
        return list(rows)
    found = [_weighed(row, place, trial, yardstick, wide) for place, row in enumerate(rows)]
    checked = _each_output(found, trial, yardstick, wide)
    return checked if wide.judge.cuts or yardstick.by_reference else [_by_slope(row) for row in checked]


def by_hand(place: int, maps: Maps, yardstick: Yardstick) -> tuple[np.ndarray, np.ndarray]:
    """The gradient by the rules and what it may be off by: in float64 where they run there."""
    wide, rule = yardstick.wide, yardstick.rule_for(maps)
    if wide is None or rule is None or yardstick.formula is None:
        return maps.manual, maps.allowed
    return rule.gradients[place], yardstick.formula[place]


def _weighed(row: Row, place: int, trial: Trial, yardstick: Yardstick, wide: Wide) -> Row:
    """A row by its formula, by differences where that is not the oracle's, and by what its own rounding explains."""
    truth = wide.judge.truth.gradients[place]
    hand, room = by_hand(place, row.maps, yardstick)
    is_formula = hand is not row.maps.manual
    disputed = ~(distance(hand, truth) <= room)
    decided = disputed.any() and not wide.judge.cuts and not yardstick.by_reference
    excuse = _excused(disputed, place, hand, room, wide) if decided else ""
    if disputed.any() and not excuse:
        return replace(row, complaint=_formula_words(disputed, hand, truth)) if is_formula and not row.wrong else row
    if not is_formula:
        nothing = (
            says_nothing(Measure(truth, row.maps.allowed, ""))
            and not row.wrong
            and yardstick.tolerance_of(row.name) is None
        )
        return replace(row, excuse=excuse, doubt=SAYS_NOTHING if nothing else "")
    if not row.wrong:
        return row
    return replace(row, excuse=_rounding(row, place, np.where(disputed, hand, truth), hand, trial, wide, excuse))


def weighed_output(row: Row, yardstick: Yardstick) -> Row:
    """The row of an output by its formula, and by what autodiff's forward pass rounds."""
    wide = yardstick.wide
    rule = yardstick.rule_for(row.maps)
    if wide is None or rule is None or yardstick.tolerance_of(row.name) is not None:
        return row
    truth, hand = wide.judge.truth.outputs[row.name], rule.outputs[row.name]
    off = ~(distance(hand, truth) <= wide.allowed_of_output(row.name))
    if off.any():
        return row if row.wrong else replace(row, complaint=_formula_words(off, hand, truth))
    if not row.wrong or row.maps.autodiff is None:
        return row
    room = row.maps.allowed + WORSE_THAN_AUTODIFF * largest(distance(row.maps.autodiff, truth))
    near = (distance(row.maps.manual, truth) <= room) | (row.maps.manual == row.maps.autodiff)
    return replace(row, excuse=NO_BETTER) if near.all() else row


NO_BETTER = "the formula is right in float64, and autodiff rounds no better"
CUT = (
    "there is no oracle, and `fun` stops a gradient ({}), which differences do not see; pass `reference` or `expected`"
)
SAYS_NOTHING = (
    "as much is allowed as the gradient is large, and the rule does not run in float64; pass arguments"
    " that are better conditioned, or `tolerance`"
)


def _formula_words(off: np.ndarray, hand: np.ndarray, truth: np.ndarray) -> str:
    gap = np.where(off, distance(hand, truth), -1.0)
    worst = tuple(map(int, np.unravel_index(int(np.argmax(gap)), gap.shape)))
    says = f"{table.number(hand[worst].item())} instead of {table.number(truth[worst].item())}"
    count = f"{int(off.sum())} of {off.size} elements"
    return f"the formula is wrong, in float64: {count}, worst at {table.index(worst)}: {says}"


def _excused(disputed: np.ndarray, place: int, hand: np.ndarray, room: np.ndarray, wide: Wide) -> str:
    """What differences say for elements that are not the oracle's; "" if they speak against them."""
    found = differences_in(wide.judge, wide.problem, wide.cotangents, wide.seed)
    oracle = wide.judge.truth.gradients[place]
    truth, error, width = found.gradient(place, hand, disputed)
    near = error + OF_ELEMENT * np.abs(truth)
    measured = np.isfinite(error)
    # Differences that cannot tell the two apart leave it to the oracle.
    for_oracle = (distance(oracle, truth) <= near) & (width == 0)
    if (measured & (~(distance(hand, truth) <= near) | for_oracle)).any():
        return ""
    if not measured.any():
        return ""
    # Of a convex function, and of a concave one, the gradient lies between both sides along every direction; of a sum
    # of both it may lie outside, by as much as the two are apart.
    both = np.abs(width) if (width > 0).any() and (width < 0).any() else np.zeros(width.shape)
    for direction in (found.inputs[place], *found.directions(place)):
        along = found.along(place, direction)
        slope = float(np.sum(hand * direction).real)
        length = abs(slope) + float(np.linalg.norm(direction * np.where(disputed, hand, 0)))
        off = np.where(np.isfinite(room), room, 0.0) + (0.0 if along.smooth else both)
        allowed = 4 * along.error + OF_ELEMENT * length + float(np.sum(off * np.abs(direction)))
        if not abs(slope - along.nearest(slope)) <= allowed:
            return ""
    kink = " (it has a kink there, and the gradient lies between both sides)" if width.any() else ""
    return f"{int(disputed.sum())} elements are not the oracle's, but finite differences agree with the gradient{kink}"


def _rounding(row: Row, place: int, truth: np.ndarray, hand: np.ndarray, trial: Trial, wide: Wide, excuse: str) -> str:
    """What explains elements that are off, of a rule whose formula is right; "" if nothing does."""
    maps = row.maps
    gap, room = distance(maps.manual, truth), maps.allowed
    if not (gap > room).any():
        return excuse
    if maps.autodiff is not None:
        by_jax = distance(maps.autodiff, truth)
        same = distance(maps.manual, maps.autodiff) <= room
        room = room + WORSE_THAN_AUTODIFF * largest(by_jax)
        if (same | (gap <= room)).all():
            return f"{excuse + '; ' if excuse else ''}{NO_BETTER}"
    try:
        runs = [wide.by_rules(wide.cotangents, i + 1).gradients[place] for i in range(RULE_RUNS)]
    except REFUSALS:  # a rule that cannot be disturbed
        return ""
    own, _ = by_noise(hand, runs, trial.dtypes[place])
    if not (gap <= np.maximum(room, own)).all():
        return ""
    return f"{excuse + '; ' if excuse else ''}the formula is right in float64, and its own roundings explain the rest"


def _each_output(rows: Sequence[Row], trial: Trial, yardstick: Yardstick, wide: Wide) -> list[Row]:
    """The gradients of one output at a time: of a small one beside a large one an error would not show."""
    checked = list(rows)
    if not 1 < len(trial.cotangents) <= MOST_OUTPUTS:
        return checked
    for name in trial.cotangents:
        for place, (found, true, allowed) in enumerate(_of_output(name, trial, yardstick, wide)):
            row = checked[place]
            wrong = int((~(distance(found, true) <= allowed)).sum())
            if wrong and row.ok and not row.excuse:
                says = f"{wrong} of {found.size} elements are wrong for the output `{name}` alone"
                checked[place] = replace(row, complaint=says)
    return checked


def _of_output(
    name: str, trial: Trial, yardstick: Yardstick, wide: Wide
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """By hand, by the oracle, and what may be off, of one output alone."""
    formula = trial.foreign and yardstick.formula is not None
    given = wide.cotangents if formula else trial.cotangents
    only = {other: c if other == name else np.zeros_like(c) for other, c in given.items()}
    truth = wide.judge.gradients(cotangents=only)
    manual = wide.by_rules(only) if formula else trial.again(only)
    allowed = yardstick.allowed_for(truth, only, wide)
    return list(zip(manual.gradients, truth.gradients, allowed, strict=True))


def _by_slope(row: Row) -> Row:
    slope = row.slope
    if slope is None or not slope.smooth:
        return row
    measured = f"a finite difference along a random direction, {table.number(slope.measured)}"
    if not slope.manual_agrees and row.ok:
        against = f"contradicted by {measured}: the gradient says {table.number(slope.manual)}"
        return replace(row, complaint=against)
    return row


def _along(row: Row, place: int, differences: Differences) -> Row:
    """A row judged by differences of elements, of which there may be more than were measured, along directions."""
    manual = row.maps.manual
    if row.wrong or row.complaint or not manual.size:
        return row
    for direction in differences.directions(place):
        found, slope = differences.along(place, direction), float(np.sum(manual * direction).real)
        length = float(np.linalg.norm(manual)) + abs(slope) + abs(found.value)
        if found.smooth and not abs(found.value - slope) <= 4 * found.error + ALONG * length:
            says = f"{table.number(found.value)}: the gradient says {table.number(slope)}"
            return replace(row, complaint=f"contradicted by a finite difference along a random direction, {says}")
    return row
