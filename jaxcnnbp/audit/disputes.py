"""What finite differences say of a gradient that is not the oracle's: at a kink it may be another one, and right.

Several arguments may share a kink, as those of `max(a, b)` do. Then each gradient by itself may lie between the
derivatives of both sides, and all of them together not: where all arguments move so that they stay at the kink, the
function is smooth, and has one derivative.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxcnnbp.audit import table
from jaxcnnbp.audit.differences import Differences
from jaxcnnbp.audit.finite import FiniteDerivative, room_along, slope_by
from jaxcnnbp.audit.formula import OF_ELEMENT, Wide
from jaxcnnbp.audit.measure import off

# What noise in float64 moves by more than this share of itself has equal candidates for a maximum, or is chaotic.
TRUSTED = 0.1


class Told(NamedTuple):
    """Whether differences agree with a gradient, None if they cannot tell, and whether it is at a kink."""

    agrees: bool | None = None
    at_kink: bool = False


class Hand(NamedTuple):
    """A gradient by hand, and what each element may be off by."""

    gradient: np.ndarray
    room: np.ndarray


def trusted(hand: Hand, truth: np.ndarray, wide: Wide) -> Hand:
    """`hand` with no room that only noise explains which chooses among equal candidates, and hides what a rule does."""
    size = np.maximum(np.abs(truth), np.abs(hand.gradient))
    return Hand(hand.gradient, np.where(hand.room > TRUSTED * size, wide.least_room(truth), hand.room))


def told(disputed: np.ndarray, place: int, hand: Hand, wide: Wide, oracle: np.ndarray | None) -> Told:
    """What differences say of the elements that are `disputed`; where they cannot tell it from the `oracle`, if that is
    given, they do not agree.
    """
    if not disputed.any():
        return Told()
    found = wide.differences
    truth, error, width = found.gradient(place, hand.gradient, disputed)
    near, measured, at_kink = error + OF_ELEMENT * np.abs(truth), np.isfinite(error), bool(width.any())
    differs = off(hand.gradient, truth, near)
    if oracle is not None:
        differs |= ~off(oracle, truth, near) & (width == 0)
    if (measured & differs).any():
        return Told(False, at_kink)
    if not measured.any():
        return Told(None, at_kink)
    # Of a convex function, and of a concave one, the gradient lies between both sides along every direction; of a sum
    # of both it may lie outside, by as much as the two are apart.
    both = np.abs(width) if (width > 0).any() and (width < 0).any() else 0.0 * width
    for moves in found.directions(place):
        along = found.along(moves, slope_by(hand.gradient, moves[place]))
        room = hand.room + (0.0 if along.smooth else both)
        if not _is_along(moves, along, {place: hand._replace(room=room)}, OF_ELEMENT):
            return Told(False, at_kink)
    return Told(True, at_kink)


def jointly(hands: Sequence[Hand], names: Sequence[str], differences: Differences, of_length: float) -> str:
    """What speaks against gradients that are each right by themselves; "" if nothing does."""
    for moves in differences.joint_directions() if len(hands) > 1 else ():
        slope = sum(slope_by(hands[place].gradient, d) for place, d in moves.items())
        along = differences.along(moves, slope)
        if along.smooth and not _is_along(moves, along, dict(enumerate(hands)), of_length):
            which = ", ".join(f"`{name}`" for name in names)
            return (
                f"contradicted by a finite difference along which {which} change together,"
                f" {table.number(along.value)}: their gradients together say {table.number(slope)}"
            )
    return ""


def _is_along(
    moves: Mapping[int, np.ndarray], along: FiniteDerivative, hands: Mapping[int, Hand], of_length: float
) -> bool:
    """Whether gradients have the derivative `along` where inputs move by `moves`."""
    slope = sum(slope_by(hands[place].gradient, d) for place, d in moves.items())
    room = 4 * along.error + of_length * abs(slope)
    for place, d in moves.items():
        room += of_length * float(np.linalg.norm(hands[place].gradient * d)) + room_along(hands[place].room, d)
    return abs(slope - along.nearest(slope)) <= room
