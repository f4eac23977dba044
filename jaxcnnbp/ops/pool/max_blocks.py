"""Delta to the recorded winners block by block, one stride of positions each: for strides of many phases.

With `n + low = s m + r` and `t d = s q + r`, position r of block m is reached by window m - q, with tap t:

    dx[m, r] = sum over q of  delta[m - q]  where  t*[m - q] == t(q, r)

q goes over the blocks that one window reaches into: few where windows are little longer than the stride, however long
that is. Sums have one order, and nothing is added where an index says, which GPUs do in whatever order threads arrive.
"""

from __future__ import annotations

from functools import reduce
from math import prod

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnnbp.geometry import Window
from jaxcnnbp.geometry.window import Ints
from jaxcnnbp.ops._dtypes import cast, wide
from jaxcnnbp.taps import crop_to_input, cut, pad_axes, phase_counts


def blocks_reached(window: Window) -> Ints:
    """How many blocks a window reaches into along each axis; one where windows do not overlap."""
    return tuple((e - 1) // s + 1 for e, s in zip(window.extent, window.stride, strict=True))


def send_to_blocks(delta: Array, taps: Array, window: Window) -> Array:
    """dx = scatter(delta[u] where t == t*[u]), one comparison a position and block that a window reaches into."""
    dtype, blocks, reach = delta.dtype, phase_counts(window), blocks_reached(window)
    rows = zip(reach, blocks, window.output, strict=True)
    edges = [(q - 1, max(m - o, 0), 0) for q, m, o in rows]
    if prod(reach) > 1:
        delta = cast(delta, wide(dtype))
    padded = [pad_axes(a, edges) for a in (delta, taps.astype(jnp.int32))]
    batch, channels = delta.shape[0], delta.shape[-1]
    laid = (batch, *(n for m in blocks for n in (m, 1)), channels)

    def sent_from(q: Ints) -> Array:
        starts = [n - 1 - back for n, back in zip(reach, q, strict=True)]
        stops = [a + m for a, m in zip(starts, blocks, strict=True)]
        read = (cut(a, starts, stops).reshape(laid) for a in padded)
        sent, winner = read
        return jnp.where(winner == _numbers(window, q), sent, jnp.zeros((), sent.dtype))

    sent = reduce(lax.add, map(sent_from, np.ndindex(*reach)))
    positions = [m * s for m, s in zip(blocks, window.stride, strict=True)]
    return cast(crop_to_input(sent.reshape(batch, *positions, channels), window), dtype)


def _numbers(window: Window, q: Ints) -> Array:
    """`(1, 1, stride, ..., 1)`: the tap of window m - q that falls on each position of block m, or -1."""
    rows = zip(q, window.stride, window.dilation, strict=True)
    offsets = np.meshgrid(*(back * s + np.arange(s) for back, s, _ in rows), indexing="ij")
    taps = [offset // d for offset, d in zip(offsets, window.dilation, strict=True)]
    axes = zip(taps, offsets, window.size, window.dilation, strict=True)
    is_tap = np.logical_and.reduce([(t * d == offset) & (t < k) for t, offset, k, d in axes])
    numbers = np.where(is_tap, np.ravel_multi_index(tuple(taps), window.size, mode="clip"), -1)
    return jnp.asarray(numbers.reshape([1, *(n for s in window.stride for n in (1, s)), 1]), jnp.int32)
