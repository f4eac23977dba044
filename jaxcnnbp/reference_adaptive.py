"""The adaptive pools by lax and jnp primitives alone, for `mode("autodiff")`; `reference` has the rest."""

from __future__ import annotations

import itertools

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcnnbp.ops import symbolic
from jaxcnnbp.ops.pool.adaptive import parse_adaptive
from jaxcnnbp.ops.pool.parse import split_batch, with_mean
from jaxcnnbp.reference_conv import stands_for


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
