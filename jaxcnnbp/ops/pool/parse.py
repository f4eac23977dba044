"""What the pools share: their parameters, parsed once, and the axes around the spatial ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxcnnbp._compat import with_weak_type
from jaxcnnbp.geometry import Padding, Window, window_of
from jaxcnnbp.geometry.parse import require_output
from jaxcnnbp.ops._dtypes import as_array, cast
from jaxcnnbp.ops._sharding import with_sharding_by

TIES = ("first", "all", "split")


def parse_pool(
    inputs: ArrayLike,
    window_shape: Any,
    strides: Any,
    padding: Padding,
    window_dilation: Any = None,
    ceil_mode: bool = False,
) -> tuple[Array, Window]:
    """The inputs as `(batch, *spatial, channels)`, all leading axes in one, and the window over them.

    As in `flax.linen`, `inputs` are `(*batch, *spatial, channels)` with as many spatial axes as `window_shape` has.
    """
    merged = with_one_batch_axis(as_array(inputs), window_shape)
    window = window_of(
        merged.shape[1:-1],
        window_shape,
        stride=1 if strides is None else strides,
        padding=padding,
        dilation=1 if window_dilation is None else window_dilation,
        ceil_mode=bool(ceil_mode),
        names={"stride": "strides", "dilation": "window_dilation"},
    )
    return merged, require_output(window, "window_shape")


def with_one_batch_axis(x: Array, window_shape: Any) -> Array:
    """`x` as `(batch, *spatial, channels)`, with as many spatial axes as `window_shape` says."""
    rank = spatial_rank(window_shape, x)
    if x.ndim < rank + 1:
        raise ValueError(
            f"`inputs` (shape={x.shape}) must be (*batch, *spatial, channels) with {rank} spatial axes, as many as"
            f" `window_shape` (={window_shape!r}) has."
        )
    return merge_batch(x, rank)


def spatial_rank(window_shape: Any, x: Array) -> int:
    """As many spatial axes as `window_shape` has entries; an int is for all axes of `(batch, *spatial, channels)`."""
    if isinstance(window_shape, Sequence):
        return len(window_shape)
    return max(x.ndim - 2, 1)


def merge_batch(x: Array, rank: int) -> Array:
    """`(*batch, *spatial, channels)` -> `(batch, *spatial, channels)`."""
    count = x.ndim - rank - 1
    if count == 1:
        return x
    shape = (math.prod(x.shape[:count]), *x.shape[count:])
    return with_sharding_by(lambda x: x.reshape(shape), lambda of_x: ((*of_x[:count], None)[0], *of_x[count:]), x)


def split_batch(y: Array, inputs: ArrayLike, rank: int) -> Array:
    """`(batch, *output, channels)` with the batch axes that `inputs` had, and as weak a type."""
    x = as_array(inputs)
    y = with_weak_type(y, jax.typeof(x)) if y.dtype == x.dtype else y
    count = x.ndim - rank - 1
    if count == 1:
        return y
    shape = (*x.shape[:count], *y.shape[1:])
    return with_sharding_by(lambda y, _: y.reshape(shape), lambda of_y, of_x: (*of_x[:count], *of_y[1:]), y, x)


def check_ties(ties: str) -> None:
    """Refuses a tie rule that does not exist."""
    if ties not in TIES:
        raise ValueError(f"`ties` (={ties!r}) is unknown; use one of {', '.join(map(repr, TIES))}.")


def with_mean(x: Array) -> Array:
    """`x`, integers and bools as JAX's default float: a mean of them is no integer, and their sum may not fit."""
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else cast(x, jnp.result_type(float))


def require_ordered(x: Array) -> None:
    """Refuses what has no maximum."""
    if not any(jnp.issubdtype(x.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        raise TypeError(f"`inputs` (dtype={x.dtype}) must be real numbers to have a maximum; take jnp.abs(x), or cast.")
