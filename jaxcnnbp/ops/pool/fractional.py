"""Fractional max pooling: windows of one size, where a random number a map and axis lays them (PyTorch's rule).

Along one axis of n positions, with m outputs, windows of k taps and the sample r in 0 .. 1,

    alpha        = (n - k) / (m - 1)
    s[u]         = floor((u + r) alpha) - floor(r alpha),  but  s[m - 1] = n - k

    forward      y[u]  = max_t x[s[u] + t]             and the winner i*[u] = s[u] + t*, the first cell that reaches it
    input grad   dx[i] = sum of delta[u] over all u with i*[u] = i

On several axes the windows are products of theirs; each image and channel has samples of its own. A NaN wins.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxcnnbp.geometry import per_axis
from jaxcnnbp.geometry.window import Ints
from jaxcnnbp.hand_written import hand_written, one_dispatch
from jaxcnnbp.modes import switchable
from jaxcnnbp.ops._dtypes import as_array, cast, wide
from jaxcnnbp.ops._sharding import with_sharding_like
from jaxcnnbp.ops.layout import takes_layout
from jaxcnnbp.ops.pool.cells import add_to_cells, first_largest, read_cells
from jaxcnnbp.ops.pool.parse import require_ordered, split_batch, with_one_batch_axis

Kept = tuple[Array, Array]  # the recorded cells, and an empty array that remembers the extents of x


def window_starts(samples: Array, spatial: Ints, size: Ints, outputs: Ints) -> tuple[Array, ...]:
    """s[u] of every axis, `(batch, channels, outputs)`, from samples `(batch, channels, axes)`."""
    r = cast(samples, wide(samples.dtype))
    # In two dimensions PyTorch's first sample is that of the columns.
    columns = (1, 0) if len(spatial) == 2 else range(len(spatial))
    rows = zip(spatial, size, outputs, columns, strict=True)
    return tuple(_starts(r[..., column, None], n, k, m) for n, k, m, column in rows)


def _starts(r: Array, n: int, k: int, m: int) -> Array:
    alpha = jnp.asarray((n - k) / max(m - 1, 1), r.dtype)
    u = jnp.arange(m, dtype=r.dtype).reshape(1, 1, m)
    begins = jnp.floor((u + r) * alpha) - jnp.floor(r * alpha)
    is_last = (np.arange(m) == m - 1).reshape(1, 1, m)
    return jnp.where(is_last, np.int32(n - k), begins.astype(jnp.int32))


def window_cells(starts: Sequence[Array], size: Ints, spatial: Ints) -> Array:
    """The cell that every tap reads, `(batch, outputs, taps, channels)`, both row-major."""
    rank = len(size)
    cell, weight = jnp.zeros((), jnp.int32), 1
    for axis in reversed(range(rank)):
        along = starts[axis][..., None] + np.arange(size[axis], dtype=np.int32).reshape(1, 1, 1, -1)
        where = [n for a in range(rank) for n in (along.shape[2:] if a == axis else (1, 1))]
        cell = cell + along.reshape(*along.shape[:2], *where) * np.int32(weight)
        weight *= spatial[axis]
    batch, channels, *laid = cell.shape
    order = (0, *range(2, 2 + 2 * rank, 2), *range(3, 3 + 2 * rank, 2), 1)
    return cell.transpose(order).reshape(batch, prod(laid[::2]), prod(laid[1::2]), channels)


@hand_written
@partial(jax.custom_vjp, nondiff_argnums=(2,))
def fractional_max(x: Array, starts: tuple[Array, ...], size: Ints) -> tuple[Array, Array]:
    """`(batch, *spatial, channels)` -> the maxima and their cells, `(batch, *output, channels)`."""
    return fractional_max_forward(x, starts, size)


@jax.named_scope("fractional_max.forward")
def fractional_max_forward(x: Array, starts: tuple[Array, ...], size: Ints) -> tuple[Array, Array]:
    """y[u] = max_t x[s[u] + t], and the cell where it was found."""
    cells = window_cells(starts, size, x.shape[1:-1])
    winner = jnp.take_along_axis(cells, first_largest(read_cells(x, cells), 2), 2)
    winner = winner.reshape(x.shape[0], *(s.shape[-1] for s in starts), x.shape[-1])
    return read_cells(x, winner), winner


def fractional_max_fwd(x: Array, starts: tuple[Array, ...], size: Ints) -> tuple[tuple[Array, Array], Kept]:
    """:: (x, s) -> ((y, i*), (i*, an empty array that remembers the extents of x))."""
    y, winner = fractional_max_forward(x, starts, size)
    return (y, winner), (winner, jnp.zeros((0, *x.shape[1:-1]), x.dtype))


def fractional_max_bwd(size: Ints, kept: Kept, delta: tuple[Array, Array]) -> tuple[Array, None]:
    """:: (i*, CT y) -> CT x, dx[i] = sum of delta[u] over all u with i*[u] = i."""
    del size
    winner, like = kept
    return add_to_cells(delta[0], winner, like.shape[1:]), None


fractional_max.defvjp(fractional_max_fwd, fractional_max_bwd)


@one_dispatch(2, 3)
def fractional_max_op(x: Array, samples: Array, size: Ints, outputs: Ints) -> tuple[Array, Array]:
    """The maxima and their cells; what begins where is no number to differentiate by."""
    pooled: Any = fractional_max(x, window_starts(samples, x.shape[1:-1], size, outputs), size)
    return pooled


@takes_layout("inputs", window="window_shape")
@switchable
def fractional_max_pool(
    inputs: ArrayLike,
    window_shape: int | Sequence[int],
    output_shape: int | Sequence[int] | None = None,
    *,
    output_ratio: float | Sequence[float] | None = None,
    samples: ArrayLike | None = None,
    key: Array | None = None,
    return_argmax: bool = False,
    layout: str = "channels_last",
) -> Any:
    """Fractional max pooling, as PyTorch's `fractional_max_pool2d` but channels last; delta goes to the winner.

    Args:
      inputs: `(*batch, *spatial, channels)`, real numbers.
      window_shape: taps an axis; its length says how many spatial axes there are, and an int is for all those of
        `(batch, *spatial, channels)`.
      output_shape: extents of the output, an int or one an axis; `output + window - 1` must fit into the input.
      output_ratio: in its place, the output's extents over the input's, above 0 and at most 1.
      samples: `(*batch, channels, axes)` of floats in 0 .. 1, which lay the windows: PyTorch's `_random_samples`, in
        its order, which is (columns, rows) in two dimensions and that of the axes elsewhere. They have no gradient.
      key: in their place, a key of `jax.random`, from which uniform samples are drawn.
      return_argmax: whether to give the winners' positions too, as PyTorch's `return_indices`.
      layout: as `max_pool`.

    Returns:
      `(*batch, *output, channels)` in the dtype of `inputs`; with `return_argmax` also int32 indices of that shape,
      the flat position among the spatial axes of one image and channel.

    Raises:
      TypeError, ValueError: with the argument and its value.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> x, r = jnp.array([1., 5., 2., 4., 3.]).reshape(1, 5, 1), jnp.array([[[0.5]]])
      >>> fractional_max_pool(x, (2,), (3,), samples=r).ravel()
      Array([5., 4., 4.], dtype=float32)

    Source: Graham, *Fractional Max-Pooling* (2014); `ops.pool.fractional`.
    """
    x, size, outputs = parse_fractional(inputs, window_shape, output_shape, output_ratio)
    drawn = fractional_samples(x, np.shape(inputs), len(size), samples, key)
    both = with_sharding_like(lambda x, r: fractional_max_op(x, r, size, outputs), x, drawn)
    values, argmax = (split_batch(a, inputs, len(size)) for a in both)
    return (values, argmax) if return_argmax else values


def parse_fractional(
    inputs: ArrayLike, window_shape: Any, output_shape: Any, output_ratio: Any
) -> tuple[Array, Ints, Ints]:
    """The inputs with one batch axis, the window and the output's extents."""
    x = as_array(inputs)
    require_ordered(x)
    merged = with_one_batch_axis(x, window_shape)
    size = per_axis(window_shape, merged.ndim - 2, "window_shape")
    outputs = _outputs(merged.shape[1:-1], output_shape, output_ratio)
    for axis, (n, k, m) in enumerate(zip(merged.shape[1:-1], size, outputs, strict=True)):
        if m + k - 1 > n:
            raise ValueError(
                f"`window_shape` (={window_shape!r}) with {m} outputs needs {m + k - 1} positions on spatial axis"
                f" {axis}, where `inputs` (shape={x.shape}) has {n}; use a smaller window, or fewer outputs."
            )
    return merged, size, outputs


