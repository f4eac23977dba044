"""Adaptive pooling: the output's extents are given, the windows follow (PyTorch's rule).

Along one axis of `n` positions, output `u` of `m` covers

    floor(u n / m)  <=  position  <  ceil((u + 1) n / m)

so that windows differ in size by one and may share their last position. With A[u, i] = 1 / size(u) where u covers i:

    mean   y = A x                                  dx = A^T delta                        axis after axis
    max    y[u] = x[i*[u]], i* the first maximum    dx[i] = sum of delta[u] over the u that cover i with i*[u] = i
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.export import is_symbolic_dim
from jax.typing import ArrayLike

from jaxcnnbp.geometry import per_axis
from jaxcnnbp.geometry.window import Ints
from jaxcnnbp.hand_written import hand_written
from jaxcnnbp.modes import switchable
from jaxcnnbp.ops import symbolic
from jaxcnnbp.ops._dtypes import as_array, cast, wide
from jaxcnnbp.ops._sharding import with_sharding_like
from jaxcnnbp.ops._xla_cpu import in_memory
from jaxcnnbp.ops.layout import takes_layout
from jaxcnnbp.ops.pool.cells import read_cells
from jaxcnnbp.ops.pool.parse import merge_batch, require_ordered, spatial_rank, split_batch, with_mean
from jaxcnnbp.ops.pool.window_max import with_places


class Cover(NamedTuple):
    """Which positions of one axis each output covers."""

    first: np.ndarray  # (outputs,)
    count: np.ndarray  # (outputs,)

    @property
    def even(self) -> bool:
        """Whether windows of one size lie side by side."""
        return bool(
            (self.count == self.count[:1]).all() and (self.first[1:] == self.first[:-1] + self.count[:-1]).all()
        )

    @property
    def positions(self) -> np.ndarray:
        """`(outputs, most)`: what each output covers, in order; shorter rows repeat their last."""
        steps = np.arange(self.count.max(initial=0))
        return self.first[:, None] + np.minimum(steps[None, :], self.count[:, None] - 1)

    @property
    def is_new(self) -> np.ndarray:
        """Where a row of `positions` does not repeat its last."""
        return np.arange(self.count.max(initial=0))[None, :] < self.count[:, None]

    def windows(self, x: Array, axis: int) -> Array:
        """`x` with `(outputs, most)` in the place of `axis`; every form serves axes of any length."""
        if self.even:
            return x.reshape(*x.shape[:axis], len(self.first), -1, *x.shape[axis + 1 :])
        if len(self.first) % x.shape[axis] == 0 and (self.count == 1).all():  # each position over as many outputs
            return jnp.expand_dims(jnp.repeat(x, len(self.first) // x.shape[axis], axis), axis + 1)
        return jnp.take(x, self.positions, axis)


def cover(extent: int, outputs: int) -> Cover:
    """PyTorch's rule. Which outputs cover a position is the same with the two exchanged: `cover(outputs, extent)`."""
    u = np.arange(outputs)
    first, stop = u * extent // max(outputs, 1), -((u + 1) * extent // -max(outputs, 1))
    return Cover(first, stop - first)


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
        windows = cover(extent, count)
        y = _sums(y, windows, axis) / _sizes(windows, axis, y)
    return cast(y, x.dtype), jnp.zeros((0, *x.shape[1:-1]), x.dtype)


def adaptive_mean_bwd(outputs: Ints, like: Array, delta: Array) -> tuple[Array]:
    """:: CT y -> CT x, dx = A^T delta."""
    dx = cast(delta, wide(delta.dtype))
    for axis, (extent, count) in enumerate(zip(like.shape[1:], outputs, strict=True), start=1):
        dx = _sums(dx / _sizes(cover(extent, count), axis, dx), cover(count, extent), axis)
    return (cast(dx, delta.dtype),)


def _sums(x: Array, windows: Cover, axis: int) -> Array:
    """The sum of what each window covers of `x` on `axis`; a product with 0 / 1 would spread infinities."""
    if x.size == 0 or len(windows.first) == 0:
        return jnp.zeros((*x.shape[:axis], len(windows.first), *x.shape[axis + 1 :]), x.dtype)
    taken = windows.windows(x, axis)
    if not windows.even:
        is_new = windows.is_new.reshape(*windows.is_new.shape, *(1,) * (x.ndim - axis - 1))
        taken = jnp.where(is_new, taken, jnp.zeros((), x.dtype))
    return taken.sum(axis + 1)


def _sizes(windows: Cover, axis: int, like: Array) -> Array:
    sizes = np.maximum(windows.count, 1)
    return jnp.asarray(sizes.reshape([-1 if a == axis else 1 for a in range(like.ndim)]), like.dtype)


adaptive_mean.defvjp(adaptive_mean_fwd, adaptive_mean_bwd)


# --- max ------------------------------------------------------------------------------------------------------------


@hand_written
@partial(jax.custom_vjp, nondiff_argnums=(1,))
def adaptive_max(x: Array, outputs: Ints) -> tuple[Array, Array]:
    """`(batch, *spatial, channels)` -> values and flat positions of the maxima, `(batch, *outputs, channels)`."""
    return adaptive_max_forward(x, outputs)


