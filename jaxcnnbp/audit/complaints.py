"""What speaks against a gradient whose elements are all near the oracle's, and for one whose elements are not.

In this order: the rule in float64, where it runs there, is its formula, and decides; where formula and oracle differ,
or the oracle is not finite, finite differences of each element decide; what is left are roundings, which are measured
on the oracle, on autodiff in the same dtype, and on the steps of the rule itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from jaxcnnbp.audit import table
from jaxcnnbp.audit.differences import Differences
from jaxcnnbp.audit.disputes import Hand, Told, jointly, told, trusted
from jaxcnnbp.audit.finite import slope_by
from jaxcnnbp.audit.formula import NOISE_RUNS, OF_ELEMENT, Wide
from jaxcnnbp.audit.hints import hint_for
from jaxcnnbp.audit.measure import distance, furthest_apart, off, place_of_largest
from jaxcnnbp.audit.noise import unit_roundoff
from jaxcnnbp.audit.own_rules import REFUSALS
from jaxcnnbp.audit.report import Maps
from jaxcnnbp.audit.tolerance import BEYOND_SAMPLES, ROUNDINGS_BEYOND_NOISE, by_noise
from jaxcnnbp.audit.yardstick import factor_of, says_nothing

if TYPE_CHECKING:
    from jaxcnnbp.audit.report import ReportRow
    from jaxcnnbp.audit.trial import Trial
    from jaxcnnbp.audit.yardstick import Yardstick

# Each output alone costs as many runs of the oracle as all of them together.
MOST_OUTPUTS = 8
# How much further than autodiff's, in the same dtype, the roundings of a rule may be off whose formula is right.
WORSE_THAN_AUTODIFF = 4.0
# What is off by less than this share is told as one, for it may be a tolerance that the author knows.
SMALL = 1e-3
# A slope may be off by this much of the gradient's length, beyond the estimated error of the difference.
ALONG = 1e-3


def weighed(rows: Sequence[ReportRow], trial: Trial, yardstick: Yardstick) -> list[ReportRow]:
    """The rows of the gradients with what else is wrong, or right, about them."""
    if yardstick.expected is not None:
        return list(rows)
    if yardstick.differences is not None:
        measured = [_along(row, place, yardstick.differences) for place, row in enumerate(rows)]
        hands = [Hand(row.maps.manual, row.maps.allowed) for row in rows]
        measured = _together(measured, range(len(rows)), hands, yardstick.differences, ALONG)
        cuts = ", ".join(sorted(yardstick.differences.numbers.cuts))
        return [row if row.ok or not cuts else replace(row, doubt=CUT.format(cuts), complaint="") for row in measured]
    wide = yardstick.wide
    if wide is None:
        return list(rows)
    weighings = [_weighed(row, place, trial, yardstick, wide) for place, row in enumerate(rows)]
    found, kinked = [row for row, _ in weighings], [place for place, (_, at_kink) in enumerate(weighings) if at_kink]
    if kinked:
        known = zip(rows, wide.judge.truth.gradients, strict=True)
        hands = [trusted(by_hand(i, row.maps, yardstick), truth, wide) for i, (row, truth) in enumerate(known)]
        found = _together(found, kinked, hands, wide.differences, OF_ELEMENT)
    checked = _each_output(found, trial, yardstick, wide)
    checked = _as_a_whole(checked, yardstick, wide)
    return checked if yardstick.by_reference else [_by_slope(row, wide.judge.cuts) for row in checked]


def by_hand(place: int, maps: Maps, yardstick: Yardstick) -> Hand:
    """The gradient by the rules and what it may be off by: in float64 where they run there."""
    wide, rule = yardstick.wide, yardstick.rule_for(maps)
    if wide is None or rule is None or yardstick.formula is None:
        return Hand(maps.manual, maps.allowed)
    return Hand(rule.gradients[place], yardstick.formula.gradients[place])


def _weighed(row: ReportRow, place: int, trial: Trial, yardstick: Yardstick, wide: Wide) -> tuple[ReportRow, bool]:
    """A row by its formula, by differences where that is not the oracle's, and by what its own rounding explains; and
    whether it is at a kink.
    """
    truth, by_user = wide.judge.truth.gradients[place], yardstick.tolerance_of(row.name) is not None
    hand = by_hand(place, row.maps, yardstick)
    is_formula = hand.gradient is not row.maps.manual
    disputed, close = off(hand.gradient, truth, hand.room), trusted(hand, truth, wide)
    closely = is_formula and not by_user
    hidden = ~disputed & off(hand.gradient, truth, close.room) if closely else np.zeros_like(disputed)
    open_ = not wide.judge.cuts and not yardstick.by_reference
    of_disputed = told(disputed, place, hand, wide, truth) if open_ else Told()
    of_hidden = told(hidden, place, close, wide, None) if open_ else Told()
    at_kink = of_disputed.at_kink or of_hidden.at_kink
    wrong = disputed if disputed.any() and not of_disputed.agrees else hidden if of_hidden.agrees is False else None
    if wrong is not None:
        formula = Maps(hand.gradient, None, truth, close.room)
        words = _formula_words(wrong, formula, row.axes) if is_formula and not row.wrong else ""
        return replace(row, complaint=words), at_kink
    excuse = f"{table.some(int(disputed.sum()), disputed.size)} {AGREE}{KINK * at_kink}" if disputed.any() else ""
    if not is_formula:
        nothing = says_nothing(truth, row.maps.allowed) and not row.wrong and not by_user
        return replace(row, excuse=excuse, doubt=SAYS_NOTHING if nothing else ""), at_kink
    if row.wrong:
        right = np.where(disputed, hand.gradient, truth)
        excuse = _rounding(row, place, right, hand.gradient, trial, wide, excuse)
        row = replace(row, excuse=excuse)
    return row, at_kink


def weighed_output(row: ReportRow, yardstick: Yardstick) -> ReportRow:
    """The row of an output by its formula, and by what autodiff's forward pass rounds."""
    wide = yardstick.wide
    rule = yardstick.rule_for(row.maps)
    if wide is None or rule is None or yardstick.formula is None or yardstick.tolerance_of(row.name) is not None:
        return row
    truth, hand = wide.judge.truth.outputs[row.name], rule.outputs[row.name]
    formula = Maps(hand, None, truth, yardstick.formula.outputs[row.name])
    if formula.off().any():
        return row if row.wrong else replace(row, complaint=_formula_words(formula.off(), formula, row.axes))
    if not row.wrong or row.maps.autodiff is None:
        return row
    room = row.maps.allowed + WORSE_THAN_AUTODIFF * furthest_apart(row.maps.autodiff, truth)
    near = (distance(row.maps.manual, truth) <= room) | (row.maps.manual == row.maps.autodiff)
    return replace(row, excuse=NO_BETTER) if near.all() else row


