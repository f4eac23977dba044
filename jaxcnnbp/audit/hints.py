"""What a wrong gradient looks like: the right one scaled, flipped, transposed, shifted, or another leaf's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from jaxcnnbp.audit.measure import distance
from jaxcnnbp.audit.report import Maps

# Elements to look at for all shifts of an array: beyond it shifts are not tried.
MOST_WORK = 10**8


def hint_for(maps: Maps, wrong: np.ndarray, axes: Sequence[int], others: Mapping[str, np.ndarray]) -> str:
    """The first simple change of the right gradient that gives the hand-written one, in words; else where the `wrong`
    elements lie, if that is easily said; else "".
    """
    if np.any(np.isnan(maps.manual) & ~np.isnan(maps.oracle)):
        return "a NaN that the right gradient does not have"
    if not maps.manual.any():
        return "no gradient at all: every element is 0"
    for words, changed in _changes(maps.oracle, axes, others):
        if changed.shape == maps.manual.shape and np.all(distance(maps.manual, changed) <= _slack(maps, changed)):
            return words
    return _scaled(maps) or _localised(maps, wrong)


def _slack(maps: Maps, changed: np.ndarray) -> float:
    """What a changed gradient may be off by: the most that any element may, for elements have moved."""
    size = float(np.max(np.abs(maps.oracle), initial=0.0))
    ratio = float(np.max(np.abs(changed), initial=0.0)) / size if size else 1.0
    return float(maps.allowed.max()) * max(ratio, 1.0)


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
    """One factor between the two, if there is one that rounding cannot make; of one number there always is."""
    if maps.oracle.size == 1:
        return ""
    energy = float(np.sum(np.abs(maps.oracle) ** 2))
    if not np.isfinite(energy) or energy == 0:
        return ""
    factor = float(np.real(np.vdot(maps.oracle, maps.manual))) / energy
    near = np.all(distance(maps.manual, factor * maps.oracle) <= maps.allowed * max(1.0, abs(factor)))
    return f"{factor:.6g} times the right gradient" if near else ""


def _localised(maps: Maps, wrong: np.ndarray) -> str:
    """Where the wrong elements lie if they fill most of some slices, or of one side of a diagonal; what is there."""
    share, where = max((*_slices(wrong), *_sides_of_diagonals(wrong)), default=(0.0, ""), key=lambda region: region[0])
    what = _what_is(maps, wrong)
    return f"the right gradient but for {where}{f': {what}' if what else ''}" if share > 0.5 else ""


def _slices(wrong: np.ndarray) -> Iterator[tuple[float, str]]:
    """The slices that hold all wrong elements, and the share of their elements that is wrong."""
    places = [np.flatnonzero(wrong.any(tuple(b for b in range(wrong.ndim) if b != axis))) for axis in range(wrong.ndim)]
    confined = {axis: at for axis, at in enumerate(places) if len(at) < wrong.shape[axis] and _listed(at)}
    if confined:
        where = ", ".join(f"axis {axis} {_listed(at)}" for axis, at in confined.items())
        extents = [len(confined[axis]) if axis in confined else wrong.shape[axis] for axis in range(wrong.ndim)]
        yield float(wrong.sum() / np.prod(extents)), where


def _listed(places: np.ndarray) -> str:
    step = set(np.diff(places).tolist())
    if len(places) <= 4:
        return f"in {places.tolist()}"
    if step == {1}:
        return f"in {places[0]} .. {places[-1]}"
    return f"in {places[0]}, {places[1]} .. {places[-1]}" if len(step) == 1 else ""


def _sides_of_diagonals(wrong: np.ndarray) -> Iterator[tuple[float, str]]:
    for a, b in combinations(range(wrong.ndim), 2):
        below = np.subtract.outer(np.arange(wrong.shape[a]), np.arange(wrong.shape[b]))
        rest = tuple(axis for axis in range(wrong.ndim) if axis not in (a, b))
        for relation, side in (("=", below == 0), (">", below > 0), ("<", below < 0)):
            here = np.broadcast_to(np.expand_dims(side, rest), wrong.shape)
            if here.any() and not np.any(wrong & ~here):
                yield float(wrong.sum() / here.sum()), f"where axis {a} {relation} axis {b}"


def _what_is(maps: Maps, wrong: np.ndarray) -> str:
    found, right, allowed = (a[wrong] for a in (maps.manual, maps.oracle, maps.allowed))
    if not found.any():
        return "all 0 there"
    return _scaled(Maps(found, None, right, allowed)).replace("gradient", "one there")