def adaptive_max_forward(x: Array, outputs: Ints) -> tuple[Array, Array]:
    """The first maximum of every window (of NaNs the last), axis after axis; its derivative is read at the winners."""
    spatial = x.shape[1:-1]
    if x.size == 0 or 0 in outputs:
        shape = (x.shape[0], *outputs, x.shape[-1])
        return jnp.zeros(shape, x.dtype), jnp.zeros(shape, jnp.int32)
    best, where = in_memory(x), _places(spatial)
    for axis in reversed(range(len(spatial))):
        windows = cover(spatial[axis], outputs[axis])
        laid = tuple(windows.windows(a, axis + 1) for a in (best, where))
        best, where = with_places("max").whole_axis(laid, axis + 2)
    where = jnp.broadcast_to(where, best.shape)
    return _read_from(x, best, where), where


@jax.custom_jvp
def _read_from(x: Array, best: Array, where: Array) -> Array:
    """`best`, which is `read_cells(x, where)`."""
    return best


@_read_from.defjvp
def _read_from_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    return _read_from(*primals), read_cells(tangents[0], primals[2])


def adaptive_max_fwd(x: Array, outputs: Ints) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """:: x -> ((y, i*), (i*, an empty array that remembers the extents of x))."""
    best, where = adaptive_max_forward(x, outputs)
    return (best, where), (where, jnp.zeros((0, *x.shape[1:-1]), x.dtype))


def adaptive_max_bwd(outputs: Ints, kept: tuple[Array, Array], delta: tuple[Array, Array]) -> tuple[Array]:
    """:: (i*, CT y) -> CT x: every cell asks the outputs that cover it, so nothing is written twice."""
    (where, like), dy = kept, delta[0]
    spatial = like.shape[1:]
    if dy.size == 0:
        return (jnp.zeros((dy.shape[0], *spatial, dy.shape[-1]), dy.dtype),)
    here, asked = _places(spatial), np.ones((), bool)
    sent = cast(dy, wide(dy.dtype))
    for axis in reversed(range(len(spatial))):
        outputs_there = cover(outputs[axis], spatial[axis])
        where, sent = (outputs_there.windows(a, axis + 1) for a in (where, sent))
        here = jnp.expand_dims(here, axis + 2)
        asked = np.multiply.outer(outputs_there.is_new, asked)
    won = (where == here) & jnp.asarray(asked[None, ..., None])
    dx = jnp.where(won, sent, jnp.zeros((), sent.dtype)).sum(tuple(range(2, won.ndim - 1, 2)))
    return (cast(dx, dy.dtype),)


def _places(spatial: Ints) -> Array:
    """`(1, *spatial, 1)`: the flat position of every cell."""
    return jnp.arange(prod(spatial), dtype=jnp.int32).reshape(1, *spatial, 1)


adaptive_max.defvjp(adaptive_max_fwd, adaptive_max_bwd)


# --- by name --------------------------------------------------------------------------------------------------------

OutputShape = int | Sequence[int | None]


@takes_layout("inputs", window="output_shape")
@switchable
def adaptive_avg_pool(inputs: ArrayLike, output_shape: OutputShape, *, layout: str = "channels_last") -> Array:
    """Mean pooling to a given size, as PyTorch's `adaptive_avg_pool2d` but channels last.

    Args:
      inputs: `(*batch, *spatial, channels)`.
      output_shape: extents of the output, None to keep that of the input; its length says how many spatial axes
        there are, and an int is for all those of `(batch, *spatial, channels)`.
      layout: as `max_pool`.

    Returns:
      `(*batch, *output_shape, channels)` in the dtype of `inputs`, of integers in JAX's default float; summed in
      float32 or wider.

    Raises:
      TypeError, ValueError: with the argument and its value.

    Example:
      >>> import jax.numpy as jnp
      >>> adaptive_avg_pool(jnp.array([1., 2., 3.]).reshape(1, 3, 1), (2,)).ravel()
      Array([1.5, 2.5], dtype=float32)

    Source: `ops.pool.adaptive`.
    """
    x, outputs = parse_adaptive(inputs, output_shape)
    x = with_mean(x)
    rule = symbolic.adaptive_mean if symbolic.has_symbols(x) else adaptive_mean
    return split_batch(with_sharding_like(lambda x: rule(x, outputs), x), inputs, len(outputs))


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

    Source: `ops.pool.adaptive`.
    """
    x, outputs = parse_adaptive(inputs, output_shape)
    require_ordered(x)
    if symbolic.has_symbols(x):
        symbolic.require_no_argmax(return_argmax)
        values = with_sharding_like(lambda x: symbolic.adaptive_max(x, outputs), x)
        return split_batch(values, inputs, len(outputs))
    both = with_sharding_like(lambda x: adaptive_max(x, outputs), x)
    values, argmax = (split_batch(a, inputs, len(outputs)) for a in both)
    return (values, argmax) if return_argmax else values


def parse_adaptive(inputs: ArrayLike, output_shape: OutputShape) -> tuple[Array, Ints]:
    """The inputs as `(batch, *spatial, channels)` and the extents of the output."""
    x = as_array(inputs)
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
    known = tuple(0 if is_symbolic_dim(m) else m for m in whole)
    numbers = per_axis(known, len(wanted), "output_shape", minimum=0)
    outputs: Ints = tuple(number or m for m, number in zip(whole, numbers, strict=True))  # 0 stands for a symbol
    symbolic.require_whole(spatial, outputs, output_shape)
    if 0 in spatial and prod(outputs):
        raise ValueError(
            f"`inputs` (shape={x.shape}) has no position to pool, but `output_shape` (={output_shape!r}) asks for"
            " outputs; give 0 on an axis without positions."
        )
    return merged, outputs
