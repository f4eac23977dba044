"""What a wrong gradient looks like: the right one scaled, flipped, transposed, shifted, or another leaf's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

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
    return _changed(maps, axes, others, "the right gradient") or _localised(maps, wrong)


def _changed(maps: Maps, axes: Sequence[int], others: Mapping[str, np.ndarray], right: str) -> str:
    for words, changed in _changes(maps.oracle, axes, others):
        if changed.shape == maps.manual.shape and np.all(distance(maps.manual, changed) <= _slack(maps, changed)):
            return words.format(right)
    return _scaled(maps).format(right)


def _slack(maps: Maps, changed: np.ndarray) -> float:
    """What a changed gradient may be off by: the most that any element may, for elements have moved."""
    size = float(np.max(np.abs(maps.oracle), initial=0.0))
    ratio = float(np.max(np.abs(changed), initial=0.0)) / size if size else 1.0
    return float(maps.allowed.max()) * max(ratio, 1.0)


def _changes(
    truth: np.ndarray, axes: Sequence[int], others: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    yield "{} with its sign turned", -truth
    if np.iscomplexobj(truth):
        yield "the complex conjugate of {}", truth.conj()
        yield "the real part of {}", np.real(truth) + 0j
        yield "the imaginary part of {}", 1j * np.imag(truth)
    if axes:
        yield "{} flipped on its spatial axes", np.flip(truth, tuple(axes))
    for axis in range(truth.ndim):
        yield f"{{}} flipped on axis {axis}", np.flip(truth, axis)
    for a, b in combinations(range(truth.ndim), 2):
        yield f"{{}} with axes {a} and {b} transposed", np.swapaxes(truth, a, b)
    for axis in range(truth.ndim if truth.size * sum(truth.shape) < MOST_WORK else 0):
        for step in range(1, truth.shape[axis]):
            yield f"{{}} rolled by {step} along axis {axis}", np.roll(truth, step, axis)
    for name, other in others.items():
        yield f"the gradient of `{name}`".replace("{", "{{").replace("}", "}}"), other


def _scaled(maps: Maps) -> str:
    """One factor between the two, if there is one that rounding cannot make; of one number there always is."""
    if maps.oracle.size == 1:
        return ""
    energy = float(np.sum(np.abs(maps.oracle) ** 2))
    if not np.isfinite(energy) or energy == 0:
        return ""
    factor = float(np.real(np.vdot(maps.oracle, maps.manual))) / energy
    near = np.all(distance(maps.manual, factor * maps.oracle) <= maps.allowed * max(1.0, abs(factor)))
    return f"{factor:.6g} times {{}}" if near else ""


def _localised(maps: Maps, wrong: np.ndarray) -> str:
    """Where the wrong elements lie and what is there: slices that are changed, or slices or a side of a diagonal, most
    of whose elements are wrong.
    """
    confined = _confined(wrong)
    slices = ", ".join(f"axis {axis} {_listed(at)}" for axis, at in enumerate(confined) if len(at) < wrong.shape[axis])
    block = _part(maps, np.ix_(*confined))
    there = _what_is(block) or (block.manual.size > 1 and _changed(block, (), {}, "the right one there"))
    if slices and there:
        return f"the right gradient but for {slices}: {there}"
    regions = [(float(wrong.sum() / block.manual.size), slices)] if slices else []
    share, where = max((*regions, *_sides_of_diagonals(wrong)), default=(0.0, ""), key=lambda region: region[0])
    there = _what_is(_part(maps, wrong))
    return f"the right gradient but for {where}{f': {there}' if there else ''}" if share > 0.5 else ""


def _part(maps: Maps, chosen: Any) -> Maps:
    return Maps(maps.manual[chosen], None, maps.oracle[chosen], maps.allowed[chosen])


def _confined(wrong: np.ndarray) -> list[np.ndarray]:
    """For each axis the places that hold all wrong elements, or all of them where that is not easily said."""
    axes = range(wrong.ndim)
    places = [np.flatnonzero(wrong.any(tuple(b for b in axes if b != axis))) for axis in axes]
    return [at if _listed(at) else np.arange(wrong.shape[axis]) for axis, at in enumerate(places)]


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


def _what_is(there: Maps) -> str:
    return "all 0 there" if not there.manual.any() else _scaled(there).format("the right one there")