def _outputs(spatial: Ints, output_shape: Any, output_ratio: Any) -> Ints:
    rank = len(spatial)
    if (output_shape is None) == (output_ratio is None):
        raise ValueError(
            f"`output_shape` (={output_shape!r}) or `output_ratio` (={output_ratio!r}) must be given, and not both."
        )
    if output_ratio is None:
        return per_axis(output_shape, rank, "output_shape", minimum=0)
    ratios = tuple(output_ratio) if np.iterable(output_ratio) else (output_ratio,) * rank
    if len(ratios) != rank or not all(isinstance(r, int | float | np.number) and 0 < r <= 1 for r in ratios):
        raise ValueError(
            f"`output_ratio` (={output_ratio!r}) must be a number above 0 and at most 1, or {rank} of them, one a"
            " spatial axis."
        )
    return tuple(operator.index(int(n * r)) for n, r in zip(spatial, ratios, strict=True))


def fractional_samples(x: Array, shape: Ints, rank: int, samples: ArrayLike | None, key: Array | None) -> Array:
    """The samples that were given, or drawn from `key`, as `(batch, channels, axes)`; `shape` is that of the inputs."""
    wanted = (*shape[: len(shape) - rank - 1], shape[-1], rank)
    return given_or_drawn(x, wanted, samples, key).reshape(x.shape[0], x.shape[-1], rank)


