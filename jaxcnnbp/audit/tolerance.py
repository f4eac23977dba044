"""How far a correct gradient may be from the oracle.

With u the unit roundoff of the dtype (6e-8 for float32), element i of a gradient g may be off by

    allowed_i = 2 max(spread_i, typical spread) + 4 u (|g_i| + max |g|).

`spread_i` is the furthest that element moves when the oracle's function is run with rounding noise of 8 u in every step
that rounds and in every operand of a sum (`noise`); the typical spread is its 90 % quantile over the array. The noise
of a sum of n terms adds up as rounding does, like `u sqrt(n)` times the terms, also where the terms cancel; and where
two candidates for a maximum differ by less than the rounding, it changes the winner as rounding may. It counts twice,
for several such winners may meet in one element, and a few runs need not have shown the worst. The last term stands for
the few roundings that the noise does not reach, those of sums in the backward pass of operations that only move values;
and where 4 of the smallest numbers of the dtype are more, for underflow.

For float32 this is some 1e-6 of the largest entry: a kernel gradient that is 0.1 % too large, or one element
that is missing, is off by a thousand times more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from jaxcnnbp.audit.measure import largest
from jaxcnnbp.audit.noise import unit_roundoff
from jaxcnnbp.audit.passes import NOISE_UNITS
from jaxcnnbp.audit.problem import is_at

Tolerance = float | Mapping[str, float] | None

ROUNDINGS_BEYOND_NOISE = 4.0
TYPICAL = 0.9
BEYOND_SAMPLES = 2.0


def by_noise(truth: np.ndarray, spread: np.ndarray, runs: int, dtype: np.dtype) -> tuple[np.ndarray, str]:
    """What each element may be off by that `runs` with noise move by `spread`; and why."""
    typical = np.quantile(spread, TYPICAL) if spread.size else 0.0
    reason = (
        f"rounding noise of {NOISE_UNITS:g} units of the dtypes in use, in each step of the float64 oracle,"
        f" moves it by half of that in one of {runs} runs, or that is"
        f" {ROUNDINGS_BEYOND_NOISE:g} units of {dtype} of the largest entry"
    )
    allowed = _roundings(truth, dtype)
    allowed += BEYOND_SAMPLES * np.maximum(spread, typical)
    return allowed, reason


def by_terms(truth: np.ndarray, terms: int, dtype: np.dtype) -> tuple[np.ndarray, str]:
    """What each element may be off by if it sums up to `terms` rounded terms as large as the largest entry; and why."""
    unit = unit_roundoff(dtype)
    walk = NOISE_UNITS * unit * math.sqrt(terms) * largest(truth)
    reason = f"{NOISE_UNITS:g} u sqrt({terms} terms) of the largest entry, u = {unit:.1e}"
    return walk + _roundings(truth, dtype), reason


def by_user(truth: np.ndarray, tolerance: float) -> tuple[np.ndarray, str]:
    """`tolerance` relative to the element and to the largest entry."""
    return tolerance * (_size(truth) + largest(truth)), f"`tolerance` (={tolerance:g}) of the element and largest entry"


def of_leaf(tolerance: Tolerance, name: str) -> float | None:
    """The user's tolerance of the leaf `name`: that of the longest path that it is at, if they are given by path."""
    if not isinstance(tolerance, Mapping):
        return tolerance
    paths = [path for path in tolerance if is_at(name, path)]
    return tolerance[max(paths, key=len)] if paths else None


def _roundings(truth: np.ndarray, dtype: np.dtype) -> np.ndarray:
    info = jnp.finfo(dtype)
    # Compilers flush subnormal numbers to zero, except in float16, which they compute in float32.
    smallest = info.smallest_subnormal if dtype == jnp.float16 else info.tiny
    rounded = _size(truth)
    rounded += largest(truth)
    rounded *= unit_roundoff(dtype)
    return ROUNDINGS_BEYOND_NOISE * np.maximum(rounded, float(smallest), out=rounded)


def _size(truth: np.ndarray) -> np.ndarray:
    size = np.asarray(np.abs(truth))
    size[~np.isfinite(size)] = 0.0
    return size
