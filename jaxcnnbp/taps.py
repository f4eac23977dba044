"""`gather` takes an input to its taps, `scatter` is its transpose: every rule of the package is made of these two.

Arrays are `(batch, *spatial, channels)`. With `n` the position that tap `t` of output `u` reads (`geometry.window`),

    gather:   p[u, t] = x[n(u, t)]                               (`fill` where n lies outside the input)
    scatter:  x'[n]   = sum of v[u, t] over all (u, t) with n(u, t) = n
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnnbp.geometry.window import Ints, Window, unpadded

Reader = Callable[[Array], Array]

# More taps than this are not written out one by one: compiling them would take too long.
MANY_TAPS = 128


def gather(x: Array, window: Window, fill: float | int = 0) -> Iterator[tuple[Ints, Array]]:
    """Pairs of a tap and what all windows read with it, `(batch, *output, channels)`, taps in row-major order."""
    padded = pad_to_reach(x, window, fill)
    for tap in window.tap_indices():
        yield tap, take_tap(padded, window, tap)


def pad_to_reach(x: Array, window: Window, fill: float | int = 0) -> Array:
    """`x` padded, cropped and dilated so that every window lies inside it."""
    if not any(low or high for low, high in window.reach) and all(i == 1 for i in window.input_dilation):
        return x
    gaps = [(low, high, i - 1) for (low, high), i in zip(window.reach, window.input_dilation, strict=True)]
    padded = pad_axes(x, gaps, fill)
    # Fused into its many readers, a pad would put a branch into each of their inner loops.
    return lax.optimization_barrier(padded)


def pad_once(x: Array, window: Window, fill: float | int = 0) -> tuple[Array, Window]:
    """`x` with its padding and gaps, and the window over it that is left."""
    return pad_to_reach(x, window, fill), unpadded(window)


def without_crop(x: Array, window: Window) -> tuple[Array, Window]:
    """`x` and `window` without negative padding: what it cuts off is gone.

    Only where an axis is cut at its beginning and padded at its end: there XLA's convolutions on CPUs read memory that
    is not theirs.
    """
    if not any(low < 0 < high for low, high in window.reach):
        return x, window
    rows = zip(window.spatial, window.input_dilation, window.reach, strict=True)
    starts, stops, pairs = zip(*(_kept(*row) for row in rows), strict=True)
    kept = tuple(stop - start for start, stop in zip(starts, stops, strict=True))
    x = cut(x, starts, stops)
    return x, replace(window, spatial=kept, padding=pairs, ceil_mode=False)


def _kept(extent: int, gaps: int, pair: tuple[int, int]) -> tuple[int, int, tuple[int, int]]:
    """The first cell that `pair` leaves, the one after the last, and the padding around them."""
    low, high = pair
    first, last = (-(n // gaps) if n < 0 else 0 for n in pair)
    if first + last < extent:
        return first, extent - last, (low + first * gaps, high + last * gaps)
    return 0, 0, (0, low + (extent - 1) * gaps + 1 + high if extent else low + high)


def take_tap(padded: Array, window: Window, tap: Ints) -> Array:
    """What every window reads from `padded` with `tap`, `(batch, *output, channels)`."""
    starts = [t * d for t, d in zip(tap, window.dilation, strict=True)]
    limits = [a + (o - 1) * s + 1 for a, o, s in zip(starts, window.output, window.stride, strict=True)]
    return cut(padded, starts, limits, window.stride)


def take_blocks(padded: Array, window: Window) -> Array:
    """The same with all taps, `(batch, *output, *size, channels)`, where what windows read lies side by side."""
    counts = [n for pair in zip(window.output, window.size, strict=True) for n in pair]
    blocks = padded.reshape(padded.shape[0], *counts, padded.shape[-1])
    return blocks.transpose(0, *range(1, 2 * window.rank, 2), *range(2, 2 * window.rank + 1, 2), 2 * window.rank + 1)


def lay_blocks(blocks: Array, window: Window) -> Array:
    """The transpose of padding and `take_blocks`: cell r of block m lies at the padded position `m * size + r`.

    From `(batch, *count, *size, *channels)` to the input; the blocks need not be the windows.
    """
    rank, of_blocks = window.rank, range(1, window.rank + 1)
    by_position = [axis for of_block in of_blocks for axis in (of_block, of_block + rank)]
    laid = blocks.transpose(0, *by_position, *range(2 * rank + 1, blocks.ndim))
    positions = [blocks.shape[axis] * blocks.shape[axis + rank] for axis in of_blocks]
    return crop_to_input(laid.reshape(blocks.shape[0], *positions, math.prod(blocks.shape[2 * rank + 1 :])), window)


Spans = tuple[tuple[int, int], ...]


def reached(window: Window) -> Iterator[tuple[Ints, Spans]]:
    """The taps that fall on the input anywhere, and for each axis the outputs `first .. stop` that they do it for.

    The input must have no gaps.
    """
    for tap in window.tap_indices():
        spans = []
        for axis, t in enumerate(tap):
            offset, stride = t * window.dilation[axis] - window.padding[axis][0], window.stride[axis]
            first = max(0, -(offset // stride))
            stop = min(window.output[axis], (window.spatial[axis] - 1 - offset) // stride + 1)
            spans.append((first, stop))
        if all(first < stop for first, stop in spans):
            yield tap, tuple(spans)


def take_reached(x: Array, window: Window, tap: Ints, spans: Spans) -> Array:
    """What the outputs in `spans` read from `x` with `tap`: the input as it is, without its padding."""
    first = [t * d - low for t, d, (low, _) in zip(tap, window.dilation, window.padding, strict=True)]
    starts = [a + u * s for a, s, (u, _) in zip(first, window.stride, spans, strict=True)]
    stops = [a + (v - 1) * s + 1 for a, s, (_, v) in zip(first, window.stride, spans, strict=True)]
    return cut(x, starts, stops, window.stride)


def lay(p: Array, window: Window, spans: Spans, fill: float | int | bool = 0) -> Array:
    """`p`, known for the outputs in `spans`, over all outputs."""
    return pad_axes(p, [(u, o - v, 0) for (u, v), o in zip(spans, window.output, strict=True)], fill)


def at_outputs(y: Array, spans: Spans) -> Array:
    """The outputs in `spans`."""
    return cut(y, [u for u, _ in spans], [v for _, v in spans])


# Where there is nothing to cut or to pad nothing is traced: once a tap, that would take most of a small program's time.


def cut(a: Array, starts: Sequence[int], stops: Sequence[int], strides: Sequence[int] | None = None) -> Array:
    """`a[:, start:stop:stride, ..., :]` on every spatial axis."""
    strides = strides or (1,) * len(starts)
    if not any(starts) and tuple(stops) == a.shape[1:-1] and all(s == 1 for s in strides):
        return a
    return lax.slice(a, (0, *starts, 0), (a.shape[0], *stops, a.shape[-1]), (1, *strides, 1))


def pad_axes(a: Array, edges: Sequence[tuple[int, int, int]], fill: Array | float | bool = 0) -> Array:
    """`a` with cells before, behind and between its own on every spatial axis."""
    if not any(map(any, edges)):
        return a
    filling = fill if isinstance(fill, Array) else np.asarray(fill, a.dtype)
    return lax.pad(a, filling, [(0, 0, 0), *edges, (0, 0, 0)])


def scatter(
    value: Callable[[Ints, Reader], Array], window: Window, meet: Callable[[Array, Array], Array] = lax.add
) -> Array:
    """The sum of `value(tap, read)` over all taps, each laid where its tap falls: `(batch, *spatial, channels)`.

    Values that meet in a cell are added, or combined with `meet`, whose identity must be 0.

    `read(a)` gives an array over output positions, `(batch, *output, channels)`, at the outputs that reach the
    positions in hand with `tap`, zero where there is none; `value` must act on each position alone and be zero
    where what it reads is zero.

    With `low` the padding, a tap at offset `t * dilation = stride * q + r` reaches the padded position
    `n + low = stride * (u + q) + r`: the positions of one phase `r` are a plain sum of shifted outputs, without
    a multiplication by zero, and the phases interleave to the input.
    """
    phases = _Phases(window, meet)
    return crop_to_input(interleave(lambda phase: phases.sum_of(phase, value), window), window)


def crop_to_input(positions: Array, window: Window) -> Array:
    """What lies at padded positions `n * input_dilation + low`, for every input cell n."""
    rows = zip(window.padding, window.dilated, positions.shape[1:-1], strict=True)
    positions = pad_axes(positions, [(-low, low + n - p, 0) for (low, _), n, p in rows])
    return cut(positions, (0,) * window.rank, positions.shape[1:-1], window.input_dilation)


def phase_counts(window: Window) -> Ints:
    """Positions of one phase: enough to reach the last input cell, beyond which lies only the high padding."""
    rows = zip(window.padding, window.dilated, window.stride, strict=True)
    return tuple(max(-(-(low + n) // s), 0) for (low, _), n, s in rows)


class _Phases:
    """The bookkeeping of `scatter`: which taps meet in a phase, and how far each is shifted there."""

    def __init__(self, window: Window, meet: Callable[[Array, Array], Array]):
        self.window, self.meet = window, meet
        self.count = phase_counts(window)
        self.farthest = tuple((e - 1) // s for e, s in zip(window.extent, window.stride, strict=True))
        self._padded: dict[int, tuple[Array, Array]] = {}

    def sum_of(self, phase: Ints, value: Callable[[Ints, Reader], Array]) -> Array | None:
        """What the taps of `phase` bring together, `(batch, *count, channels)`, or None if no tap falls there."""
        total = None
        for tap in itertools.product(*(self._taps_in(axis, r) for axis, r in enumerate(phase))):
            term = value(tap, lambda a, tap=tap: self._read(a, tap))
            total = term if total is None else self.meet(total, term)
        return total

    def _taps_in(self, axis: int, phase: int) -> list[int]:
        step, stride = self.window.dilation[axis], self.window.stride[axis]
        return [t for t in range(self.window.size[axis]) if (t * step) % stride == phase]

    def _read(self, array: Array, tap: Ints) -> Array:
        if id(array) not in self._padded:
            highs = [max(m - o, 0) for m, o in zip(self.count, self.window.output, strict=True)]
            padded = pad_axes(array, [(low, high, 0) for low, high in zip(self.farthest, highs, strict=True)])
            # Read by several taps, the pad is worth making once; see `pad_to_reach`.
            padded = lax.optimization_barrier(padded) if any(self.farthest) else padded
            self._padded[id(array)] = (array, padded)
        padded = self._padded[id(array)][1]
        offsets = (t * d // s for t, d, s in zip(tap, self.window.dilation, self.window.stride, strict=True))
        starts = [far - q for far, q in zip(self.farthest, offsets, strict=True)]
        stops = [a + m for a, m in zip(starts, self.count, strict=True)]
        return cut(padded, starts, stops)


def interleave(phase_of: Callable[[Ints], Array | None], window: Window) -> Array:
    """The phases `(batch, *m, channels)` as one array `(batch, *(m * stride), channels)`."""
    rows = zip(window.size, window.dilation, window.stride, strict=True)
    reached = [{t * d % s for t in range(k)} for k, d, s in rows]

    def along(axis: int, chosen: Ints) -> Array | None:
        if axis == window.rank:
            return phase_of(chosen)
        phases = range(window.stride[axis])
        parts = [along(axis + 1, (*chosen, r)) if r in reached[axis] else None for r in phases]
        return _merge_phases(parts, axis + 1)

    merged = along(0, ())
    if merged is None:
        raise ValueError(f"`window_shape` (={window.size}) has no tap; give every axis at least one.")
    return merged


def _merge_phases(parts: list[Array | None], axis: int) -> Array | None:
    present = next((p for p in parts if p is not None), None)
    if present is None or len(parts) == 1:
        return present
    shape, pieces = present.shape, list[Array]()
    for is_gap, run in itertools.groupby(parts, lambda p: p is None):  # one array of zeros for each gap between taps
        phases = list(run)
        if is_gap:
            pieces.append(jnp.zeros((*shape[:axis], shape[axis], len(phases), *shape[axis + 1 :]), present.dtype))
        pieces += [lax.expand_dims(p, [axis + 1]) for p in phases if p is not None]
    stacked = lax.concatenate(pieces, axis + 1)
    return stacked.reshape(*shape[:axis], shape[axis] * len(parts), *shape[axis + 1 :])


def cells(window: Window, count_padding: bool) -> np.ndarray:
    """How many cells each window counts, `(*output,)`: those of the input, or also those of the padding asked for."""
    counted = np.ones((), np.int64)
    for axis in range(window.rank):
        counted = np.multiply.outer(counted, window.cells(axis, count_padding))
    return counted
