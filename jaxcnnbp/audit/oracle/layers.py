"""Dense layers, fused blocks, and Bouvrie's sub-sampling and learned combinations of maps.

J. Bouvrie, Notes on Convolutional Neural Networks, 2006, sections 3.2 and 3.3.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxcnnbp.audit.oracle.axes import Axis, axes_of, rank_of, several
from jaxcnnbp.audit.oracle.convolution import correlation, correlation_gradients
from jaxcnnbp.audit.oracle.pooling import copies, on_images, sums
from jaxcnnbp.audit.oracle.rule import Arrays, apply, register, rule_of
from jaxcnnbp.modes import alternatives
from jaxcnnbp.reference_block import block_of


@register
def dense(x: Any, weights: Any, bias: Any = None) -> Any:
    """`y = x W + b`."""
    arrays = (x, weights) if bias is None else (x, weights, bias)
    return apply(rule_of(_dense, _dense_gradients), *arrays)


def _dense(x, weights, bias=0.0) -> Arrays:
    return (np.einsum("...i,io->...o", x, weights, optimize=True) + bias,)


def _dense_gradients(x, weights, *rest) -> Arrays:
    delta = rest[-1]
    rows, deltas = x.reshape(-1, x.shape[-1]), delta.reshape(-1, delta.shape[-1])
    dx, dweights = np.einsum("...o,io->...i", delta, weights, optimize=True), np.einsum("ni,no->io", rows, deltas)
    return (dx, dweights) if len(rest) == 1 else (dx, dweights, deltas.sum(axis=0))


@register
def add_bias(y: Any, bias: Any) -> Any:
    """`y + b`."""
    return apply(rule_of(_add_bias, _add_bias_gradients), y, bias)


def _add_bias(y, bias) -> Arrays:
    return (y + bias,)


def _add_bias_gradients(y, bias, delta) -> Arrays:
    del y, bias
    return delta, _over_channels(delta)


alternatives["oracle"]["conv_block"] = block_of(alternatives["oracle"])


@register
def subsample(x: Any, beta: Any, bias: Any, window_shape: Any, *, ceil_mode: bool = False) -> Any:
    """`y = beta * (sum of the block) + bias`."""
    window = several(window_shape, rank_of(x, window_shape))
    return apply(rule_of(_subsample, _subsample_gradients, window=window, ceil=bool(ceil_mode)), x, beta, bias)


def _subsample(x, beta, bias, *, window, ceil) -> Arrays:
    return (beta * _block_sums(x, rank=len(window), window=window, ceil=ceil)[0] + bias,)


def _subsample_gradients(x, beta, bias, delta, *, window, ceil) -> Arrays:
    del bias
    blocks = dict(rank=len(window), window=window, ceil=ceil)
    (dx,), (sums_of_blocks,) = _block_copies(x, delta * beta, **blocks), _block_sums(x, **blocks)
    return dx, _over_channels(delta * sums_of_blocks), _over_channels(delta)


@on_images
def _block_sums(x, *, window, ceil) -> Arrays:
    return (sums(x, _blocks(x, window, ceil)),)


@on_images
def _block_copies(x, delta, *, window, ceil) -> Arrays:
    return (copies(delta, x.shape, _blocks(x, window, ceil)),)


def _blocks(image: np.ndarray, window: tuple[int, ...], ceil: bool) -> tuple[Axis, ...]:
    return axes_of(image.shape[2:], window, window, "VALID", 1, ceil)


def _over_channels(delta: np.ndarray) -> np.ndarray:
    """The gradient of one number a channel that is added everywhere."""
    return np.sum(delta, axis=tuple(range(delta.ndim - 1)))


@register
def combine_maps(
    x: Any, kernel: Any, logits: Any, bias: Any, *, padding: Any = "VALID", true_convolution: bool = True
) -> Any:
    """`y_j = sum_i softmax(logits)_ij (x_i * k_ij) + b_j`."""
    rule = rule_of(_combine, _combine_gradients, padding=padding, flip=bool(true_convolution))
    return apply(rule, x, kernel, logits, bias)


def _softmax(logits):
    powers = np.exp(logits - logits.max(axis=0))
    return powers / powers.sum(axis=0)


def _prepared(x, kernel, padding, flip):
    """`x` as `(batch, channels, *spatial)`, the kernel as `(*window, in, out)` without the flip, and the axes."""
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
    return np.moveaxis(dx, 1, -1), dkernel, dlogits, _over_channels(delta)


@register
def combination_entropy(logits: Any) -> Any:
    """`-sum_ij alpha_ij log(alpha_ij)`, with `alpha = softmax(logits, axis=0)`."""
    return apply(rule_of(_entropy, _entropy_gradient), logits)


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
