"""The document's `up`: pooled values back to where they were found, or copied over their blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxcnnbp.geometry import Window, per_axis, window_of
from jaxcnnbp.geometry.window import Ints
from jaxcnnbp.hand_written import hand_written, one_dispatch
from jaxcnnbp.modes import switchable
from jaxcnnbp.ops._dtypes import as_array, cast
from jaxcnnbp.ops._sharding import with_sharding_like
from jaxcnnbp.ops.layout import takes_layout
from jaxcnnbp.ops.pool.cells import read_cells
from jaxcnnbp.ops.pool.mean import copy_to_windows
from jaxcnnbp.ops.pool.parse import merge_batch, spatial_rank, split_batch


class Unpooled(NamedTuple):
    """What the backward pass needs."""

    argmax: Array
    stays: Array  # of bool: whether a value was the one that its cell kept


@hand_written
@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _unpool(values: Array, argmax: Array, spatial: Ints) -> Array:
    return unpool_forward(values, argmax, spatial)


def unpool_forward(values: Array, argmax: Array, spatial: Ints) -> Array:
    """y[n] = values[u] for the last u with argmax[u] = n, zero where there is none."""
    return _filled(values, _last_of_cells(argmax, spatial), spatial)


def unpool_fwd(values: Array, argmax: Array, spatial: Ints) -> tuple[Array, Unpooled]:
    """:: (values, argmax) -> (y, what stays)."""
    last, cell = _last_of_cells(argmax, spatial), _cells(argmax, spatial)
    stays = last.at[_at(cell)].get(mode="fill", fill_value=-1) == _numbers(cell)
    return _filled(values, last, spatial), Unpooled(argmax, stays.reshape(argmax.shape))


def unpool_bwd(spatial: Ints, kept: Unpooled, delta: Array) -> tuple[Array, None]:
    """:: (what stays, CT y) -> CT values: the delta of its cell to the value that the cell kept, none to the others."""
    flat = delta.reshape(delta.shape[0], math.prod(spatial), delta.shape[-1])
    read = flat.at[_at(_cells(kept.argmax, spatial))].get(mode="fill", fill_value=0)
    return jnp.where(kept.stays, read.reshape(kept.stays.shape), jnp.zeros((), delta.dtype)), None


def _filled(values: Array, last: Array, spatial: Ints) -> Array:
    return read_cells(values, last.reshape(last.shape[0], *spatial, last.shape[-1]))


def _last_of_cells(argmax: Array, spatial: Ints) -> Array:
    """`(batch, cells, channels)`: the number of the last value that goes to a cell, -1 where none does.

    A maximum comes out the same in whatever order a device writes; values would not.
    """
    cell = _cells(argmax, spatial)
    nobody = jnp.full((cell.shape[0], math.prod(spatial), cell.shape[-1]), -1, jnp.int32)
    return nobody.at[_at(cell)].max(_numbers(cell), mode="drop")


def _cells(argmax: Array, spatial: Ints) -> Array:
    """`(batch, values, channels)`: where each value goes; nowhere is beyond the last cell."""
    laid = argmax.reshape(argmax.shape[0], math.prod(argmax.shape[1:-1]), argmax.shape[-1])
    laid = laid if laid.dtype.itemsize > 4 else cast(laid, jnp.int32)  # a byte does not hold what is beyond
    return jnp.where(laid < 0, math.prod(spatial), laid)


def _numbers(cell: Array) -> Array:
    return lax.broadcasted_iota(jnp.int32, cell.shape, 1)


def _at(cell: Array) -> tuple[Array, Array, Array]:
    """`cell` as an index into `(batch, cells, channels)`."""
    batch, _, channels = cell.shape
    return jnp.arange(batch)[:, None, None], cell, jnp.arange(channels)


_unpool.defvjp(unpool_fwd, unpool_bwd)


@one_dispatch(2)
def _unpool_op(values: Array, argmax: Array, spatial: Ints) -> Array:
    if values.size == 0 or 0 in spatial:
        return jnp.zeros((values.shape[0], *spatial, values.shape[-1]), values.dtype)
    return _unpool(values, argmax, spatial)


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
      `(*batch, *spatial_shape, channels)`. Of values with the same cell the last in row-major order stays, and it
      alone has a gradient.

    Raises:
      TypeError, ValueError: with the argument and its value.

    Example:
      >>> import jax.numpy as jnp
      >>> max_unpool(jnp.array([3., 5.]).reshape(1, 2, 1), jnp.array([1, 2]).reshape(1, 2, 1), (4,)).ravel()
      Array([0., 3., 5., 0.], dtype=float32)

    Source: the document's `up` for max pooling; PyTorch's `max_unpool2d`.
    """
    values, argmax = as_array(values), as_array(argmax)
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
    unpooled = with_sharding_like(lambda values, argmax: _unpool_op(values, argmax, spatial), *merged)
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
      delta: `(*batch, *pooled, channels)`.
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
    delta = as_array(delta)
    rank = spatial_rank(window_shape, delta)
    if delta.ndim < rank + 1:
        raise ValueError(f"`delta` (shape={delta.shape}) must be (*batch, *pooled, channels) with {rank} pooled axes.")
    merged = merge_batch(delta, rank)
    blocks = window_of_blocks(merged.shape[1:-1], window_shape, strides)
    numbers = cast(merged, jnp.int32) if merged.dtype == jnp.bool_ else merged
    grown = with_sharding_like(lambda delta: copy_to_windows(delta, blocks), numbers)
    return split_batch(grown if numbers is merged else grown != 0, delta, rank)


def window_of_blocks(pooled: Ints, window_shape: Any, strides: Any) -> Window:
    """The window whose outputs are `pooled` values, each laid over one block."""
    size = per_axis(window_shape, len(pooled), "window_shape")
    stride = size if strides is None else per_axis(strides, len(pooled), "strides")
    spatial = tuple((o - 1) * s + k if o else 0 for o, s, k in zip(pooled, stride, size, strict=True))
    return window_of(spatial, size, stride=stride)
