"""`gather` and `scatter` one tap after the other, in a loop: for windows of so many taps that none is written out.

With `t * dilation = stride * q + r`, output u reads the padded position `stride * (u + q) + r`. So the positions are
laid out in rows of one stride, `(batch, m, stride, ..., channels)`, and what all outputs read with a tap is one block:
m from q on, and r. Which tap it is only the running program knows.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnnbp.geometry import Window
from jaxcnnbp.geometry.window import Ints, unpadded
from jaxcnnbp.hand_written import unify_varying_axes
from jaxcnnbp.taps import crop_to_input, pad_axes, pad_to_reach


def tap_numbers(window: Window) -> Array:
    """`(taps, rank)`: what such a loop goes over, in row-major order."""
    return jnp.asarray(np.indices(window.size, np.int32).reshape(window.rank, window.taps).T)


def in_rows(x: Array, window: Window, fill: Any = 0) -> Array:
    """The padded input, `(batch, m, stride, ..., channels)`."""
    padded = pad_to_reach(x, window, fill)
    rows = _rows(window)
    whole = [(0, m * s - n, 0) for m, s, n in zip(rows, window.stride, padded.shape[1:-1], strict=True)]
    return pad_axes(padded, whole).reshape(_laid(x.shape[0], x.shape[-1], window))


def cells_in_rows(window: Window) -> Array:
    """The same of bool, `(1, m, stride, ..., 1)`: whether a position holds a cell of the input."""
    return in_rows(jnp.ones((1, *window.spatial, 1), bool), window, False)


def read(rows: Array, tap: Array, window: Window) -> Array:
    """What all outputs read with `tap`, `(batch, *output, channels)`."""
    block = lax.dynamic_slice(rows, _corner(tap, window), _block(rows, window))
    return block.reshape(rows.shape[0], *window.output, rows.shape[-1])


def add(rows: Array, values: Array, tap: Array, window: Window) -> Array:
    """`rows` with `values`, one an output, added where `tap` reads."""
    corner, block = _corner(tap, window), values.reshape(_block(rows, window))
    return lax.dynamic_update_slice(rows, lax.dynamic_slice(rows, corner, block.shape) + block, corner)


def no_rows(batch: int, channels: int, dtype: Any, window: Window, *like: Array) -> Array:
    """Zeros to `add` to, different on all devices that any of `like` differs on."""
    return unify_varying_axes(jnp.zeros(_laid(batch, channels, window), dtype), *like)[0]


def out_of_rows(rows: Array, window: Window) -> Array:
    """`(batch, *spatial, channels)`: what was added at the cells of the input."""
    flat = [m * s for m, s in zip(_rows(window), window.stride, strict=True)]
    return crop_to_input(rows.reshape(rows.shape[0], *flat, rows.shape[-1]), window)


def _rows(window: Window) -> list[int]:
    positions = unpadded(window).spatial
    return [-(-n // s) for n, s in zip(positions, window.stride, strict=True)]


def _laid(batch: int, channels: int, window: Window) -> Ints:
    """`(batch, m, stride, ..., channels)`."""
    return (batch, *(n for pair in zip(_rows(window), window.stride, strict=True) for n in pair), channels)


def _block(rows: Array, window: Window) -> Ints:
    """The shape of what all outputs read of `rows` with one tap."""
    return (rows.shape[0], *(n for o in window.output for n in (o, 1)), rows.shape[-1])


def _corner(tap: Array, window: Window) -> list[Any]:
    corner: list[Any] = [np.int32(0)]
    for axis, (d, s) in enumerate(zip(window.dilation, window.stride, strict=True)):
        offset = tap[axis] * np.int32(d)
        corner += [lax.div(offset, np.int32(s)), lax.rem(offset, np.int32(s))]
    return [*corner, np.int32(0)]
