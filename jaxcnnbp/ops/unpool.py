"""The document's `up`: pooled values back to where they were found, or copied over their blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxcnnbp.geometry import Window, per_axis, window_of
from jaxcnnbp.geometry.window import Ints
from jaxcnnbp.hand_written import hand_written
from jaxcnnbp.modes import switchable
from jaxcnnbp.ops.devices import alike, placed_alike
from jaxcnnbp.ops.layout import takes_layout
from jaxcnnbp.ops.mean_pool import copy_to_windows_op
from jaxcnnbp.ops.numerics import require_inexact
from jaxcnnbp.ops.pool_front import merge_batch, spatial_rank, split_batch


@hand_written
@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _unpool(values: Array, argmax: Array, spatial: Ints) -> Array:
    return unpool_forward(values, argmax, spatial)


def unpool_forward(values: Array, argmax: Array, spatial: Ints) -> Array:
    """y[argmax[u]] = values[u], zero elsewhere; index -1 is nowhere."""
    batch, channels = values.shape[0], values.shape[-1]
    cells = math.prod(spatial)
    rows, columns = _image_and_channel(values)
    flat = jnp.zeros((batch, cells, channels), values.dtype)
    laid = (batch, math.prod(values.shape[1:-1]), channels)
    target = jnp.where(argmax < 0, cells, argmax).reshape(laid)
    filled = flat.at[rows, target, columns].set(values.reshape(laid), mode="drop")
    return filled.reshape(batch, *spatial, channels)


def unpool_fwd(values: Array, argmax: Array, spatial: Ints) -> tuple[Array, Array]:
    """:: (values, argmax) -> (y, argmax)."""
    return unpool_forward(values, argmax, spatial), argmax


def unpool_bwd(spatial: Ints, argmax: Array, delta: Array) -> tuple[Array, None]:
    """:: (argmax, CT y) -> CT values: each value takes the delta of the cell it went to."""
    batch, channels = argmax.shape[0], argmax.shape[-1]
    rows, columns = _image_and_channel(argmax)
    cells = math.prod(spatial)
    flat = delta.reshape(batch, cells, channels)
    index = jnp.where(argmax < 0, cells, argmax).reshape(batch, math.prod(argmax.shape[1:-1]), channels)
    return flat.at[rows, index, columns].get(mode="fill", fill_value=0).reshape(argmax.shape), None


_unpool.defvjp(unpool_fwd, unpool_bwd)
_unpool_op = jax.jit(
    lambda values, argmax, spatial: _unpool(*alike(values, argmax), spatial), static_argnums=2, inline=True
)


@takes_layout("values", "argmax", window="spatial_shape")
@switchable
def max_unpool(
    values: ArrayLike, argmax: ArrayLike, spatial_shape: Sequence[int], *, layout: str = "channels_last"
) -> Array:
    """Values laid back on the cells that `max_pool_with_argmax` recorded, zero elsewhere.

    Args:
      values: `(*batch, *pooled, channels)`.
      argmax: int32 of the same shape, flat positions among the spatial axes of one image and channel; -1 is nowhere.
      spatial_shape: spatial extents of the result.
      layout: as `max_pool`.

    Returns:
      `(*batch, *spatial_shape, channels)`. Values with the same cell must agree: one of them stays.

    Raises:
      TypeError, ValueError: with the argument and its value.

    Example:
      >>> import jax.numpy as jnp
      >>> max_unpool(jnp.array([3., 5.]).reshape(1, 2, 1), jnp.array([1, 2]).reshape(1, 2, 1), (4,)).ravel()
      Array([0., 3., 5., 0.], dtype=float32)

    Source: the document's `up` for max pooling; PyTorch's `max_unpool2d`.
    """
    values, argmax = jnp.asarray(values), jnp.asarray(argmax)
    if not jnp.issubdtype(argmax.dtype, jnp.integer):
        raise TypeError(f"`argmax` (dtype={argmax.dtype}) must be integers, as `max_pool_with_argmax` gives them.")
    if argmax.shape != values.shape:
        raise ValueError(f"`argmax` (shape={argmax.shape}) must have the shape of `values` (shape={values.shape}).")
    if not isinstance(spatial_shape, Sequence):
        raise TypeError(f"`spatial_shape` (={spatial_shape!r}) must be a sequence of ints, one a spatial axis.")
    rank = len(spatial_shape)
    if values.ndim < rank + 1:
        raise ValueError(
            f"`spatial_shape` (={spatial_shape!r}) has more axes than `values` (shape={values.shape}) has."
        )
    spatial = per_axis(tuple(spatial_shape), rank, "spatial_shape", minimum=0)
    merged = merge_batch(values, rank), merge_batch(argmax, rank)
    unpooled = placed_alike(lambda values, argmax: _unpool_op(values, argmax, spatial), *merged)
    return split_batch(unpooled, values, rank)


@takes_layout("delta", window="window_shape")
@switchable
def upsample(
    delta: ArrayLike,
    window_shape: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    *,
    layout: str = "channels_last",
) -> Array:
    """The block copy: each value fills its window, which is the Kronecker product with ones.

    Args:
      delta: `(*batch, *pooled, channels)`, floats.
      window_shape: extents of a block, its length says how many spatial axes there are.
      strides: positions from one block to the next, `window_shape` if None; blocks that overlap add up.
      layout: as `max_pool`.

    Returns:
      `(*batch, *spatial, channels)` with extents `(pooled - 1) * strides + window_shape`. Divided by the number of
      cells of a block it is the delta of mean pooling.

    Raises:
      TypeError, ValueError: with the argument and its value.

    Example:
      >>> import jax.numpy as jnp
      >>> upsample(jnp.array([1., 2.]).reshape(1, 2, 1), (2,)).ravel()
      Array([1., 1., 2., 2.], dtype=float32)

    Source: Bouvrie (2006), section 3.2: up(x) = x (x) 1.
    """
    delta = jnp.asarray(delta)
    require_inexact(delta, "delta")
    rank = spatial_rank(window_shape, delta)
    if delta.ndim < rank + 1:
        raise ValueError(f"`delta` (shape={delta.shape}) must be (*batch, *pooled, channels) with {rank} pooled axes.")
    merged = merge_batch(delta, rank)
    blocks = _blocks(merged.shape[1:-1], window_shape, strides)
    return split_batch(placed_alike(lambda delta: copy_to_windows_op(delta, blocks), merged), delta, rank)


def _blocks(pooled: Ints, window_shape: Any, strides: Any) -> Window:
    size = per_axis(window_shape, len(pooled), "window_shape")
    stride = size if strides is None else per_axis(strides, len(pooled), "strides")
    spatial = tuple((o - 1) * s + k if o else 0 for o, s, k in zip(pooled, stride, size, strict=True))
    return window_of(spatial, size, stride=stride)


def _image_and_channel(values: Array) -> tuple[Array, Array]:
    batch, channels = values.shape[0], values.shape[-1]
    return jnp.arange(batch)[:, None, None], jnp.arange(channels)[None, None, :]
