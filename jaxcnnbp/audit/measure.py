"""How far one array is from another, element by element."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from jaxcnnbp.audit.noise import unit_roundoff

BLOCK = 2**20


@dataclass(frozen=True)
class Errors:
    """Distances between an array and the oracle's.

    Attributes:
      max_abs: largest |difference|.
      max_rel: largest |difference| / max(|oracle|, sqrt(eps) * largest |oracle|), eps of the dtype; the
        second keeps elements that are zero but for rounding from counting as wrong by a factor.
      max_ulp: largest |difference| in distances between neighbouring numbers of the dtype at that same magnitude.
      cosine: cosine of the angle between the two arrays; 1 if both are zero.
    """

    max_abs: float
    max_rel: float
    max_ulp: float
    cosine: float


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a - b|: 0 where both are the same infinity or both NaN, infinite where only one is."""
    with np.errstate(all="ignore"):
        gap = np.asarray(np.abs(a - b))
    if not (unknown := np.isnan(gap)).any():
        return gap
    return np.where(unknown, np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.inf), gap)


def off(a: np.ndarray, b: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Where two arrays are further apart than there is `room` for, or that cannot be told."""
    return ~(distance(a, b) <= room)


def place_of_largest(values: np.ndarray) -> tuple[int, ...]:
    """The multi-index of the first of the largest elements."""
    return tuple(map(int, np.unravel_index(int(np.argmax(values)), values.shape)))


def errors_of(value: np.ndarray, truth: np.ndarray, dtype: np.dtype) -> Errors:
    """The distances of `value` from `truth`, both in float64 or complex128; `dtype` is what `value` was kept in."""
    floor, found = math.sqrt(2 * unit_roundoff(dtype)) * largest(truth), np.zeros(3)
    for own, true in _blocks(value, truth):
        gap, size = distance(own, true), np.maximum(np.abs(true), floor)
        found = np.maximum(found, [gap.max(), excess(gap, size).max(), excess(gap, spacing(size, dtype)).max()])
    most, relative, in_ulp = found.tolist()
    return Errors(most, relative, in_ulp, _cosine(value, truth))


def furthest_apart(a: np.ndarray, b: np.ndarray) -> float:
    """The largest finite distance of two arrays."""
    return max((largest(distance(*parts)) for parts in _blocks(a, b)), default=0.0)


def largest(values: np.ndarray) -> float:
    """The largest finite magnitude, 0 if there is none."""
    sizes = (np.abs(part) for (part,) in _blocks(values))
    return max((float(np.max(size, where=np.isfinite(size), initial=0.0)) for size in sizes), default=0.0)


def _blocks(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Arrays of one shape in flat parts of the same elements, so that what is computed of them takes little memory."""
    flat = [a.reshape(-1) for a in arrays]
    yield from (tuple(a[start : start + BLOCK] for a in flat) for start in range(0, flat[0].size, BLOCK))


def spacing(size: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The distance from `size` to the next larger number of `dtype`."""
    info = jnp.finfo(dtype)
    exponent = np.frexp(np.where(np.isfinite(size), size, 1.0))[1] - 1
    return np.ldexp(1.0, np.maximum(exponent, info.minexp) - info.nmant)


def excess(gap: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """`gap` in units of what is `allowed`: 0 where there is none, infinite where it is unknown."""
    with np.errstate(all="ignore"):
        ratio = np.where(gap == 0, 0.0, gap / allowed)
    return np.where(np.isnan(ratio), np.inf, ratio)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    if not (np.isfinite(a) & np.isfinite(b)).all():
        finite = np.isfinite(a) & np.isfinite(b)
        a, b = a[finite], b[finite]
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    if lengths == 0:
        return 1.0 if largest(a) == largest(b) else 0.0
    return float(np.clip(np.real(np.vdot(a, b)) / lengths, -1, 1))
