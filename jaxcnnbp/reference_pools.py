"""The adaptive pools and those by chance by lax and jnp primitives alone, for `mode("autodiff")`."""

from __future__ import annotations

import itertools

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcnnbp.ops import symbolic
from jaxcnnbp.ops.pool.adaptive import parse_adaptive
from jaxcnnbp.ops.pool.fractional import fractional_samples, parse_fractional, window_cells, window_starts
from jaxcnnbp.ops.pool.parse import parse_pool, split_batch, with_mean
from jaxcnnbp.ops.pool.stochastic import stochastic_samples
from jaxcnnbp.reference_conv import stands_for
from jaxcnnbp.taps import gather


def _adaptive(inputs, output_shape, reduce):
    x = jnp.asarray(inputs)
    wanted = tuple(output_shape) if np.iterable(output_shape) else (output_shape,) * (x.ndim - 2)
    spatial = x.shape[x.ndim - 1 - len(wanted) : -1]
    sizes = [n if m is None else m for n, m in zip(spatial, wanted, strict=True)]
    windows = (zip(*rows, strict=True) for rows in itertools.product(*map(_bounds, spatial, sizes)))
    pooled = [reduce(x[(..., *map(slice, *window), slice(None))], len(wanted)) for window in windows]
    return jnp.stack(pooled, -2).reshape(*x.shape[: x.ndim - 1 - len(wanted)], *sizes, x.shape[-1])


def _over_symbols(inputs, output_shape, pool):
    x, outputs = parse_adaptive(inputs, output_shape)
    return split_batch(pool(x, outputs), inputs, len(outputs))


def _bounds(extent: int, outputs: int) -> list[tuple[int, int]]:
    return [(u * extent // outputs, -((u + 1) * extent // -outputs)) for u in range(outputs)]


@stands_for("adaptive_avg_pool")
def _adaptive_avg_pool(inputs, output_shape):
    inputs = with_mean(jnp.asarray(inputs))
    if symbolic.has_symbols(inputs):
        return _over_symbols(inputs, output_shape, symbolic.adaptive_mean)
    return _adaptive(inputs, output_shape, lambda part, rank: part.mean(tuple(range(-1 - rank, -1))))


@stands_for("adaptive_max_pool")
def _adaptive_max_pool(inputs, output_shape, return_argmax=False):
    if return_argmax:
        raise NotImplementedError("`return_argmax` (=True) has no counterpart among JAX's own functions; leave it out.")
    if symbolic.has_symbols(jnp.asarray(inputs)):
        return _over_symbols(inputs, output_shape, symbolic.adaptive_max)
    return _adaptive(inputs, output_shape, _first_max)


def _first_max(part: Array, rank: int) -> Array:
    flat = part.reshape(*part.shape[: part.ndim - 1 - rank], -1, part.shape[-1])
    return jnp.take_along_axis(flat, flat.argmax(-2, keepdims=True), -2)[..., 0, :]


@stands_for("fractional_max_pool")
def _fractional_max_pool(
    inputs, window_shape, output_shape=None, *, output_ratio=None, samples=None, key=None, return_argmax=False
):
    x, size, outputs = parse_fractional(inputs, window_shape, output_shape, output_ratio)
    drawn = fractional_samples(x, np.shape(inputs), len(size), samples, key)
    spatial, laid = x.shape[1:-1], (x.shape[0], *outputs, x.shape[-1])
    cells = window_cells(window_starts(drawn, spatial, size, outputs), size, spatial)
    flat = x.reshape(x.shape[0], -1, x.shape[-1])
    p = jnp.take_along_axis(flat, cells.reshape(x.shape[0], -1, x.shape[-1]), 1).reshape(cells.shape)
    tap = p.argmax(2, keepdims=True)
    both = (jnp.take_along_axis(a, tap, 2).reshape(laid) for a in (p, cells))
    values, argmax = (split_batch(a, inputs, len(size)) for a in both)
    return (values, argmax) if return_argmax else values


@stands_for("stochastic_pool")
def _stochastic_pool(inputs, window_shape, strides=None, padding="VALID", *, key=None, samples=None, **geometry):
    x, window = parse_pool(inputs, window_shape, strides, padding, **geometry)
    p = jnp.stack([p for _, p in gather(x, window)])
    w = jnp.where(p < 0, 0, p)
    total = w.sum(0)
    if samples is None and key is None:
        mean = jnp.where(total > 0, (w * w).sum(0) / jnp.where(total > 0, total, 1), 0)
        return split_batch(mean, inputs, window.rank)
    r = stochastic_samples(x, np.shape(inputs), window, samples, key)
    tap = (jnp.cumsum(w, 0) > (r * total)[None]).argmax(0, keepdims=True)
    return split_batch(jnp.where(total > 0, jnp.take_along_axis(p, tap, 0)[0], 0), inputs, window.rank)
