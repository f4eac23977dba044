"""Stochastic pooling: a cell of each window by chance in training, the mean by the same chances at test.

A cell's chance is its activation's share of the window, w[u, t] / S[u], with w[u, t] = p[u, t], or 0 where that is
negative or padding, and S[u] = sum_t w[u, t]. With a sample r[u] in 0 .. 1,

    training     y[u] = p[u, t*],  t* the first tap for which  w[u, 0] + ... + w[u, t*] > r[u] S[u],  recorded
    input grad   dx   = scatter(delta[u] where t == t*[u])

    test         y[u] = sum_t w[u, t]^2 / S[u]
    input grad   dx[i] = sum of delta[u] (2 x[i] - y[u]) / S[u] over all (u, t) with n(u, t) = i,  0 where x[i] < 0

A window without a positive cell is 0, with zero gradient; a NaN is taken, and is the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from jaxcnnbp.geometry import Padding, Window
from jaxcnnbp.geometry.parse import require_numbers
from jaxcnnbp.hand_written import hand_written
from jaxcnnbp.modes import switchable
from jaxcnnbp.ops._dtypes import cast, require_inexact, wide
from jaxcnnbp.ops._sharding import with_sharding_like
from jaxcnnbp.ops.layout import takes_layout
from jaxcnnbp.ops.pool.cells import argmax, first_largest
from jaxcnnbp.ops.pool.fractional import given_or_drawn
from jaxcnnbp.ops.pool.max import send_to_winners
from jaxcnnbp.ops.pool.mean import spread_windows
from jaxcnnbp.ops.pool.parse import merge_batch, parse_pool, require_ordered, split_batch
from jaxcnnbp.taps import pad_to_reach, take_blocks

Shape = int | Sequence[int]


def stack_taps(x: Array, window: Window) -> Array:
    """p[u, t], `(batch, *output, taps, channels)`, zero outside the input; it does not grow with the window."""
    padded = pad_to_reach(x, window)
    for axis in range(window.rank):
        u, t = np.arange(window.output[axis])[:, None], np.arange(window.size[axis])
        padded = jnp.take(padded, (u * window.stride[axis] + t * window.dilation[axis]).ravel(), 1 + axis)
    return take_blocks(padded, window).reshape(x.shape[0], *window.output, window.taps, x.shape[-1])


def shares(p: Array) -> tuple[Array, Array]:
    """w[u, t] in units of the window's largest, and that, both in the type of sums: no sum overflows.

    An infinite cell is certain. The unit is no variable: what is computed from the shares does not depend on it.
    """
    w = cast(jnp.where(p < 0, jnp.zeros((), p.dtype), p), wide(p.dtype))
    unit = lax.stop_gradient(w.max(-2, keepdims=True))
    scaled = w / jnp.where(unit == 0, jnp.ones((), w.dtype), unit)
    # `isinf` holds an infinite constant, which `jax_debug_infs` takes for a fault.
    is_infinite = unit > jnp.finfo(unit.dtype).max
    return jnp.where(is_infinite, cast(w == unit, w.dtype), scaled), unit


# --- training -------------------------------------------------------------------------------------------------------


class Sampled(NamedTuple):
    """What the pool keeps of its input."""

    taps: Array  # t*
    y: Array  # zero where no cell has a chance


@hand_written
@partial(jax.custom_vjp, nondiff_argnums=(2,))
def stochastic(x: Array, r: Array, window: Window) -> Array:
    """`(batch, *spatial, channels)` and a sample an output -> `(batch, *output, channels)`."""
    return sample_windows(x, r, window)[0]


@jax.named_scope("stochastic.sample_windows")
def sample_windows(x: Array, r: Array, window: Window) -> tuple[Array, Array]:
    """y[u] = p[u, t*] and t*."""
    p = stack_taps(x, window)
    w, unit = shares(p)
    reached = lax.associative_scan(jnp.add, w, axis=-2)  # `jnp.cumsum` is a loop on some platforms
    total = reached[..., -1:, :]
    # The second condition is for a sample that rounding made 1.
    chosen = (reached > cast(r, w.dtype)[..., None, :] * total) | (reached >= total)
    tap = argmax(chosen, -2)
    tap = jnp.where(jnp.isnan(unit), first_largest(p, -2), tap)
    y = jnp.where(unit == 0, jnp.zeros((), x.dtype), jnp.take_along_axis(p, tap, -2))
    return y[..., 0, :], tap[..., 0, :].astype(np.min_scalar_type(window.taps - 1))


def stochastic_fwd(x: Array, r: Array, window: Window) -> tuple[Array, Sampled]:
    """:: (x, r) -> (y, (t*, y))."""
    y, taps = sample_windows(x, r, window)
    return y, Sampled(taps, y)


def stochastic_bwd(window: Window, kept: Sampled, delta: Array) -> tuple[Array, Array]:
    """:: ((t*, y), CT y) -> (CT x, zero for the samples): dx = scatter(delta[u] where t == t*[u])."""
    taken = jnp.where(kept.y == 0, jnp.zeros((), delta.dtype), delta)
    return send_to_winners(taken, kept.taps, window), jnp.zeros_like(delta, wide(delta.dtype))


stochastic.defvjp(stochastic_fwd, stochastic_bwd)


# --- test -----------------------------------------------------------------------------------------------------------


class Weighted(NamedTuple):
    """What the mean keeps, in the type of sums."""

    x: Array
    y: Array
    total: Array  # S


@hand_written
@partial(jax.custom_vjp, nondiff_argnums=(1,))
def weighted_mean(x: Array, window: Window) -> Array:
    """`(batch, *spatial, channels)` -> `(batch, *output, channels)`."""
    return weighted_mean_fwd(x, window)[0]


def weighted_mean_fwd(x: Array, window: Window) -> tuple[Array, Weighted]:
    """:: x -> (y, (x, y, S)), y[u] = sum_t w[u, t]^2 / S[u]."""
    w, unit = shares(stack_taps(x, window))
    unit, total = unit[..., 0, :], w.sum(-2)
    has_chance = total != 0
    safe = jnp.where(has_chance, total, jnp.ones((), w.dtype))
    y = jnp.where(has_chance, unit * ((w * w).sum(-2) / safe), jnp.zeros((), w.dtype))
    return cast(y, x.dtype), Weighted(x, y, jnp.where(has_chance, unit * total, jnp.zeros((), w.dtype)))


@jax.named_scope("stochastic.weighted_mean_input_grad")
def weighted_mean_input_grad(kept: Weighted, delta: Array, window: Window) -> Array:
    """dx[i] = sum of delta[u] (2 x[i] - y[u]) / S[u], 0 where x[i] < 0."""
    has_chance = kept.total != 0
    safe = jnp.where(has_chance, kept.total, jnp.ones((), kept.total.dtype))
    d = jnp.where(has_chance, cast(delta, safe.dtype) / safe, jnp.zeros((), safe.dtype))
    slope = 2 * cast(kept.x, d.dtype) * spread_windows(d, window) - spread_windows(d * kept.y, window)
    return cast(jnp.where(kept.x < 0, jnp.zeros((), d.dtype), slope), delta.dtype)


def weighted_mean_bwd(window: Window, kept: Weighted, delta: Array) -> tuple[Array]:
    """:: ((x, y, S), CT y) -> CT x."""
    return (weighted_mean_input_grad(kept, delta, window),)


weighted_mean.defvjp(weighted_mean_fwd, weighted_mean_bwd)


@takes_layout("inputs", "samples", window="window_shape")
@switchable
def stochastic_pool(
    inputs: ArrayLike,
    window_shape: Shape,
    strides: Shape | None = None,
    padding: Padding = "VALID",
    *,
    key: Array | None = None,
    samples: ArrayLike | None = None,
    window_dilation: Shape | None = None,
    ceil_mode: bool = False,
    layout: str = "channels_last",
) -> Array:
    """Stochastic pooling: with a key a cell of each window, as likely as it is active; without one their mean.

    Args:
      inputs: `(*batch, *spatial, channels)`, real floats; activations, of which those below zero have no chance.
      window_shape, strides, padding, window_dilation, ceil_mode, layout: as `max_pool`; padding has no chance.
      key: a key of `jax.random`, for training: uniform samples, one an output, are drawn from it.
      samples: in its place, the samples, `(*batch, *output, channels)` of floats in 0 .. 1: of each window the first
        cell is taken up to which the activations exceed that share of their sum. They have no gradient.

    Returns:
      `(*batch, *output, channels)` in the dtype of `inputs`: the cells taken, which alone get delta, or, with neither
      key nor samples, the mean of the cells weighted by their chances. A window without a positive cell is 0, with
      zero gradient.

    Raises:
      TypeError, ValueError: with the argument and its value.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> x, r = jnp.array([1., 3., 0., 2.]).reshape(1, 4, 1), jnp.array([0.1, 0.5]).reshape(1, 2, 1)
      >>> stochastic_pool(x, (2,), (2,), samples=r).ravel(), stochastic_pool(x, (2,), (2,)).ravel()
      (Array([1., 2.], dtype=float32), Array([2.5, 2. ], dtype=float32))

    Source: Zeiler and Fergus, *Stochastic Pooling for Regularization of Deep Convolutional Neural Networks* (2013);
    `ops.pool.stochastic`.
    """
    x, window = parse_pool(inputs, window_shape, strides, padding, window_dilation, ceil_mode)
    require_numbers(window, "`stochastic_pool`", "use `avg_pool`")
    require_inexact(x, "inputs")
    require_ordered(x)
    if samples is None and key is None:
        return split_batch(with_sharding_like(lambda x: weighted_mean(x, window), x), inputs, window.rank)
    r = stochastic_samples(x, np.shape(inputs), window, samples, key)
    return split_batch(with_sharding_like(lambda x, r: stochastic(x, r, window), x, r), inputs, window.rank)


def stochastic_samples(x: Array, shape: Any, window: Window, samples: ArrayLike | None, key: Array | None) -> Array:
    """The samples that were given, or drawn from `key`, `(batch, *output, channels)`, in the type of sums."""
    wanted = (*shape[: len(shape) - window.rank - 1], *window.output, shape[-1])
    return cast(merge_batch(given_or_drawn(x, wanted, samples, key), window.rank), wide(x.dtype))
