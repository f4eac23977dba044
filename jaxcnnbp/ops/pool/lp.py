"""Lp pooling, a norm of each window.

With `m[u]` the cells of window u and `k` the taps of a whole one (they differ where ceil mode cuts a window off):

    forward      s[u] = k / m[u] * sum_t p[u, t]^q        y[u] = s[u]^(1/q)
    input grad   dx   = x^(q-1) o scatter(k / m[u] * delta[u] y[u]^(1-q))       0 where y[u] = 0

PyTorch takes no absolute value: an odd q keeps the sign of a cell, and the root of a negative sum is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from jaxcnnbp.geometry import Window
from jaxcnnbp.geometry.parse import over_symbols
from jaxcnnbp.hand_written import hand_written, one_dispatch
from jaxcnnbp.modes import switchable
from jaxcnnbp.ops import symbolic
from jaxcnnbp.ops._dtypes import cast, wide
from jaxcnnbp.ops._sharding import with_sharding_like
from jaxcnnbp.ops.layout import takes_layout
from jaxcnnbp.ops.pool.mean import mean_forward, mean_input_grad, spread_windows
from jaxcnnbp.ops.pool.parse import parse_pool, split_batch, with_mean


class LpResiduals(NamedTuple):
    """What the backward pass needs."""

    x: Array
    norms: Array  # y, in the type of the sums


@hand_written
@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def lp_norms(x: Array, q: float, window: Window) -> Array:
    """`(batch, *spatial, channels)` -> y[u] = (k / m[u] sum_t p[u, t]^q)^(1/q), in the type of the sums."""
    x = cast(x, wide(x.dtype))
    return _roots(power(x, q), q, window)


def _roots(powers: Array, q: float, window: Window) -> Array:
    """(k / m[u] sum_t powers)^(1/q)."""
    sums = mean_forward(powers, window, True) * jnp.asarray(window.taps, powers.dtype)
    return _power_where(sums != 0, sums, 1 / q)


def lp_input_grad(x: Array, norms: Array, delta: Array, q: float, window: Window) -> Array:
    """dx = x^(q-1) o scatter(k / m[u] * delta[u] y[u]^(1-q))."""
    has_norm = norms != 0
    shares = cast(delta, norms.dtype) * power(jnp.where(has_norm, norms, 1), 1 - q)
    shares = jnp.where(has_norm, shares, 0) * jnp.asarray(window.taps, norms.dtype)
    slopes = _power_where_counted(cast(x, norms.dtype), q - 1, has_norm, window)
    return cast(slopes * mean_input_grad(shares, window, True), x.dtype)


def _power_where_counted(x: Array, exponent: float, has_norm: Array, window: Window) -> Array:
    """x^exponent, and 0 at cells that no window with a norm covers: powers that are no polynomials have poles there."""
    if float(exponent).is_integer():
        return power(x, exponent)
    counts = spread_windows(cast(has_norm, x.dtype), window) > 0
    return _power_where(counts, x, exponent)


def _power_where(is_counted: Array, x: Array, exponent: float) -> Array:
    """x^exponent where it is counted; elsewhere it is 0, and so are its derivatives of every order."""
    return jnp.where(is_counted, power(jnp.where(is_counted, x, 1), exponent), 0)


def lp_pool_fwd(x: Array, q: float, window: Window) -> tuple[Array, LpResiduals]:
    """:: x -> (y, residuals); the norms that are kept are differentiated again, forwards and backwards."""
    norms = lp_norms.function(x, q, window)
    if not float(q).is_integer():
        norms = _roots(_power_where_counted(cast(x, norms.dtype), q, norms != 0, window), q, window)
    return norms, LpResiduals(x, norms)


def lp_pool_bwd(q: float, window: Window, kept: LpResiduals, delta: Array) -> tuple[Array]:
    """:: (residuals, CT y) -> CT x."""
    return (lp_input_grad(kept.x, kept.norms, delta, q, window),)


def power(x: Array, exponent: float) -> Array:
    """x^exponent; a whole one by multiplications, whose derivatives have no pole at 0."""
    if float(exponent).is_integer():
        return lax.integer_pow(x, int(exponent))
    return jnp.power(x, jnp.asarray(exponent, x.dtype))


lp_norms.defvjp(lp_pool_fwd, lp_pool_bwd)


@one_dispatch(1, 2)
def lp_pool_op(x: Array, q: float, window: Window) -> Array:
    """The norms in the type of `x`."""
    return cast(lp_norms(x, q, window), x.dtype)


def _over_symbols(x: Array, q: float, window: Window) -> Array:
    sums = partial(symbolic.sum_pool, window=window)
    return cast(norms_by_sums(cast(x, wide(x.dtype)), q, sums), x.dtype)


def norms_by_sums(x: Array, q: float, sums: Callable[[Array], Array]) -> Array:
    """(sums of x^q)^(1/q) for JAX's autodiff, where `sums` goes over windows: its gradient is zero where a norm is."""
    total = sums(power(x, q))
    if not float(q).is_integer():  # nor has the power a derivative, where no window has a norm
        has_norm = cast(total != 0, x.dtype)
        counts = jax.linear_transpose(sums, x)(has_norm)[0] > 0
        total = sums(_power_where(counts, x, q))
    return _power_where(total != 0, total, 1 / q)


@takes_layout("inputs", window="window_shape")
@switchable
def lp_pool(
    inputs: ArrayLike,
    norm_type: float,
    window_shape: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    ceil_mode: bool = False,
    *,
    layout: str = "channels_last",
) -> Array:
    r"""Lp pooling, $y[u] = (\sum_t x[n(u, t)]^q)^{1/q}$ for `norm_type` q, as PyTorch's `lp_pool2d` but channels last.

    Args:
      inputs: `(*batch, *spatial, channels)`.
      norm_type: q, a positive number; 1 sums, 2 is the Euclidean norm.
      window_shape: taps an axis; its length says how many spatial axes there are, and an int is for all those of
        `(batch, *spatial, channels)`.
      strides: input positions from one window to the next, `window_shape` if None (PyTorch's default).
      ceil_mode: also a last, partial window counts; its sum is scaled up to a whole window (PyTorch's rule).
      layout: as `max_pool`.

    Returns:
      `(*batch, *output, channels)` in the dtype of `inputs`, of integers in JAX's default float. A window of norm
      zero has gradient zero.

    Raises:
      TypeError, ValueError: with the argument and its value.

    Example:
      >>> import jax.numpy as jnp
      >>> lp_pool(jnp.array([3., 4., 0., 5.]).reshape(1, 4, 1), 2, (2,)).ravel()
      Array([5., 5.], dtype=float32)

    Source: `ops.pool.lp`; Gulcehre et al., *Learned-Norm Pooling for Deep Feedforward and Recurrent Networks* (2014).
    """
    if isinstance(norm_type, bool) or not isinstance(norm_type, int | float | np.number) or not 0 < norm_type < np.inf:
        raise ValueError(f"`norm_type` (={norm_type!r}) must be a finite number above 0; for infinity use `max_pool`.")
    x, window = parse_pool(inputs, window_shape, window_shape if strides is None else strides, "VALID", None, ceil_mode)
    x = with_mean(x)
    rule = _over_symbols if over_symbols(window) else lp_pool_op
    return split_batch(with_sharding_like(lambda x: rule(x, float(norm_type), window), x), inputs, window.rank)