def given_or_drawn(x: Array, shape: Ints, samples: ArrayLike | None, key: Array | None) -> Array:
    """`samples`, checked, or uniform ones of `shape` from `key`."""
    if (samples is None) == (key is None):
        both = "None" if key is None else "given too"
        raise ValueError(f"`samples` or `key` (={both}) must be given, and not both: a pool by chance needs numbers.")
    if key is not None:
        _require_key(key)
        floating = jnp.issubdtype(x.dtype, jnp.floating)
        return jax.random.uniform(key, shape, wide(x.dtype) if floating else jnp.float32)
    array = jnp.asarray(samples)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"`samples` (dtype={array.dtype}) must be floats in 0 .. 1.")
    if array.shape != shape:
        raise ValueError(f"`samples` (shape={array.shape}) must be of shape {shape} for these `inputs`.")
    if not isinstance(array, Tracer) and array.is_fully_addressable:
        numbers = np.asarray(array, np.float64)
        outside = numbers[~((numbers >= 0) & (numbers <= 1))]
        if outside.size:
            raise ValueError(f"`samples` (one is {outside[0]}) must be in 0 .. 1, as `jax.random.uniform` draws them.")
    return array


def _require_key(key: Any) -> None:
    dtype = key.dtype if isinstance(key, Array | np.ndarray) else np.dtype(object)
    if not (jnp.issubdtype(dtype, jax.dtypes.prng_key) or (dtype == np.uint32 and key.ndim == 1)):
        raise TypeError(f"`key` (={key!r}) must be one key of `jax.random`; `jax.random.key(0)` makes one.")
