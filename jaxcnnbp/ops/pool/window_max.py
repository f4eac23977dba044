"""The extreme value of every window and the tap that holds it: all axes at once where taps are few, else axis by axis.

    best[u] = max_t p[u, t]          who[u] = the first tap t with p[u, t] == best[u], of NaNs the last

Going axis by axis keeps row-major order, the last axis first: the first (for NaN the last) extreme of the first (last)
extreme row is the first (last) extreme of the window. It costs kh + kw comparisons an element rather than kh * kw.

The values come first, and the taps are then found by comparing with them: folding both at once would compute every
comparison twice, for XLA makes no loop with two results on a CPU. On GPUs it does, and there few taps are folded so.
Nor is there a padded copy of the input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial, reduce
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike

from jaxcnnbp.geometry import Window
from jaxcnnbp.ops import lax_itself
from jaxcnnbp.ops._dtypes import cast, cast_exact, wide
from jaxcnnbp.ops._sharding import may_be_partitioned
from jaxcnnbp.ops._xla_cpu import compute_once, cond_on_cpu, in_memory
from jaxcnnbp.ops.pool.joining import LONG, Operation, join_windows
from jaxcnnbp.taps import at_outputs, lay, pad_once, pad_to_reach, reached, take_reached

# With more taps than this windows are folded axis after axis, and so they are where the next window reads all taps of
# this one but the first: then what is folded along one axis serves many windows.
FEW_TAPS = 12
# A place that comes after all others.
NOWHERE = np.int32(np.iinfo(np.int32).max)


def extremes(x: Array, window: Window, kind: str) -> Array:
    """`(batch, *spatial, channels)` -> the extreme values, `(batch, *output, channels)`."""
    if not is_short(window):
        return _values_by_joining(x, window, kind)
    *inner, last = steps(window)
    if not is_written_out(window) or (inner and may_be_partitioned(x)):
        return _extremes_by_lax(x, window, kind)
    for step in inner:
        x = compute_once(partial(_values, window=step, kind=kind), x)
    return _values(x, last, kind)


def extremes_and_taps(x: Array, window: Window, kind: str) -> tuple[Array, Array]:
    """The same, and the number of the tap that holds each in the narrowest unsigned integer, 0 where no tap does."""
    if not is_written_out(window):
        return by_joining(x, window, kind)
    by_axis = partial(_one_axis_after_the_other, window=window, kind=kind)
    if window.taps > FEW_TAPS or len(steps(window)) == 1:
        return by_axis(x)
    return lax.platform_dependent(x, cuda=partial(_all_axes_at_once, window=window, kind=kind), default=by_axis)


def _one_axis_after_the_other(x: Array, window: Window, kind: str) -> tuple[Array, Array]:
    x, weight, found = in_memory(x), 1, list[Array]()
    for step in steps(window):
        best = compute_once(partial(_values, window=step, kind=kind), x)
        numbers = (np.arange(step.taps).reshape(step.size) * weight).astype(tap_dtype(window.taps))
        found = [_holders(best, x, *found, window=step, numbers=numbers)]
        x, weight = best, weight * step.taps
    return x, found[0]


def _all_axes_at_once(x: Array, window: Window, kind: str) -> tuple[Array, Array]:
    """In one chain over all taps, which XLA makes one loop of on GPUs: 3x3/2 of 64x112x112x64 in 82 instead of 180 us.

    Measured on an H200, JAX 0.11.2, `benchmarks/gpu/h200-forms.json`.
    """
    outside, dtype = identity(x.dtype, kind), wide(x.dtype)
    beats = lax.gt if kind == "max" else lax.lt
    shape = (x.shape[0], *window.output, x.shape[-1])
    best, who = jnp.full(shape, outside, dtype), jnp.full(shape, -1, np.int32)
    for tap, spans in reached(window):
        p = lay(cast(take_reached(x, window, tap, spans), dtype), window, spans, outside)
        inside = lay(jnp.ones((1, *(v - u for u, v in spans), 1), bool), window, spans, False)
        wins = inside & (beats(p, best) | (p != p) | (who < 0))
        best, who = jnp.where(wins, p, best), jnp.where(wins, np.int32(window.tap_number(tap)), who)
    return cast_exact(best, x.dtype), cast(jnp.maximum(who, 0), tap_dtype(window.taps))


def is_written_out(window: Window) -> bool:
    """Whether windows are folded tap by tap: few along every axis, over an input without gaps."""
    return is_short(window) and all(step == 1 for step in window.input_dilation)


def is_short(window: Window) -> bool:
    """Whether the taps along each axis are few enough to be written out."""
    return max(window.size, default=1) <= LONG


def steps(window: Window) -> list[Window]:
    """What is folded one after the other."""
    separate = all(k == 1 or s > d == 1 for k, s, d in zip(window.size, window.stride, window.dilation, strict=True))
    if window.taps <= FEW_TAPS and separate:
        return [window]
    parts, spatial = [], window.spatial
    for axis in reversed(range(window.rank)):
        part = window.along(axis, spatial)
        if (part.taps, part.output) != (1, spatial) or any(part.padding[axis]):
            parts.append(part)
        spatial = (*spatial[:axis], window.output[axis], *spatial[axis + 1 :])
    return parts or [window]


def identity(dtype: DTypeLike, kind: str) -> float | int | bool:
    """What padding holds: the value that any other beats or equals."""
    if jnp.issubdtype(dtype, jnp.inexact):
        greatest = np.inf if np.isinf(np.asarray(np.inf, dtype)) else float(jnp.finfo(dtype).max)
        return -greatest if kind == "max" else greatest
    if jnp.issubdtype(dtype, jnp.bool_):
        return kind == "min"
    return int(jnp.iinfo(dtype).min if kind == "max" else jnp.iinfo(dtype).max)


def tap_dtype(taps: int) -> DTypeLike:
    """The narrowest unsigned integer that counts `taps`."""
    return jnp.uint8 if taps <= 2**8 else jnp.uint16 if taps <= 2**16 else jnp.uint32


def _values(x: Array, window: Window, kind: str) -> Array:
    # Compared wide: XLA rounds the result of every operation on narrow floats, which here takes most of the time.
    outside, dtype = identity(x.dtype, kind), wide(x.dtype)
    better = lax.max if kind == "max" else lax.min
    nothing = jnp.full((x.shape[0], *window.output, x.shape[-1]), outside, dtype)
    read = ((cast(take_reached(x, window, tap, spans), dtype), spans) for tap, spans in reached(window))
    return cast_exact(reduce(better, (lay(p, window, spans, outside) for p, spans in read), nothing), x.dtype)


def _holders(best: Array, x: Array, *below: Array, window: Window, numbers: np.ndarray) -> Array:
    """The number of the tap that holds `best`, plus what is `below` it: the number that the axes before have found."""

    def last_where(holds: Callable[[Array, Array], Array], taps: Iterable[Any], best: Array, *read: Array) -> Array:
        who = jnp.zeros(best.shape, numbers.dtype)
        for tap, spans in taps:
            p, *found = (take_reached(a, window, tap, spans) for a in read)
            held = lay(holds(p, at_outputs(best, spans)), window, spans, False)
            number = lax.full_like(who, numbers[tap])
            who = lax.select(held, lax.add(number, lay(found[0], window, spans)) if found else number, who)
        return who

    taps = list(reached(window))
    first = partial(last_where, lax.eq, taps[::-1])
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return compute_once(first, best, x, *below)
    first = jax.jit(first)  # traced once for both branches of the condition
    last_nan = partial(last_where, lambda p, _: lax.ne(p, p), taps)

    def with_nans(best: Array, *read: Array) -> Array:
        return lax.select(lax.ne(best, best), last_nan(best, *read), first(best, *read))

    if best.size == 0 or may_be_partitioned(x):
        return with_nans(best, x, *below)
    return cond_on_cpu(jnp.isnan(jnp.max(best)), with_nans, first, best, x, *below)


def _extremes_by_lax(x: Array, window: Window, kind: str) -> Array:
    start, reducer = np.asarray(identity(x.dtype, kind), x.dtype), lax.max if kind == "max" else lax.min
    # XLA forgets gaps where a large input has windows of one cell, and stops the process where one is only cropped
    # (openxla/xla issues 48714 and 48719): what windows do not read as it is gets laid out first.
    if any(step > 1 for step in window.input_dilation) or any(low < 0 or high < 0 for low, high in window.reach):
        x, window = pad_once(x, window, identity(x.dtype, kind))
    else:  # nor must a crop of the input's own become one with the padding of the windows (48715)
        x = lax.optimization_barrier(x)
    size, stride, dilation = ((1, *v, 1) for v in (window.size, window.stride, window.dilation))
    padding = (0, 0), *window.reach, (0, 0)
    return lax_itself.reduce_window(x, start, reducer, size, stride, padding, None, dilation)


def by_joining(x: Array, window: Window, kind: str) -> tuple[Array, Array]:
    """The same for windows whose taps are too many to write out: pairs of a value and its place are joined.

    A place on the padding comes after all others.
    """
    padded, local = pad_once(in_memory(x), window, identity(x.dtype, kind))
    places = np.where(_on_input(window), np.arange(prod(local.spatial), dtype=np.int32).reshape(local.spatial), NOWHERE)
    pairs = padded, jnp.asarray(places)[None, ..., None]
    best, place = join_windows(pairs, window, with_places(kind))
    return best, cast(_taps_of_places(place, local), tap_dtype(window.taps))


Pair = tuple[Array, Array]  # values and their places


def with_places(kind: str) -> Operation:
    """The extreme of values with their places: of equal values the first place wins, of NaNs the last."""
    beats, extreme = (lax.gt, jnp.max) if kind == "max" else (lax.lt, jnp.min)

    def two(a: Pair, b: Pair) -> Pair:
        (p, i), (q, j) = a, b
        p_nan, q_nan = p != p, q != q
        wins = beats(q, p) | (q_nan & (~p_nan | (j > i))) | ((p == q) & (j < i))
        return jnp.where(wins, q, p), jnp.where(wins, j, i)

    def whole_axis(pair: Pair, axis: int) -> Pair:
        p, place = pair
        best = extreme(p, axis)
        first = jnp.where(p == jnp.expand_dims(best, axis), place, NOWHERE).min(axis)
        if not jnp.issubdtype(p.dtype, jnp.inexact):
            return best, first
        return best, jnp.where(best != best, jnp.where(p != p, place, np.int32(-1)).max(axis), first)

    return Operation(two, whole_axis)


def _values_by_joining(x: Array, window: Window, kind: str) -> Array:
    two, all_of = (lax.max, jnp.max) if kind == "max" else (lax.min, jnp.min)
    return join_windows(pad_to_reach(x, window, identity(x.dtype, kind)), window, Operation(two, all_of))


def _taps_of_places(place: Array, window: Window) -> Array:
    """Flat positions on an unpadded input as the taps that fall there; beyond it as tap 0."""
    index, weight = jnp.zeros_like(place), 1
    rest = jnp.where(place < prod(window.spatial), place, 0)
    found = place < prod(window.spatial)
    for axis in reversed(range(window.rank)):
        position, rest = rest % window.spatial[axis], rest // window.spatial[axis]
        start = np.arange(window.output[axis], dtype=np.int32) * window.stride[axis]
        tap = (position - along(start, axis, window.rank)) // window.dilation[axis]
        index, weight = index + tap * weight, weight * window.size[axis]
    return jnp.where(found, index, 0)


def _on_input(window: Window) -> np.ndarray:
    """`(*padded,)` of bool: which positions of the padded input hold an input cell."""
    masks = []
    for (low, high), n, step in zip(window.reach, window.dilated, window.input_dilation, strict=True):
        position = np.arange(low + n + high) - low
        masks.append((position >= 0) & (position < n) & (position % step == 0))
    return reduce(np.logical_and.outer, masks)


def along(values: np.ndarray, axis: int, rank: int) -> Array:
    """`values` laid along spatial `axis` of `(batch, *spatial, channels)`."""
    return jnp.asarray(values.reshape([-1 if a == axis + 1 else 1 for a in range(rank + 2)]))