AGREE = "not the oracle's, but finite differences agree with the gradient"
KINK = " (it has a kink there, and the gradient lies between both sides)"
OWN_ROUNDINGS = "the formula is right in float64, and its own roundings explain the rest"
NO_BETTER = "the formula is right in float64, and autodiff rounds no better"
WHOLE = "each element is near, but as a whole the gradient is {:.4g} times the right one, which no rounding explains"
CUT = (
    "there is no oracle, and `fun` stops a gradient ({}), which differences do not see; pass `reference` or `expected`"
)
UNSEEN = "{} says otherwise, which does not see that `fun` stops gradients ({})"
ROUGH_ORACLE = (
    ": a rule of JAX's that it keeps is rough; solve more closely (`rtol` of `odeint`), or pass `reference` or"
    " `expected`"
)
SAYS_NOTHING = (
    "as much is allowed as the gradient is large, and the rule does not run in float64; pass arguments"
    " that are better conditioned, or `tolerance`"
)


def _formula_words(wrong: np.ndarray, maps: Maps, axes: Sequence[int]) -> str:
    gap = np.where(wrong, distance(maps.manual, maps.oracle), -1.0)
    worst = place_of_largest(gap)
    found, right = maps.manual[worst].item(), maps.oracle[worst].item()
    at = f", worst at {table.index(worst)}" if worst else ""
    share = f" ({gap[worst] / abs(right):.0e} of it)" if 0 < gap[worst] < SMALL * abs(right) else ""
    hint = hint_for(maps, wrong, axes, {})
    return (
        f"the formula is wrong: in float64 {table.some(int(wrong.sum()), wrong.size)} off{at}:"
        f" {' instead of '.join(table.apart(found, right))}{share}{f'. It looks like {hint}' if hint else ''}"
    )


def _rounding(
    row: ReportRow, place: int, truth: np.ndarray, hand: np.ndarray, trial: Trial, wide: Wide, excuse: str
) -> str:
    """What explains elements that are off, of a rule whose formula is right; "" if nothing does."""
    maps = row.maps
    wrong = off(maps.manual, truth, maps.allowed)
    if not wrong.any():
        return excuse
    gap, room = distance(maps.manual[wrong], truth[wrong]), maps.allowed[wrong]
    if maps.autodiff is not None:
        same = distance(maps.manual[wrong], maps.autodiff[wrong]) <= room
        room = room + WORSE_THAN_AUTODIFF * furthest_apart(maps.autodiff, truth)
        if (same | (gap <= room)).all():
            return "; ".join(filter(None, (excuse, NO_BETTER)))
    try:
        spread = wide.own_spread.gradients[place]
    except REFUSALS:  # a rule that cannot be disturbed
        return ""
    own, _ = by_noise(hand, spread, NOISE_RUNS, trial.dtypes[place])
    near = (gap <= np.maximum(room, own[wrong])).all()
    return "; ".join(filter(None, (excuse, OWN_ROUNDINGS))) if near else ""


