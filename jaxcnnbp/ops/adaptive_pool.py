"""Adaptive pooling: the output's extents are given, the windows follow (PyTorch's rule).

Along one axis of `n` positions, output `u` of `m` covers

    floor(u n / m)  <=  position  <  ceil((u + 1) n / m)

so that windows differ in size by one and may share their last position. With A[u, i] = 1 / size(u) where u covers i:

    mean   y = A x                                  dx = A^T delta                        axis after axis
    max    y[u] = x[i*[u]], i* the first maximum    dx[i] = sum of delta[u] over the u that cover i with i*[u] = i
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxcnnbp.geometry import per_axis
from jaxcnnbp.geometry.window import Ints
from jaxcnnbp.hand_written import hand_written
from jaxcnnbp.modes import switchable
from jaxcnnbp.ops.devices import placed_alike
from jaxcnnbp.ops.layout import takes_layout
from jaxcnnbp.ops.numerics import cast, require_inexact, wide
from jaxcnnbp.ops.pool_front import merge_batch, require_ordered, spatial_rank, split_batch


def covered(extent: int, outputs: int) -> np.ndarray:
    """`(outputs, extent)` of bool: whether an output covers a position."""
    u, i = np.arange(outputs)[:, None], np.arange(extent)[None, :]
    return (u * extent // outputs <= i) & (i < -((u + 1) * extent // -outputs))


# --- mean -----------------------------------------------------------------------------------------------------------


@hand_written
@partial(jax.custom_vjp, nondiff_argnums=(1,))
def adaptive_mean(x: Array, outputs: Ints) -> Array:
    """`(batch, *spatial, channels)` -> `(batch, *outputs, channels)`."""
    return adaptive_mean_fwd(x, outputs)[0]


def adaptive_mean_fwd(x: Array, outputs: Ints) -> tuple[Array, Array]:
    """:: x -> (y, an empty array that remembers the extents of x)."""
    y = cast(x, wide(x.dtype))
    for axis, (extent, count) in enumerate(zip(x.shape[1:-1], outputs, strict=True), start=1):
        cover = covered(extent, count)
        y = _sums(y, cover, axis) / _sizes(cover, axis, y)
    return cast(y, x.dtype), jnp.zeros((0, *x.shape[1:-1]), x.dtype)


def adaptive_mean_bwd(outputs: Ints, like: Array, delta: Array) -> tuple[Array]:
    """:: CT y -> CT x, dx = A^T delta."""
    dx = cast(delta, wide(delta.dtype))
    for axis, (extent, count) in enumerate(zip(like.shape[1:], outputs, strict=True), start=1):
        cover = covered(extent, count)
        dx = _sums(dx / _sizes(cover, axis, dx), cover.T, axis)
    return (cast(dx, delta.dtype),)


def _sums(x: Array, cover: np.ndarray, axis: int) -> Array:
    """The sum of what each row of `cover` covers of `x` on `axis`; a product with 0 / 1 would spread infinities."""
    rows, extent = cover.shape
    shape = x.shape[:axis], x.shape[axis + 1 :]
    if cover.size == 0:
        return jnp.zeros((*shape[0], rows, *shape[1]), x.dtype)
    counts = cover.sum(1)
    if (counts == counts[0]).all() and counts.sum() == extent:
        return x.reshape(*shape[0], rows, counts[0], *shape[1]).sum(axis + 1)
    places = _ranked(cover)
    is_new = np.arange(places.shape[1])[None, :] < counts[:, None]
    mask = is_new.reshape(*is_new.shape, *(1,) * len(shape[1]))
    return jnp.where(mask, jnp.take(x, places, axis), jnp.zeros((), x.dtype)).sum(axis + 1)


def _sizes(cover: np.ndarray, axis: int, like: Array) -> Array:
    sizes = np.maximum(cover.sum(1), 1)
    return jnp.asarray(sizes.reshape([-1 if a == axis else 1 for a in range(like.ndim)]), like.dtype)


adaptive_mean.defvjp(adaptive_mean_fwd, adaptive_mean_bwd)
adaptive_mean_op = jax.jit(adaptive_mean, static_argnums=1, inline=True)


# --- max ------------------------------------------------------------------------------------------------------------


@hand_written
@partial(jax.custom_vjp, nondiff_argnums=(1,))
def adaptive_max(x: Array, outputs: Ints) -> tuple[Array, Array]:
    """`(batch, *spatial, channels)` -> values and flat positions of the maxima, `(batch, *outputs, channels)`."""
    return adaptive_max_forward(x, outputs)


def adaptive_max_forward(x: Array, outputs: Ints) -> tuple[Array, Array]:
    """The first maximum of every window (of NaNs the last), axis after axis, the last first."""
    spatial = x.shape[1:-1]
    flat = np.arange(prod(spatial), dtype=np.int32).reshape(1, *spatial, 1)
    best, where = x, jnp.broadcast_to(jnp.asarray(flat), x.shape)
    for axis in reversed(range(len(spatial))):
        best, where = _fold(best, where, covered(spatial[axis], outputs[axis]), axis + 1)
    return best, where


def adaptive_max_fwd(x: Array, outputs: Ints) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """:: x -> ((y, i*), (i*, an empty array that remembers the extents of x))."""
    best, where = adaptive_max_forward(x, outputs)
    return (best, where), (where, jnp.zeros((0, *x.shape[1:-1]), x.dtype))


def adaptive_max_bwd(outputs: Ints, kept: tuple[Array, Array], delta: tuple[Array, Array]) -> tuple[Array]:
    """:: (i*, CT y) -> CT x: every cell asks the outputs that cover it, so nothing is written twice."""
    (where, like), dy = kept, delta[0]
    spatial = like.shape[1:]
    here = jnp.asarray(np.arange(prod(spatial), dtype=np.int32).reshape(1, *spatial, 1))
    columns = [_ranked(covered(n, m).T) for n, m in zip(spatial, outputs, strict=True)]
    total = jnp.zeros((dy.shape[0], *spatial, dy.shape[-1]), wide(dy.dtype))
    for ranks in itertools.product(*(range(c.shape[1]) for c in columns)):
        indices = [column[:, rank] for column, rank in zip(columns, ranks, strict=True)]
        reached, sent = _take(where, indices), _take(dy, indices)
        is_first_ask = _outer([_is_new(column, rank) for column, rank in zip(columns, ranks, strict=True)])
        total = total + jnp.where((reached == here) & is_first_ask, cast(sent, total.dtype), 0)
    return (cast(total, dy.dtype),)


def _fold(x: Array, where: Array, cover: np.ndarray, axis: int) -> tuple[Array, Array]:
    best = who = None
    for index in _ranked(cover).T:
        p, here = jnp.take(x, index, axis), jnp.take(where, index, axis)
        if best is None or who is None:
            best, who = p, here
            continue
        wins = (p > best) | (p != p)
        best, who = jnp.where(wins, p, best), jnp.where(wins, here, who)
    if best is None or who is None:
        return jnp.take(x, np.zeros(0, np.int32), axis), jnp.take(where, np.zeros(0, np.int32), axis)
    return best, who


def _ranked(cover: np.ndarray) -> np.ndarray:
    """`(rows, most)`: what each row covers, in order; shorter rows repeat their last."""
    most = int(cover.sum(1).max(initial=0))
    first, count = cover.argmax(1), cover.sum(1)
    return first[:, None] + np.minimum(np.arange(most)[None, :], count[:, None] - 1)


def _is_new(column: np.ndarray, rank: int) -> np.ndarray:
    """Where a row of `_ranked` does not repeat its last."""
    return np.ones(len(column), bool) if rank == 0 else column[:, rank] > column[:, rank - 1]


def _take(x: Array, indices: Sequence[np.ndarray]) -> Array:
    for axis, index in enumerate(indices, start=1):
        x = jnp.take(x, index, axis)
    return x


def _outer(masks: Sequence[np.ndarray]) -> Array:
    """`(1, *spatial, 1)` of bool."""
    both = np.ones((), bool)
    for mask in masks:
        both = np.logical_and.outer(both, mask)
    return jnp.asarray(both[None, ..., None])


adaptive_max.defvjp(adaptive_max_fwd, adaptive_max_bwd)
adaptive_max_op = jax.jit(adaptive_max, static_argnums=1, inline=True)


# --- by name --------------------------------------------------------------------------------------------------------

OutputShape = int | Sequence[int | None]


@takes_layout("inputs", window="output_shape")
@switchable
def adaptive_avg_pool(inputs: ArrayLike, output_shape: OutputShape, *, layout: str = "channels_last") -> Array:
    """Mean pooling to a given size, as PyTorch's `adaptive_avg_pool2d` but channels last.

    Args:
      inputs: `(*batch, *spatial, channels)`, floats.
      output_shape: extents of the output, None to keep that of the input; its length says how many spatial axes
        there are, and an int is for all those of `(batch, *spatial, channels)`.
      layout: as `max_pool`.

    Returns:
      `(*batch, *output_shape, channels)` in the dtype of `inputs`, summed in float32 or wider.

    Raises:
      TypeError, ValueError: with the argument and its value.

    Example:
      >>> import jax.numpy as jnp
      >>> adaptive_avg_pool(jnp.array([1., 2., 3.]).reshape(1, 3, 1), (2,)).ravel()
      Array([1.5, 2.5], dtype=float32)

    Source: `ops.adaptive_pool`.
    """
    x, outputs = _parse(inputs, output_shape)
    require_inexact(x, "inputs")
    return split_batch(placed_alike(lambda x: adaptive_mean_op(x, outputs), x), inputs, len(outputs))


@takes_layout("inputs", window="output_shape")
@switchable
def adaptive_max_pool(
    inputs: ArrayLike, output_shape: OutputShape, return_argmax: bool = False, *, layout: str = "channels_last"
) -> Any:
    """Max pooling to a given size, as PyTorch's `adaptive_max_pool2d` but channels last; delta goes to the winner.

    Args:
      inputs: `(*batch, *spatial, channels)`, real numbers.
      output_shape: as `adaptive_avg_pool`.
      return_argmax: whether to give the winners' positions too.
      layout: as `max_pool`.

    Returns:
      `(*batch, *output_shape, channels)` in the dtype of `inputs`; with `return_argmax` also int32 indices of that
      shape, the flat position among the spatial axes of one image and channel.

    Raises:
      TypeError, ValueError: with the argument and its value.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> x = jnp.array([1., 3., 2.]).reshape(1, 3, 1)
      >>> jax.grad(lambda x: adaptive_max_pool(x, (2,)).sum())(x).ravel()
      Array([0., 2., 0.], dtype=float32)

    Source: `ops.adaptive_pool`.
    """
    x, outputs = _parse(inputs, output_shape)
    require_ordered(x)
    both = placed_alike(lambda x: adaptive_max_op(x, outputs), x)
    values, argmax = (split_batch(a, inputs, len(outputs)) for a in both)
    return (values, argmax) if return_argmax else values


def _parse(inputs: ArrayLike, output_shape: OutputShape) -> tuple[Array, Ints]:
    x = jnp.asarray(inputs)
    if output_shape is None:
        raise TypeError("`output_shape` (=None) must be an int, or one int or None a spatial axis.")
    each = np.iterable(output_shape)
    wanted = tuple(output_shape) if each else (output_shape,) * spatial_rank(output_shape, x)
    if x.ndim < len(wanted) + 1:
        raise ValueError(
            f"`inputs` (shape={x.shape}) must be (*batch, *spatial, channels) with {len(wanted)} spatial axes, as many"
            f" as `output_shape` (={output_shape!r}) has."
        )
    merged = merge_batch(x, len(wanted))
    spatial = merged.shape[1:-1]
    whole = tuple(n if m is None else m for n, m in zip(spatial, wanted, strict=True))
    outputs = per_axis(whole, len(wanted), "output_shape", minimum=0)
    if 0 in spatial and prod(outputs):
        raise ValueError(
            f"`inputs` (shape={x.shape}) has no position to pool, but `output_shape` (={output_shape!r}) asks for"
            " outputs; give 0 on an axis without positions."
        )
    return merged, outputs
