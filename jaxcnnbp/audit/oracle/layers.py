"""Dense layers, fused blocks, and Bouvrie's sub-sampling and learned combinations of maps.

J. Bouvrie, Notes on Convolutional Neural Networks, 2006, sections 3.2 and 3.3.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from jaxcnnbp.audit.oracle.axes import Axis, axes_of, rank_of, several
from jaxcnnbp.audit.oracle.convolution import convolve, correlate, correlation, correlation_gradients
from jaxcnnbp.audit.oracle.pooling import avg_pool, channels_first, channels_last, max_pool, min_pool, reads, scatter
from jaxcnnbp.audit.oracle.rule import Arrays, apply, register, rule_of
from jaxcnnbp.modes import alternatives


@register
def dense(x: Any, weights: Any, bias: Any = None) -> Any:
    """`y = x W + b`."""
    arrays = (x, weights) if bias is None else (x, weights, bias)
    return apply(rule_of("dense", _dense, _dense_gradients), *arrays)


def _dense(x, weights, bias=0.0) -> Arrays:
    return (np.einsum("...i,io->...o", x, weights, optimize=True) + bias,)


def _dense_gradients(x, weights, *rest) -> Arrays:
    delta = rest[-1]
    rows, deltas = x.reshape(-1, x.shape[-1]), delta.reshape(-1, delta.shape[-1])
    gradients = (
        np.einsum("...o,io->...i", delta, weights, optimize=True),
        np.einsum("ni,no->io", rows, deltas),
    )
    return gradients if len(rest) == 1 else (*gradients, deltas.sum(axis=0))


@register
def add_bias(y: Any, bias: Any) -> Any:
    """`y + b`."""
    return apply(rule_of("add_bias", _add_bias, _add_bias_gradients), y, bias)


def _add_bias(y, bias) -> Arrays:
    return (y + bias,)


def _add_bias_gradients(y, bias, delta) -> Arrays:
    del y, bias
    return delta, np.sum(delta, axis=tuple(range(delta.ndim - 1)))


@register
def conv_block(
    x: Any,
    kernel: Any,
    bias: Any = None,
    *,
    true_convolution: bool = False,
    activation: str | None = "relu",
    activation_argument: float | bool | None = None,
    pool: Any = None,
    pool_strides: Any = None,
    pool_padding: Any = "VALID",
    pool_dilation: Any = None,
    pool_kind: str = "max",
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    **convolution: Any,
) -> Any:
    """`y = pool(f(x * k + b))`, one oracle after the other."""
    y = (convolve if true_convolution else correlate)(x, kernel, **convolution)
    y = y if bias is None else add_bias(y, bias)
    argument = () if activation_argument is None else (activation_argument,)
    y = y if activation is None else alternatives["oracle"][activation](y, *argument)
    if pool is None:
        return y
    spatial = dict(window_dilation=pool_dilation, ceil_mode=ceil_mode)
    if pool_kind == "mean":
        return avg_pool(y, pool, pool_strides, pool_padding, count_include_pad, **spatial)
    return {"max": max_pool, "min": min_pool}[pool_kind](y, pool, pool_strides, pool_padding, **spatial)


@register
def subsample(x: Any, beta: Any, bias: Any, window_shape: Any, *, ceil_mode: bool = False) -> Any:
    """`y = beta * (sum of the block) + bias`."""
    window = several(window_shape, rank_of(x, window_shape))
    rule = rule_of("subsample", _subsample, _subsample_gradients, window=window, ceil=bool(ceil_mode))
    return apply(rule, x, beta, bias)


def _subsample(x, beta, bias, *, window, ceil) -> Arrays:
    return (beta * _block_sums(x, window, ceil) + bias,)


def _subsample_gradients(x, beta, bias, delta, *, window, ceil) -> Arrays:
    del bias
    others, image = tuple(range(delta.ndim - 1)), channels_first(x, len(window))
    dbeta = np.sum(delta * _block_sums(x, window, ceil), axis=others)
    sent = channels_first(delta * beta, len(window))
    parts = np.broadcast_to(sent, (math.prod(window), *sent.shape))
    dx = channels_last(scatter(parts, image.shape, _blocks(image, window, ceil)), _leading(x, window))
    return dx, dbeta, np.sum(delta, axis=others)


def _block_sums(x: np.ndarray, window: tuple[int, ...], ceil: bool) -> np.ndarray:
    image = channels_first(x, len(window))
    values, _ = reads(image, _blocks(image, window, ceil))
    return channels_last(values.sum(axis=0), _leading(x, window))


def _blocks(image: np.ndarray, window: tuple[int, ...], ceil: bool) -> tuple[Axis, ...]:
    return axes_of(image.shape[2:], window, window, "VALID", 1, ceil)


def _leading(x: np.ndarray, window: tuple[int, ...]) -> tuple[int, ...]:
    return x.shape[: x.ndim - len(window) - 1]


@register
def combine_maps(
    x: Any, kernel: Any, logits: Any, bias: Any, *, padding: Any = "VALID", true_convolution: bool = True
) -> Any:
    """`y_j = sum_i softmax(logits)_ij (x_i * k_ij) + b_j`."""
    rule = rule_of("combine_maps", _combine, _combine_gradients, padding=padding, flip=bool(true_convolution))
    return apply(rule, x, kernel, logits, bias)


def _softmax(logits):
    powers = np.exp(logits - logits.max(axis=0))
    return powers / powers.sum(axis=0)


def _prepared(x, kernel, padding, flip):
    """`x` as `(batch, channels, *spatial)`, the kernel as `(*window, in, out)` without the flip, and the
    axes.
    """
    rank = x.ndim - 2
    axes = axes_of(x.shape[1:-1], kernel.shape[:rank], 1, padding, 1)
    return np.moveaxis(x, -1, 1), np.flip(kernel, tuple(range(rank))) if flip else kernel, axes


def _combine(x, kernel, logits, bias, *, padding, flip) -> Arrays:
    image, taps, axes = _prepared(x, kernel, padding, flip)
    weighted = np.moveaxis(taps * _softmax(logits), (-1, -2), (0, 1))
    return (np.moveaxis(correlation(image, weighted, axes), 1, -1) + bias,)


def _combine_gradients(x, kernel, logits, bias, delta, *, padding, flip) -> Arrays:
    del bias
    image, taps, axes = _prepared(x, kernel, padding, flip)
    alpha, rank = _softmax(logits), x.ndim - 2
    weighted = np.moveaxis(taps * alpha, (-1, -2), (0, 1))
    dx, dweighted = correlation_gradients(image, weighted, np.moveaxis(delta, -1, 1), axes)
    dweighted = np.moveaxis(dweighted, (0, 1), (-1, -2))
    dkernel, dalpha = dweighted * alpha, np.sum(dweighted * taps, axis=tuple(range(rank)))
    # The Jacobian of softmax, column by column: dalpha_i / dlogit_k = alpha_i ([i = k] - alpha_k).
    jacobians = alpha[:, None] * (np.eye(len(alpha))[:, :, None] - alpha[None])
    dlogits = np.einsum("ikj,ij->kj", jacobians, dalpha)
    dkernel = np.flip(dkernel, tuple(range(rank))) if flip else dkernel
    return np.moveaxis(dx, 1, -1), dkernel, dlogits, np.sum(delta, axis=tuple(range(delta.ndim - 1)))


@register
def combination_entropy(logits: Any) -> Any:
    """`-sum_ij alpha_ij log(alpha_ij)`, with `alpha = softmax(logits, axis=0)`."""
    return apply(rule_of("combination_entropy", _entropy, _entropy_gradient), logits)


def _entropy(logits) -> Arrays:
    return (-np.sum(_weighted_logs(logits)),)


def _entropy_gradient(logits, delta) -> Arrays:
    """`-alpha_i (log alpha_i - sum_k alpha_k log alpha_k)`."""
    weighted = _weighted_logs(logits)
    return (-delta * (weighted - _softmax(logits) * np.sum(weighted, axis=0)),)


def _weighted_logs(logits: np.ndarray) -> np.ndarray:
    """`alpha log(alpha)`, which goes to 0 with alpha."""
    alpha = _softmax(logits)
    return alpha * np.log(np.where(alpha > 0, alpha, 1.0))
