"""Two layers of Bouvrie's notes: sub-sampling with a gain, and the learned combination of maps."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxcnnbp.geometry import Padding, Window, window_of
from jaxcnnbp.geometry.parse import over_symbols, require_numbers, require_output
from jaxcnnbp.hand_written import hand_written
from jaxcnnbp.modes import switchable
from jaxcnnbp.ops import symbolic
from jaxcnnbp.ops._dtypes import as_array, cast, on_channels, require_inexact, require_same_dtype, wide
from jaxcnnbp.ops._sharding import with_sharding_like
from jaxcnnbp.ops.conv.api import check_operands
from jaxcnnbp.ops.conv.geometry import ConvGeometry
from jaxcnnbp.ops.conv.rule import forward, input_grad, kernel_grad
from jaxcnnbp.ops.dense import add_bias
from jaxcnnbp.ops.layout import takes_layout
from jaxcnnbp.ops.pool.mean import spread_windows, sum_forward
from jaxcnnbp.ops.pool.parse import parse_pool, split_batch

# Sub-sampling: u = beta * down(x), with down the block sum.
#
#   dbeta = sum of delta o down(x)         one number a map
#   dx    = up(beta * delta)               up the block copy


class SubsampleResiduals(NamedTuple):
    """What the backward pass needs."""

    summed: Array  # down(x), for dbeta
    beta: Array  # for dx


@hand_written
@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _subsample(x: Array, beta: Array, window: Window) -> Array:
    return subsample_fwd(x, beta, window)[0]


def subsample_fwd(x: Array, beta: Array, window: Window) -> tuple[Array, SubsampleResiduals]:
    """:: (x, beta) -> (beta * down(x), residuals)."""
    summed = sum_forward(x, window)
    return summed * on_channels(beta, summed), SubsampleResiduals(summed, beta)


def subsample_bwd(window: Window, kept: SubsampleResiduals, delta: Array) -> tuple[Array, Array]:
    """:: (residuals, CT u) -> (CT x, CT beta)."""
    sum_type = wide(delta.dtype)
    delta, summed = cast(delta, sum_type), cast(kept.summed, sum_type)
    dx = spread_windows(delta * on_channels(cast(kept.beta, sum_type), delta), window)
    dbeta = jnp.sum(delta * summed, tuple(range(delta.ndim - 1)))
    return cast(dx, kept.beta.dtype), cast(dbeta, kept.beta.dtype)


_subsample.defvjp(subsample_fwd, subsample_bwd, shared=("beta",))


def _subsample_over_symbols(x: Array, beta: Array, window: Window) -> Array:
    summed = symbolic.sum_pool(x, window)
    return summed * on_channels(beta, summed)


@takes_layout("x", window="window_shape")
@switchable
def subsample(
    x: ArrayLike,
    beta: ArrayLike,
    bias: ArrayLike,
    window_shape: Any,
    *,
    ceil_mode: bool = False,
    layout: str = "channels_last",
) -> Array:
    """Bouvrie's sub-sampling before its activation, u = beta down(x) + b, one beta and one b a map.

    Args:
      x: `(*batch, *spatial, maps)`.
      beta: `(maps,)`, the gain.
      bias: `(maps,)`.
      window_shape: extents of the blocks, which `down` sums.
      ceil_mode: whether partial blocks at the far edge are summed too; without it the blocks must divide the input.
      layout: as `max_pool`.

    Returns:
      `(*batch, *pooled, maps)` in the dtype of `x`.

    Raises:
      TypeError, ValueError: with the argument and its value.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([1., 2., 3., 4.]).reshape(1, 4, 1)
      >>> subsample(x, jnp.array([2.]), jnp.array([1.]), (2,)).ravel()
      Array([ 7., 15.], dtype=float32)

    Source: Bouvrie (2006), section 3.2: dbeta = sum(delta o down(x)).
    """
    beta = as_array(beta)
    merged, window = parse_pool(x, window_shape, window_shape, "VALID", None, ceil_mode)
    require_inexact(merged, "x")
    require_same_dtype(beta, "beta", merged, "x")
    if beta.shape != merged.shape[-1:]:
        raise ValueError(f"`beta` (shape={beta.shape}) must be (maps,), here {merged.shape[-1:]}.")
    if not ceil_mode and any(n % k != 0 for n, k in zip(window.spatial, window.size, strict=True)):
        if over_symbols(window):
            multiples = ", ".join(f"{k}*{axis}" for k, axis in zip(window.size, "abcdefgh", strict=False))
            require_numbers(window, f"`window_shape` (={window.size})", f"or multiples of it, such as ({multiples})")
        raise ValueError(
            f"`window_shape` (={window.size}) must divide the spatial extents (={window.spatial}): cells at the edge"
            " would be lost; pad or crop, or pass ceil_mode=True for partial blocks."
        )
    rule = _subsample_over_symbols if over_symbols(window) else _subsample
    scaled = with_sharding_like(lambda x, beta: rule(x, beta, window), merged, beta)
    return split_batch(add_bias(scaled, bias), x, window.rank)


# Learned combination: u_j = sum_i alpha_ij (x_i * k_ij), alpha_ij = softmax over i of c_ij. It is the convolution with
# the kernel alpha k, so with dK the gradient of that kernel
#
#   dk_ij     = alpha_ij dK_ij
#   dalpha_ij = sum_t k_ij[t] dK_ij[t]
#   dc_ij     = alpha_ij (dalpha_ij - sum_l dalpha_lj alpha_lj)


class CombineResiduals(NamedTuple):
    """What the backward pass needs."""

    x: Array  # for dK
    kernel: Array  # for dx and dalpha
    alpha: Array  # for all three


@hand_written
@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _combine(x: Array, kernel: Array, logits: Array, geometry: ConvGeometry) -> Array:
    return combine_fwd(x, kernel, logits, geometry)[0]


def combine_fwd(x: Array, kernel: Array, logits: Array, geometry: ConvGeometry) -> tuple[Array, CombineResiduals]:
    """:: (x, k, c) -> (u, residuals)."""
    alpha = softmax_over_inputs(logits)
    return forward(x, _weighted(kernel, alpha), geometry), CombineResiduals(x, kernel, alpha)


def combine_bwd(geometry: ConvGeometry, kept: CombineResiduals, delta: Array) -> tuple[Array, Array, Array]:
    """:: (residuals, CT u) -> (CT x, CT k, CT c)."""
    x, kernel, alpha = kept
    dx = input_grad(delta, _weighted(kernel, alpha), geometry)
    mixed = kernel_grad(x, delta, geometry)
    dalpha = jnp.sum(kernel * mixed, tuple(range(geometry.window.rank)), dtype=wide(kernel.dtype))
    return dx, _weighted(mixed, alpha), cast(softmax_backward(cast(alpha, dalpha.dtype), dalpha), alpha.dtype)


def _weighted(kernel: Array, alpha: Array) -> Array:
    """alpha_ij k_ij[t]."""
    return kernel * lax.expand_dims(alpha, range(kernel.ndim - 2))


def softmax_over_inputs(logits: Array) -> Array:
    """alpha_ij = exp(c_ij) / sum_l exp(c_lj)."""
    return cast(jax.nn.softmax(cast(logits, wide(logits.dtype)), axis=0), logits.dtype)


def softmax_backward(alpha: Array, dalpha: Array) -> Array:
    """dc_ij = alpha_ij (dalpha_ij - sum_l dalpha_lj alpha_lj)."""
    return alpha * (dalpha - jnp.sum(dalpha * alpha, 0, keepdims=True))


_combine.defvjp(combine_fwd, combine_bwd, shared=("kernel", "alpha"))


def _combine_over_symbols(x: Array, kernel: Array, logits: Array, geometry: ConvGeometry) -> Array:
    return symbolic.conv(x, _weighted(kernel, softmax_over_inputs(logits)), geometry)


@takes_layout("x")
@switchable
def combine_maps(
    x: ArrayLike,
    kernel: ArrayLike,
    logits: ArrayLike,
    bias: ArrayLike,
    *,
    padding: Padding = "VALID",
    true_convolution: bool = True,
    layout: str = "channels_last",
) -> Array:
    """Bouvrie's learned combination of maps before its activation, u_j = sum_i alpha_ij (x_i * k_ij) + b_j.

    Args:
      x: `(batch, *spatial, in)`.
      kernel: `(*window, in, out)`.
      logits: `(in, out)`, the c of alpha_ij = softmax over i of c_ij: which input maps an output map listens to.
      bias: `(out,)`.
      padding: as `convolve`.
      true_convolution: whether the kernel is flipped.
      layout: as `convolve`.

    Returns:
      `(batch, *output, out)` in the dtype of `x`.

    Raises:
      TypeError, ValueError: with the argument and its value.

    Example:
      >>> import jax.numpy as jnp
      >>> x, kernel = jnp.array([[[1., 3.]]]), jnp.ones((1, 2, 1))
      >>> combine_maps(x, kernel, jnp.zeros((2, 1)), jnp.zeros(1)).ravel()
      Array([2.], dtype=float32)

    Source: Bouvrie (2006), section 3.3: dc_i = alpha_i (dalpha_i - sum_k dalpha_k alpha_k).
    """
    x, kernel, logits = as_array(x), as_array(kernel), as_array(logits)
    check_operands(x, kernel, 1)
    require_inexact(x, "x")
    require_same_dtype(logits, "logits", x, "x")
    if logits.shape != kernel.shape[-2:]:
        raise ValueError(f"`logits` (shape={logits.shape}) must be (in, out), here {kernel.shape[-2:]}.")
    window = window_of(x.shape[1:-1], kernel.shape[:-2], padding=padding, names={"size": "kernel"})
    geometry = ConvGeometry(require_output(window, "kernel"), mirrored=bool(true_convolution))
    rule = _combine_over_symbols if over_symbols(window) else _combine
    combined = with_sharding_like(lambda x, kernel, logits: rule(x, kernel, logits, geometry), x, kernel, logits)
    return add_bias(combined, bias)


# The entropy of alpha, H_j = - sum_i alpha_ij log alpha_ij, has dH_j/dc_ij = - alpha_ij (log alpha_ij + H_j).


@hand_written
@jax.custom_vjp
def _entropy(logits: Array) -> Array:
    return entropy_fwd(logits)[0]


def entropy_fwd(logits: Array) -> tuple[Array, tuple[Array, Array]]:
    """:: c -> (sum_j H_j, (log alpha, H))."""
    log_alpha = jax.nn.log_softmax(cast(logits, wide(logits.dtype)), axis=0)
    alpha = jnp.exp(log_alpha)
    # alpha log alpha is 0 in the limit alpha = 0, where log alpha may be -inf.
    each = -jnp.sum(jnp.where(alpha > 0, alpha * log_alpha, 0), 0)
    return cast(jnp.sum(each), logits.dtype), (log_alpha, each)


def entropy_bwd(kept: tuple[Array, Array], delta: Array) -> tuple[Array]:
    """:: ((log alpha, H), CT) -> CT c."""
    log_alpha, each = kept
    alpha = jnp.exp(log_alpha)
    slope = jnp.where(alpha > 0, -alpha * (log_alpha + each[None]), 0)
    return (cast(cast(delta, slope.dtype) * slope, delta.dtype),)


_entropy.defvjp(entropy_fwd, entropy_bwd)


@switchable
def combination_entropy(logits: ArrayLike) -> Array:
    """The entropy of the combination weights, sum_j -sum_i alpha_ij log alpha_ij: a penalty that makes them sparse.

    Bouvrie's penalty, the L1 norm of alpha, is 1 everywhere on the simplex, so its gradient is zero.

    Args:
      logits: `(in, out)`.

    Returns:
      A scalar in the dtype of `logits`, in nats; zero where every output map listens to one input map.

    Raises:
      TypeError, ValueError: with the argument and its value.

    Example:
      >>> import jax.numpy as jnp
      >>> combination_entropy(jnp.zeros((2, 1)))
      Array(0.6931472, dtype=float32)

    Source: in place of Bouvrie (2006), section 3.3.1.
    """
    logits = as_array(logits)
    require_inexact(logits, "logits")
    if logits.ndim != 2:
        raise ValueError(f"`logits` (shape={logits.shape}) must be (in, out).")
    return _entropy(logits)
