"""The pools by chance by lax primitives alone, for `mode("autodiff")`; `reference` has the rest."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxcnnbp.ops.pool.fractional import fractional_samples, parse_fractional, window_cells, window_starts
from jaxcnnbp.ops.pool.parse import parse_pool, split_batch
from jaxcnnbp.ops.pool.stochastic import stochastic_samples
from jaxcnnbp.reference_conv import stands_for
from jaxcnnbp.taps import gather


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
