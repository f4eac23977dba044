"""Losses and their deltas."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxcnnbp.hand_written import hand_written
from jaxcnnbp.ops._dtypes import as_array, cast, wide
from jaxcnnbp.ops._sharding import with_sharding_by


@hand_written
@jax.custom_vjp
def _squared(outputs: Array, targets: Array) -> Array:
    return squared_fwd(outputs, targets)[0]


def squared_fwd(outputs: Array, targets: Array) -> tuple[Array, Array]:
    """:: (y, t) -> (E, y - t)."""
    error = outputs - targets
    total = jnp.sum(jnp.square(cast(error, wide(error.dtype))))
    return cast(total / (2 * _batch(outputs)), outputs.dtype), error


def squared_bwd(error: Array, delta: Array) -> tuple[Array, Array]:
    """:: (y - t, CT E) -> (CT y, CT t): delta = (y - t) / batch."""
    to_outputs = delta * error / jnp.asarray(_batch(error), error.dtype)
    return to_outputs, -to_outputs


_squared.defvjp(squared_fwd, squared_bwd)


def squared_error(outputs: Array, targets: Array) -> Array:
    """The document's error, E = 1/2 sum_k (t_k - y_k)^2, averaged over the batch.

    Args:
      outputs: `(batch, classes)`, any floats.
      targets: `(batch, classes)` one-hot, or `(batch,)` class numbers.

    Returns:
      A scalar in the dtype of `outputs`; 0 for an empty batch.

    Raises:
      ValueError: if the shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> squared_error(jnp.array([[1., 0.]]), jnp.array([1]))
      Array(1., dtype=float32)

    Source: Bouvrie (2006), section 2: the last delta is f'(u) o (y - t).
    """
    outputs = as_array(outputs)
    return _with_sharding(_squared, outputs, one_hot_like(outputs, targets))


@hand_written
@jax.custom_vjp
def _cross_entropy(outputs: Array, targets: Array) -> Array:
    return cross_entropy_fwd(outputs, targets)[0]


def cross_entropy_fwd(outputs: Array, targets: Array) -> tuple[Array, tuple[Array, Array]]:
    """:: (y, t) -> (E, (log softmax y, t))."""
    log_probability = jax.nn.log_softmax(cast(outputs, wide(outputs.dtype)), axis=-1)
    total = -jnp.sum(cast(targets, log_probability.dtype) * log_probability)
    return cast(total / _batch(outputs), outputs.dtype), (log_probability, targets)


def cross_entropy_bwd(kept: tuple[Array, Array], delta: Array) -> tuple[Array, Array]:
    """:: (kept, CT E) -> (CT y, CT t): delta = (softmax(y) sum(t) - t) / batch."""
    log_probability, targets = kept
    t = cast(targets, log_probability.dtype)
    each = cast(delta, t.dtype) / _batch(targets)
    to_outputs = each * (jnp.exp(log_probability) * jnp.sum(t, -1, keepdims=True) - t)
    return cast(to_outputs, targets.dtype), cast(-each * log_probability, targets.dtype)


_cross_entropy.defvjp(cross_entropy_fwd, cross_entropy_bwd)


def softmax_cross_entropy(outputs: Array, targets: Array) -> Array:
    """E = - sum_k t_k log softmax(y)_k, averaged over the batch.

    Args:
      outputs: `(batch, classes)` logits.
      targets: `(batch, classes)` one-hot or probabilities, or `(batch,)` class numbers.

    Returns:
      A scalar in the dtype of `outputs`; 0 for an empty batch.

    Raises:
      ValueError: if the shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> softmax_cross_entropy(jnp.zeros((1, 2)), jnp.array([1]))
      Array(0.6931472, dtype=float32)

    Source: Bishop, *Pattern Recognition and Machine Learning* (2006), section 4.3.4: delta = softmax(y) - t.
    """
    outputs = as_array(outputs)
    return _with_sharding(_cross_entropy, outputs, one_hot_like(outputs, targets))


def one_hot_like(outputs: Array, targets: Array) -> Array:
    """`targets` as `(batch, classes)` in the dtype of `outputs`."""
    targets = as_array(targets)
    if targets.shape == outputs.shape[:-1] and jnp.issubdtype(targets.dtype, jnp.integer):
        return jax.nn.one_hot(targets, outputs.shape[-1], dtype=outputs.dtype)
    if targets.shape != outputs.shape:
        raise ValueError(
            f"`targets` (shape={targets.shape}, dtype={targets.dtype}) must be class numbers of shape"
            f" {outputs.shape[:-1]}, or have the shape of `outputs` (shape={outputs.shape})."
        )
    return targets.astype(outputs.dtype)


def _with_sharding(loss: Callable[..., Array], outputs: Array, targets: Array) -> Array:
    return with_sharding_by(loss, lambda *_: (), outputs, targets)


def _batch(outputs: Array) -> int:
    return max(outputs.shape[0], 1)
