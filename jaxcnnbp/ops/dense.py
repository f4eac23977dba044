"""The dense layer y = x W + b: the delta goes back through the transposed weights."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxcnnbp.hand_written import hand_written
from jaxcnnbp.modes import switchable
from jaxcnnbp.ops._dtypes import as_array, cast, on_channels, require_same_dtype, wide
from jaxcnnbp.ops._sharding import with_sharding_by, with_sharding_like
from jaxcnnbp.ops.layout import takes_layout


class DenseResiduals(NamedTuple):
    """What the backward pass needs."""

    x: Array  # for dW
    weights: Array  # for dx


@hand_written
@jax.custom_vjp
def _dense(x: Array, weights: Array) -> Array:
    return dense_forward(x, weights)


def dense_forward(x: Array, weights: Array) -> Array:
    """y = x W."""
    return _product(x, weights, ((x.ndim - 1,), (0,)))


def dense_input_grad(delta: Array, weights: Array) -> Array:
    """dx = delta W^T."""
    return _product(delta, weights, ((delta.ndim - 1,), (1,)))


def dense_weight_grad(x: Array, delta: Array) -> Array:
    """dW = x^T delta, summed over every leading axis."""
    rows = tuple(range(x.ndim - 1))
    return _product(x, delta, (rows, rows))


def sum_to_channels(delta: Array) -> Array:
    """db = sum of delta over all axes but the last, held wide."""
    summed = jnp.sum(delta, tuple(range(delta.ndim - 1)), dtype=wide(delta.dtype))
    return cast(summed, delta.dtype)


def dense_fwd(x: Array, weights: Array) -> tuple[Array, DenseResiduals]:
    """:: (x, W) -> (y, residuals)."""
    return dense_forward(x, weights), DenseResiduals(x, weights)


def dense_bwd(kept: DenseResiduals, delta: Array) -> tuple[Array, Array]:
    """:: (residuals, CT y) -> (CT x, CT W); the one that nobody asked for is dead code to the compiler."""
    return dense_input_grad(delta, kept.weights), dense_weight_grad(kept.x, delta)


_dense.defvjp(dense_fwd, dense_bwd, shared=("weights",))


@switchable
def dense(x: ArrayLike, weights: ArrayLike, bias: ArrayLike | None = None) -> Array:
    """The dense layer y = x W + b.

    Args:
      x: `(..., in)`.
      weights: `(in, out)`, of the dtype of `x`.
      bias: `(out,)`, of the dtype of `x`.

    Returns:
      `(..., out)` in the dtype of `x`.

    Raises:
      TypeError: if the dtypes differ.
      ValueError: if the shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> dense(jnp.array([[1., 2.]]), jnp.array([[1., 0.], [0., 3.]]), jnp.array([0., 1.]))
      Array([[1., 7.]], dtype=float32)

    Source: Bouvrie (2006), section 2: delta_l = W^T delta_{l+1} o f'(u).
    """
    x, weights = as_array(x), as_array(weights)
    require_same_dtype(weights, "weights", x, "x")
    if x.ndim < 1 or weights.ndim != 2 or x.shape[-1] != weights.shape[0]:
        raise ValueError(
            f"`weights` (shape={weights.shape}) must be (in, out) with in the last axis of `x` (shape={x.shape})."
        )
    y = with_sharding_by(_dense, lambda of_x, of_weights: (*of_x[:-1], of_weights[-1]), x, weights)
    return y if bias is None else add_bias(y, as_array(bias))


@hand_written
@jax.custom_vjp
def _add_bias(y: Array, bias: Array) -> Array:
    return add_bias_fwd(y, bias)[0]


def add_bias_fwd(y: Array, bias: Array) -> tuple[Array, None]:
    """:: (y, b) -> (y + b, nothing to keep)."""
    return y + on_channels(bias, y), None


def add_bias_bwd(_: None, delta: Array) -> tuple[Array, Array]:
    """:: CT -> (CT y, CT b): delta, and its sum over batch and positions."""
    return delta, sum_to_channels(delta)


_add_bias.defvjp(add_bias_fwd, add_bias_bwd, shared=())


@takes_layout("y")
@switchable
def add_bias(y: ArrayLike, bias: ArrayLike, *, layout: str = "channels_last") -> Array:
    """y + b, one bias a channel: db = sum of delta over batch and positions.

    Args:
      y: `(..., channels)`.
      bias: `(channels,)`, of the dtype of `y`.
      layout: as `max_pool`; `"channels_first"` is `(batch, channels, ...)`.

    Returns:
      `(..., channels)`.

    Raises:
      TypeError: if the dtypes differ.
      ValueError: if the shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> add_bias(jnp.zeros((1, 2)), jnp.array([1., 2.]))
      Array([[1., 2.]], dtype=float32)

    Source: Bouvrie (2006), section 3.1.
    """
    y, bias = as_array(y), as_array(bias)
    require_same_dtype(bias, "bias", y, "y")
    if bias.shape != y.shape[-1:]:
        raise ValueError(f"`bias` (shape={bias.shape}) must be (channels,), here {y.shape[-1:]}.")
    return with_sharding_like(_add_bias, y, bias)


def _product(a: Array, b: Array, contracted: tuple[tuple[int, ...], tuple[int, ...]]) -> Array:
    return cast(lax.dot_general(a, b, (contracted, ((), ())), preferred_element_type=wide(a.dtype)), a.dtype)
