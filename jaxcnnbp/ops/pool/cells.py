"""Reading and adding where an index says: for pools whose windows lie where the data, or chance, put them.

A cell is a flat, row-major position among the spatial axes of one image and channel; -1 is nowhere. Arrays are
`(batch, *spatial, channels)`, cells `(batch, *output, channels)`.
"""

from __future__ import annotations

from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnnbp.geometry.window import Ints
from jaxcnnbp.ops._dtypes import cast, wide


def read_cells(x: Array, cells: Array) -> Array:
    """x[cells], 0 for nowhere."""
    batch, channels = x.shape[0], x.shape[-1]
    laid = cells.reshape(batch, prod(cells.shape[1:-1]), channels)
    flat = x.reshape(batch, prod(x.shape[1:-1]), channels)
    found = jnp.take_along_axis(flat, jnp.maximum(laid, 0), 1, mode="clip")
    return jnp.where(laid < 0, jnp.zeros((), x.dtype), found).reshape(cells.shape)


def add_to_cells(delta: Array, cells: Array, spatial: Ints) -> Array:
    """The transpose of `read_cells`: dx[i] = sum of delta[u] over all u with cells[u] = i."""
    batch, channels, count = delta.shape[0], delta.shape[-1], prod(spatial)
    laid = (batch, prod(delta.shape[1:-1]), channels)
    target = jnp.where(cells < 0, count, cells).reshape(laid)
    start = jnp.zeros((batch, count, channels), wide(delta.dtype))
    columns = jnp.arange(channels)[None, :]

    def of_image(start: Array, target: Array, delta: Array) -> Array:
        return start.at[target, columns].add(delta, mode="drop")

    # Image by image in the eyes of the compiler, which else gathers images that are spread over devices.
    sent = jax.vmap(of_image)(start, target, cast(delta.reshape(laid), start.dtype))
    return cast(sent.reshape(batch, *spatial, channels), delta.dtype)


def argmax(p: Array, axis: int) -> Array:
    """Index of the largest of `p` along `axis`, which stays: the first of several, the first NaN before all.

    `jnp.argmax` inside of `jax.enable_x64` gives int64, for which a program that is compiled outside has no code.
    """
    return jnp.expand_dims(lax.argmax(p, axis % p.ndim, np.int32), axis)


def first_largest(p: Array, axis: int) -> Array:
    """Index of the first largest of `p` along `axis`; of several NaNs, which are larger than all, the last."""
    nan = jnp.isnan(p)
    last = p.shape[axis] - 1 - argmax(jnp.flip(nan, axis), axis)
    return jnp.where(nan.any(axis, keepdims=True), last, argmax(p, axis))
