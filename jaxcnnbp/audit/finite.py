"""Finite differences: the derivative of a function of one number, from both sides, and how far off it may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

# Shorter steps are tried where a kink, or much curvature, lies within a longer one.
SHORTER, ATTEMPTS = 16.0, 7
LONGER = (16.0, 256.0)
# How many times the estimated error the derivatives of both sides may differ by before a kink is seen.
KINK = 20.0
# What an error may be, of the derivative and of a change by a whole value, to say anything.
CONVERGED = 1e-2, 1e-4
# What a slope may be off by beyond the estimate, relative to it, for estimates are rough.
AGREEMENT = 1e-4


@dataclass(frozen=True)
class FiniteDerivative:
    """What differences say of a derivative."""

    value: float  # the central one
    left: float  # the derivative from the left
    right: float  # from the right
    error: float  # what each may be off by; infinite where differences do not converge, as in chaos

    @property
    def smooth(self) -> bool:
        """Whether both sides agree; where not, there is a kink."""
        return bool(np.isfinite(self.value + self.error) and abs(self.right - self.left) <= KINK * self.error)

    def nearest(self, slope: float) -> float:
        """The derivative; at a kink, what lies between both sides and is nearest to `slope`."""
        between = np.isfinite(self.left + self.right) and not self.smooth
        low, high = sorted((self.left, self.right))
        return min(max(slope, low), high) if between and slope == slope else self.value


@np.errstate(all="ignore")
def derivative(
    value: Callable[[float], float], scale: float, unit: float, magnitude: float = 0.0, claimed: float = np.nan
) -> FiniteDerivative:
    """The derivative of `value` at 0.

    Values of iterations that stop early have steps of their own, which short differences see. So those that contradict
    what is claimed are none where longer ones, which are exact enough to tell both apart, agree with it.

    Args:
      value: the function.
      scale: the length over which it changes.
      unit: the unit roundoff of what computes it.
      magnitude: of the terms that sum to a value, where they may cancel.
      claimed: the derivative by a gradient.
    """
    here, start = value(0.0), float(np.cbrt(2 * unit)) * scale  # balances truncation with rounding
    best, rounding = _at(value, here, start, unit, magnitude)
    step = start
    for _ in range(ATTEMPTS - 1):
        if not best.error > 4 * rounding:
            break
        step /= SHORTER
        found, rounding = _at(value, here, step, unit, magnitude)
        if not best.error <= found.error and (found.value != 0 or best.value == 0):
            best = found
    contradicts = abs(best.value - claimed) > 4 * best.error + AGREEMENT * abs(claimed)
    for longer in LONGER if contradicts and best.smooth else ():
        found, _ = _at(value, here, longer * start, unit, magnitude)
        if abs(found.value - claimed) <= 4 * found.error <= abs(best.value - claimed) / 4:
            return found
    enough = CONVERGED[0] * abs(best.value) + CONVERGED[1] * max(magnitude, abs(here)) / scale
    at_kink = abs(best.right - best.left) > KINK * best.error
    return best if at_kink or best.error <= max(enough, 4 * rounding) else replace(best, error=np.inf)


def _at(
    value: Callable[[float], float], here: float, step: float, unit: float, magnitude: float
) -> tuple[FiniteDerivative, float]:
    left, near_left, near_right, right = (value(part * step) for part in (-1.0, -0.5, 0.5, 1.0))
    far, near = (right - left) / (2 * step), (near_right - near_left) / step
    from_right = (4 * near_right - right - 3 * here) / step
    from_left = (3 * here - 4 * near_left + left) / step
    largest = max(magnitude, *(abs(v) for v in (left, near_left, here, near_right, right)))
    rounding = 8 * unit * largest / step
    error = abs(near - far) + rounding
    return FiniteDerivative(near + (near - far) / 3, from_left, from_right, error), rounding


@dataclass(frozen=True)
class Slope:
    """The derivative along one random direction.

    Attributes:
      measured: by central differences.
      oracle: by the oracle's gradient.
      manual: by the hand-written gradient.
      smooth: whether the derivatives from both sides agree; where not, nothing is concluded.
      agrees: whether `measured` and `oracle` agree; None where the function is not smooth.
      manual_agrees: whether `measured` and `manual` agree, as far as what the gradient may be off by; None likewise.
    """

    measured: float
    oracle: float
    manual: float
    smooth: bool
    agrees: bool | None
    manual_agrees: bool | None


def slope_by(gradient: np.ndarray, direction: np.ndarray) -> float:
    """The derivative in a direction that a gradient says."""
    return float(np.sum(gradient * direction).real)


def room_along(allowed: np.ndarray, direction: np.ndarray) -> float:
    """What it may be off by, as far as that is known of the elements."""
    return float(np.sum(np.where(np.isfinite(allowed), allowed, 0.0) * np.abs(direction)))


@np.errstate(all="ignore")
def slope_of(
    found: FiniteDerivative, truth: np.ndarray, manual: np.ndarray, allowed: np.ndarray, along: np.ndarray
) -> Slope:
    """What the derivative `found` in the direction `along` says of two gradients."""
    by_oracle, by_hand = slope_by(truth, along), slope_by(manual, along)
    if not found.smooth:
        return Slope(found.value, by_oracle, by_hand, False, None, None)
    # Along a random direction the derivative is about as large as the gradient is long.
    lengths = (float(np.linalg.norm(truth)), abs(by_oracle), abs(found.value))
    near = AGREEMENT * sum(n for n in lengths if np.isfinite(n)) + 4 * found.error
    agrees = abs(found.value - by_oracle) <= near
    manual_agrees = abs(found.value - by_hand) <= near + room_along(allowed, along)
    return Slope(found.value, by_oracle, by_hand, True, bool(agrees), bool(manual_agrees))


def scale_of(values: np.ndarray) -> float:
    """The root mean square."""
    return float(np.sqrt(np.mean(np.abs(values) ** 2))) if values.size else 1.0
