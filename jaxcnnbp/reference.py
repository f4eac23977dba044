"""The public functions by lax and jnp primitives alone: what JAX's autodiff is compared on (`mode("autodiff")`)."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnnbp.geometry import Window
from jaxcnnbp.geometry.parse import over_symbols, require_numbers
from jaxcnnbp.modes import alternatives
from jaxcnnbp.ops import lax_itself, symbolic
from jaxcnnbp.ops._dtypes import on_channels
from jaxcnnbp.ops.activation import SCALE, STEEPNESS
from jaxcnnbp.ops.pool.lp import norms_by_sums
from jaxcnnbp.ops.pool.max import flat_argmax
from jaxcnnbp.ops.pool.parse import merge_batch, parse_pool, spatial_rank, split_batch, with_mean
from jaxcnnbp.ops.pool.unpool import window_of_blocks
from jaxcnnbp.ops.pool.window_max import identity
from jaxcnnbp.reference_block import block_of
from jaxcnnbp.reference_conv import convolve, correlate, cropped, stands_for
from jaxcnnbp.taps import cells, gather

_AUTODIFF = alternatives["autodiff"]


def _extreme_pool(kind, inputs, window_shape, strides=None, padding="VALID", *, ties="first", **geometry):
    x, window = parse_pool(inputs, window_shape, strides, padding, **geometry)
    return split_batch(_extreme(x, window, kind, ties), inputs, window.rank)


for _kind in ("max", "min"):
    _AUTODIFF[f"{_kind}_pool"] = partial(_extreme_pool, _kind)


def _extreme(x: Array, window: Window, kind: str, ties: str) -> Array:
    if ties == "all":
        raise NotImplementedError(
            "`ties` (='all') has no counterpart among JAX's own gradients; use 'first' or 'split'."
        )
    if over_symbols(window):
        return symbolic.extreme_pool(x, window, kind, ties)
    if ties == "split":
        stacked = _stack_taps(x, window, kind)
        return stacked.max(0) if kind == "max" else stacked.min(0)
    if any(d > 1 for d in window.dilation):  # lax has no gradient here, so the winner is picked by hand
        return _winner(x, window, kind)[0]
    return _reduce(x, window, identity(x.dtype, kind), lax.max if kind == "max" else lax.min)


def _stack_taps(x: Array, window: Window, kind: str) -> Array:
    return jnp.stack([p for _, p in gather(x, window, identity(x.dtype, kind))])


def _winner(x: Array, window: Window, kind: str) -> tuple[Array, Array]:
    stacked = _stack_taps(x, window, kind)
    taps = stacked.argmax(0, keepdims=True) if kind == "max" else stacked.argmin(0, keepdims=True)
    return jnp.take_along_axis(stacked, taps, 0)[0], taps[0]


def _reduce(x: Array, window: Window, start: float, combine: Any) -> Array:
    if over_symbols(window):
        return symbolic.reduce(x, window, start, combine)
    # lax has no gradient for a pool that crops: what is cropped goes first, and what no window reads stays on.
    pairs = window.reach if window.ceil_mode else window.padding
    x = cropped(x, pairs)
    pairs = [(max(low, 0), max(high, 0)) for low, high in pairs]
    return lax_itself.reduce_window(
        x,
        np.asarray(start, x.dtype),
        combine,
        (1, *window.size, 1),
        (1, *window.stride, 1),
        ((0, 0), *pairs, (0, 0)),
        None,
        (1, *window.dilation, 1),
    )


@stands_for("max_pool_with_argmax")
def _max_pool_with_argmax(inputs, window_shape, strides=None, padding="VALID", **geometry):
    x, window = parse_pool(inputs, window_shape, strides, padding, **geometry)
    require_numbers(window, "`max_pool_with_argmax`", "use `max_pool`")
    values, taps = _winner(x, window, "max")
    return tuple(split_batch(a, inputs, window.rank) for a in (values, flat_argmax(taps, window)))


@stands_for("avg_pool")
def _avg_pool(inputs, window_shape, strides=None, padding="VALID", count_include_pad=True, **geometry):
    x, window = parse_pool(inputs, window_shape, strides, padding, **geometry)
    x = with_mean(x)
    if over_symbols(window):
        return split_batch(symbolic.mean_pool(x, window, count_include_pad), inputs, window.rank)
    counted = jnp.asarray(np.maximum(cells(window, count_include_pad), 1), x.dtype)[None, ..., None]
    return split_batch(_reduce(x, window, 0, lax.add) / counted, inputs, window.rank)


@stands_for("max_unpool")
def _max_unpool(values, argmax, spatial_shape):
    values, argmax = jnp.asarray(values), jnp.asarray(argmax)
    merged, index = merge_batch(values, len(spatial_shape)), merge_batch(argmax, len(spatial_shape))
    batch, channels, count = merged.shape[0], merged.shape[-1], int(np.prod(spatial_shape))
    flat = jnp.zeros((batch, count, channels), values.dtype)
    if 0 in (flat.size, values.size):
        return split_batch(flat.reshape(batch, *spatial_shape, channels), values, len(spatial_shape))
    rows, columns = jnp.arange(batch)[:, None, None], jnp.arange(channels)
    index = jnp.where(index < 0, count, index).reshape(batch, -1, channels)
    filled = flat.at[rows, index, columns].set(merged.reshape(batch, -1, channels), mode="drop")
    return split_batch(filled.reshape(batch, *spatial_shape, channels), values, len(spatial_shape))


@stands_for("upsample")
def _upsample(delta, window_shape, strides=None):
    delta = jnp.asarray(delta)
    merged = merge_batch(delta, spatial_rank(window_shape, delta))
    window = window_of_blocks(merged.shape[1:-1], window_shape, strides)
    if merged.size == 0 or not jnp.issubdtype(delta.dtype, jnp.inexact):
        return split_batch(_copied(merged, window), delta, window.rank)
    like = jax.ShapeDtypeStruct((merged.shape[0], *window.spatial, merged.shape[-1]), delta.dtype)
    spread = jax.linear_transpose(lambda x: _reduce(x, window, 0, lax.add), like)(merged)[0]
    return split_batch(spread, delta, window.rank)


def _copied(y: Array, window: Window) -> Array:
    """Block copies added up one tap at a time: what has no transpose has no gradient either."""
    grown = jnp.zeros((y.shape[0], *window.spatial, y.shape[-1]), jnp.int32 if y.dtype == jnp.bool_ else y.dtype)
    for tap in window.tap_indices() if y.size else ():
        stops = (t + (o - 1) * s + 1 for t, o, s in zip(tap, y.shape[1:-1], window.stride, strict=True))
        rows = map(slice, tap, stops, window.stride)
        grown = grown.at[(slice(None), *rows)].add(y.astype(grown.dtype))
    return grown.astype(y.dtype)


@stands_for("dense")
def _dense(x, weights, bias=None):
    y = jnp.asarray(x) @ jnp.asarray(weights)
    return y if bias is None else _add_bias(y, bias)


@stands_for("add_bias")
def _add_bias(y, bias):
    y = jnp.asarray(y)
    return y + on_channels(jnp.asarray(bias), y)


_AUTODIFF["conv_block"] = block_of(_AUTODIFF)


@stands_for("subsample")
def _subsample(x, beta, bias, window_shape, *, ceil_mode=False):
    merged, window = parse_pool(x, window_shape, window_shape, "VALID", None, ceil_mode)
    scaled = _reduce(merged, window, 0, lax.add) * on_channels(jnp.asarray(beta), merged)
    return split_batch(_add_bias(scaled, bias), x, window.rank)


@stands_for("combine_maps")
def _combine_maps(x, kernel, logits, bias, *, padding="VALID", true_convolution=True):
    alpha = jax.nn.softmax(jnp.asarray(logits), axis=0)
    mixed = jnp.asarray(kernel) * lax.expand_dims(alpha, range(jnp.ndim(kernel) - 2))
    return _add_bias((convolve if true_convolution else correlate)(x, mixed, padding=padding), bias)


@stands_for("combination_entropy")
def _combination_entropy(logits):
    log_alpha = jax.nn.log_softmax(jnp.asarray(logits), axis=0)
    return -jnp.sum(jnp.exp(log_alpha) * log_alpha)


@stands_for("reduce_window")
def _reduce_window(
    operand, init_value, computation, window_dimensions, window_strides=None, padding="VALID", *dilations, **more
):
    strides = (1,) * len(window_dimensions) if window_strides is None else window_strides
    # lax knows the type of an initial value from the value itself, and differentiates a known identity only.
    inits = jax.tree.map(lambda x, i: np.asarray(i, x.dtype) if np.isscalar(i) else i, operand, init_value)
    return lax_itself.reduce_window(
        operand, inits, computation, window_dimensions, strides, padding, *dilations, **more
    )


@stands_for("lp_pool")
def _lp_pool(inputs, norm_type, window_shape, strides=None, ceil_mode=False):
    strides = window_shape if strides is None else strides
    x, window = parse_pool(inputs, window_shape, strides, "VALID", None, ceil_mode)
    x = with_mean(x)
    whole = 1 if over_symbols(window) else window.taps / cells(window, True)
    scale = jnp.asarray(whole, x.dtype)[None, ..., None]

    def sums(powers):
        return _reduce(powers, window, 0, lax.add) * scale

    return split_batch(norms_by_sums(x, norm_type, sums), inputs, window.rank)


def _scaled_tanh(x):
    x = jnp.asarray(x)
    return jnp.asarray(SCALE, x.dtype) * jnp.tanh(jnp.asarray(STEEPNESS, x.dtype) * x)


def _relu(x):
    # `jax.nn.relu` is a `custom_jvp`, which `jax.experimental.jet` does not go through; the slope at 0 is 0 in both.
    x = jnp.asarray(x)
    return jnp.where(x <= 0, jnp.zeros_like(x), x)


_AUTODIFF |= {
    "identity": jnp.asarray,
    "logistic": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "scaled_tanh": _scaled_tanh,
    "relu": _relu,
    "leaky_relu": lambda x, negative_slope=0.01: jnp.where(x > 0, x, negative_slope * jnp.asarray(x)),
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
}
