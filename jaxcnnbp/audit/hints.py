"""What a wrong gradient looks like: the right one scaled, flipped, transposed, shifted, or another leaf's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from jaxcnnbp.audit.measure import distance
from jaxcnnbp.audit.report import Maps

# Elements to look at for all shifts of an array: beyond it shifts are not tried.
MOST_WORK = 10**8


def hint_for(maps: Maps, axes: Sequence[int], others: Mapping[str, np.ndarray]) -> str:
    """The first simple change of the right gradient that gives the hand-written one, in words; "" if none
    does.
    """
    if np.any(np.isnan(maps.manual) & ~np.isnan(maps.oracle)):
        return "a NaN that the right gradient does not have"
    if not maps.manual.any():
        return "no gradient at all: every element is 0"
    for words, changed in _changes(maps.oracle, axes, others):
        if changed.shape == maps.manual.shape and np.all(distance(maps.manual, changed) <= _slack(maps, changed)):
            return words
    return _scaled(maps)


def _slack(maps: Maps, changed: np.ndarray) -> np.ndarray:
    """What a changed gradient may be off by: the most that any element may, for elements have moved."""
    size = float(np.max(np.abs(maps.oracle), initial=0.0))
    ratio = float(np.max(np.abs(changed), initial=0.0)) / size if size else 1.0
    return np.full(changed.shape, maps.allowed.max() * max(ratio, 1.0))


def _changes(
    truth: np.ndarray, axes: Sequence[int], others: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    yield "the right gradient with its sign turned", -truth
    if np.iscomplexobj(truth):
        yield "the complex conjugate of the right gradient", truth.conj()
    if axes:
        yield "the right gradient flipped on its spatial axes", np.flip(truth, tuple(axes))
    for axis in range(truth.ndim):
        yield f"the right gradient flipped on axis {axis}", np.flip(truth, axis)
    for a, b in combinations(range(truth.ndim), 2):
        yield f"the right gradient with axes {a} and {b} transposed", np.swapaxes(truth, a, b)
    for axis in range(truth.ndim if truth.size * sum(truth.shape) < MOST_WORK else 0):
        for step in range(1, truth.shape[axis]):
            yield f"the right gradient rolled by {step} along axis {axis}", np.roll(truth, step, axis)
    for name, other in others.items():
        yield f"the gradient of `{name}`", other


def _scaled(maps: Maps) -> str:
    """One factor between the two, if there is one that rounding cannot make."""
    energy = float(np.sum(np.abs(maps.oracle) ** 2))
    if not np.isfinite(energy) or energy == 0:
        return ""
    factor = float(np.real(np.vdot(maps.oracle, maps.manual))) / energy
    near = np.all(distance(maps.manual, factor * maps.oracle) <= maps.allowed * max(1.0, abs(factor)))
    return f"{factor:.6g} times the right gradient" if near else ""
