"""Finite differences of the float64 function along one random direction an input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxcnnbp.audit.passes import Oracle, normal

# The step that balances the truncation of central differences with the rounding of float64.
STEP = float(np.cbrt(np.finfo(np.float64).eps))
AGREEMENT = 1e-5
# Left and right derivatives of a smooth function differ by the step times its curvature; at a kink, by more.
KINK = 1e-3


@dataclass(frozen=True)
class Slope:
    """The derivative along one random direction.

    Attributes:
      measured: by central differences.
      oracle: by the oracle's gradient.
      manual: by the hand-written gradient.
      smooth: whether half the step gives the same, and the left difference the same as the right; where not,
        a kink lies within the step and nothing is concluded.
      agrees: whether `measured` and `oracle` agree; None where the function is not smooth.
      manual_agrees: whether `measured` and `manual` agree, as far as what the gradient may be off by; None likewise.
    """

    measured: float
    oracle: float
    manual: float
    smooth: bool
    agrees: bool | None
    manual_agrees: bool | None


@np.errstate(all="ignore")
def slope_of(
    oracle: Oracle, place: int, truth: np.ndarray, manual: np.ndarray, allowed: np.ndarray, seed: int
) -> Slope:
    """Central differences in a random direction of the input at `place`, with the gradients' word for it."""
    direction = normal(np.random.default_rng((seed, place)), truth.shape, truth.dtype)
    step = STEP * max(1.0, _scale(oracle.input(place)))
    left, near_left, here, near_right, right = (
        oracle.value(place, part * step * direction) for part in (-1.0, -0.5, 0.0, 0.5, 1.0)
    )
    measured = (near_right - near_left) / step
    expected, found = (float(np.sum(g * direction).real) for g in (truth, manual))
    # Along a random direction the derivative is about as large as the gradient is long.
    lengths = (float(np.linalg.norm(truth)), abs(expected), abs(measured))
    length = sum(n for n in lengths if np.isfinite(n))
    noise = 100 * float(np.finfo(np.float64).eps) * oracle.magnitude / step
    straight = abs((right - left) / (2 * step) - measured) <= AGREEMENT * length + noise
    smooth = bool(straight and abs(right + left - 2 * here) / step <= KINK * length + noise)
    if not smooth:
        return Slope(measured, expected, found, False, None, None)
    near = 10 * AGREEMENT * length + noise
    may_be_off = float(np.sum(np.where(np.isfinite(allowed), allowed, 0.0) * np.abs(direction)))
    agrees, manual_agrees = abs(measured - expected) <= near, abs(measured - found) <= near + may_be_off
    return Slope(measured, expected, found, True, bool(agrees), bool(manual_agrees))


def _scale(values: np.ndarray) -> float:
    """The root mean square."""
    return float(np.sqrt(np.mean(np.abs(values) ** 2))) if values.size else 1.0
