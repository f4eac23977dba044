"""How far one array is from another, element by element."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from jaxcnnbp.audit.noise import unit_roundoff


@dataclass(frozen=True)
class Errors:
    """Distances between an array and the oracle's.

    Attributes:
      max_abs: largest |difference|.
      max_rel: largest |difference| / max(|oracle|, sqrt(eps) * largest |oracle|), eps of the dtype; the
        second keeps elements that are zero but for rounding from counting as wrong by a factor.
      max_ulp: largest |difference| in distances between neighbouring numbers of the dtype at that same
        magnitude.
      cosine: cosine of the angle between the two arrays; 1 if both are zero.
    """

    max_abs: float
    max_rel: float
    max_ulp: float
    cosine: float


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a - b|: 0 where both are the same infinity or both NaN, infinite where only one is."""
    with np.errstate(all="ignore"):
        gap = np.abs(a - b)
    gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, gap)
    return np.where(np.isnan(gap), np.inf, gap)


def errors_of(value: np.ndarray, truth: np.ndarray, dtype: np.dtype) -> Errors:
    """The distances of `value` from `truth`, both in float64 or complex128; `dtype` is what `value` was kept
    in.
    """
    if value.size == 0:
        return Errors(0.0, 0.0, 0.0, 1.0)
    gap = distance(value, truth)
    size = np.maximum(np.abs(truth), math.sqrt(2 * unit_roundoff(dtype)) * largest(truth))
    return Errors(float(gap.max()), _ratio(gap, size), _ratio(gap, spacing(size, dtype)), _cosine(value, truth))


def largest(values: np.ndarray) -> float:
    """The largest finite magnitude, 0 if there is none."""
    size = np.abs(values)
    return float(np.max(size, where=np.isfinite(size), initial=0.0))


def spacing(size: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The distance from `size` to the next larger number of `dtype`."""
    info = jnp.finfo(dtype)
    exponent = np.frexp(np.where(np.isfinite(size), size, 1.0))[1] - 1
    return np.ldexp(1.0, np.maximum(exponent, info.minexp) - info.nmant)


def _ratio(gap: np.ndarray, scale: np.ndarray) -> float:
    with np.errstate(all="ignore"):
        ratio = np.where(gap == 0, 0.0, gap / scale)
    return float(np.max(np.where(np.isnan(ratio), np.inf, ratio)))


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    finite = np.isfinite(a) & np.isfinite(b)
    a, b = a[finite], b[finite]
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    if lengths == 0:
        return 1.0 if largest(a) == largest(b) else 0.0
    return float(np.clip(np.real(np.vdot(a, b)) / lengths, -1, 1))