def _as_a_whole(rows: Sequence[ReportRow], yardstick: Yardstick, wide: Wide) -> list[ReportRow]:
    """The rows of gradients that are too large or too small as a whole, by little enough to hide in each element."""

    def off_by(row: ReportRow) -> tuple[float, float]:
        """What a gradient is too large by, and what autodiff and the roundings of one element explain."""
        near, maps = ~row.maps.off(), row.maps  # what is not near is at a kink, or excused
        explained = 2 * ROUNDINGS_BEYOND_NOISE * unit_roundoff(jnp.dtype(row.dtype))
        if maps.autodiff is not None:
            explained += WORSE_THAN_AUTODIFF * abs(factor_of(maps.autodiff[near], maps.oracle[near]) - 1)
        return factor_of(maps.manual[near], maps.oracle[near]) - 1, explained

    def is_open(row: ReportRow) -> bool:
        return row.ok and OWN_ROUNDINGS not in row.excuse and yardstick.tolerance_of(row.name) is None

    found = [off_by(row) if is_open(row) else (0.0, 0.0) for row in rows]
    if all(abs(share) <= explained for share, explained in found):
        return list(rows)
    noise = yardstick.grown(wide)
    return [
        replace(row, complaint=WHOLE.format(1 + share), excuse="")
        if abs(share) > explained + BEYOND_SAMPLES * moved
        else row
        for row, (share, explained), moved in zip(rows, found, noise, strict=True)
    ]


def _each_output(rows: Sequence[ReportRow], trial: Trial, yardstick: Yardstick, wide: Wide) -> list[ReportRow]:
    """The gradients of one output at a time: of a small one beside a large one an error would not show."""
    if not 1 < len(trial.cotangents) <= MOST_OUTPUTS:
        return list(rows)
    wrong: list[dict[str, int]] = [{} for _ in rows]
    for name in trial.cotangents:
        for counts, parts in zip(wrong, _of_output(name, trial, yardstick, wide), strict=True):
            if count := int(off(*parts).sum()):
                counts[name] = count
    return [_with_outputs(*pair, len(trial.cotangents)) for pair in zip(rows, wrong, strict=True)]


def _with_outputs(row: ReportRow, wrong: dict[str, int], outputs: int) -> ReportRow:
    """A row with how many of its elements are wrong for some of the `outputs` alone."""
    which = ", ".join(f"`{name}`" for name in wrong)
    if wrong and row.ok and not row.excuse:
        count = table.some(max(wrong.values()), row.maps.manual.size)
        return replace(row, complaint=f"{count} wrong for the output {which} alone")
    if 0 < len(wrong) < outputs and not row.ok and not row.hint:
        return replace(row, hint=f"the right gradient but for what comes from the output {which}")
    return row


def _of_output(
    name: str, trial: Trial, yardstick: Yardstick, wide: Wide
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """By hand, by the oracle, and what may be off, of one output alone."""
    formula = trial.foreign and yardstick.formula is not None
    given = wide.cotangents if formula else trial.cotangents
    only = {other: c if other == name else np.zeros_like(c) for other, c in given.items()}
    truth = wide.judge.gradients(cotangents=only)
    manual = wide.by_rules(only) if formula else trial.again(only)
    allowed = yardstick.allowed_for(truth, manual, only, wide)
    return list(zip(manual.gradients, truth.gradients, allowed, strict=True))


def _by_slope(row: ReportRow, cuts: str) -> ReportRow:
    slope = row.slope
    if slope is None or not slope.smooth:
        return row
    measured = f"a finite difference along a random direction, {table.number(slope.measured)}"
    if cuts:
        return replace(row, excuse=row.excuse or UNSEEN.format(measured, cuts)) if row.ok and not slope.agrees else row
    if not slope.manual_agrees and row.ok:
        against = f"contradicted by {measured}: the gradient says {table.number(slope.manual)}"
        return replace(row, complaint=against)
    far, off = (abs(slope.oracle - other) for other in (slope.manual, slope.measured))
    if not row.ok and not slope.agrees and far <= off:
        says = f"{measured}, contradicts the oracle, {table.number(slope.oracle)}, by more than the gradient does"
        return replace(row, complaint="", doubt=says + ROUGH_ORACLE)
    return row


def _together(
    rows: Sequence[ReportRow], kinked: Sequence[int], hands: Sequence[Hand], differences: Differences, of_length: float
) -> list[ReportRow]:
    """The rows at places that are `kinked` are wrong if all together are."""
    says = jointly(hands, [row.name for row in rows], differences, of_length) if all(row.ok for row in rows) else ""
    return [replace(row, complaint=says, excuse="") if says and i in kinked else row for i, row in enumerate(rows)]


def _along(row: ReportRow, place: int, differences: Differences) -> ReportRow:
    """A row judged by differences of elements, of which there may be more than were measured, along directions."""
    manual = row.maps.manual
    if row.wrong or row.complaint or not manual.size:
        return row
    for moves in differences.directions(place):
        slope = slope_by(manual, moves[place])
        found = differences.along(moves, slope)
        length = float(np.linalg.norm(manual)) + abs(slope) + abs(found.value)
        if found.smooth and not abs(found.value - slope) <= 4 * found.error + ALONG * length:
            says = f"{table.number(found.value)}: the gradient says {table.number(slope)}"
            return replace(row, complaint=f"contradicted by a finite difference along a random direction, {says}")
    return row
