"""A network as a Flax Linen model, in the words its users have: this package enters by `manual_backward` alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcnnbp.bench import networks as spec


class FlaxModel(nn.Module):
    """The layers of a network, one after the other, while training."""

    layers: spec.Layers
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits."""
        return _walk(self.layers, x, self.dtype)


def _walk(layers: spec.Layers, x: jax.Array, dtype: Any) -> jax.Array:
    for layer in layers:
        x = _BUILD[type(layer)](layer, x, dtype)
    return x


def _conv(layer: spec.Conv, x: jax.Array, dtype: Any) -> jax.Array:
    channels = x.shape[-1]
    return nn.Conv(
        layer.features or channels,
        (layer.window,) * 2,
        (layer.stride,) * 2,
        ((layer.padding, layer.padding),) * 2,
        feature_group_count=1 if layer.features else channels,
        use_bias=layer.bias,
        dtype=dtype,
        param_dtype=dtype,
    )(x)


def _up(layer: spec.Up, x: jax.Array, dtype: Any) -> jax.Array:
    size = (layer.window,) * 2
    return nn.ConvTranspose(layer.features, size, size, "VALID", dtype=dtype, param_dtype=dtype)(x)


def _norm(_: spec.Norm, x: jax.Array, dtype: Any) -> jax.Array:
    return nn.BatchNorm(use_running_average=False, dtype=dtype, param_dtype=dtype)(x)


def _max_pool(layer: spec.MaxPool, x: jax.Array, _: Any) -> jax.Array:
    pads: Any = ((layer.padding,) * 2,) * 2
    return nn.max_pool(x, (layer.window,) * 2, (layer.stride,) * 2, pads)


def _dense(layer: spec.Dense, x: jax.Array, dtype: Any) -> jax.Array:
    return nn.Dense(layer.features, dtype=dtype, param_dtype=dtype)(x)


def _residual(layer: spec.Residual, x: jax.Array, dtype: Any) -> jax.Array:
    return _walk(layer.body, x, dtype) + _walk(layer.shortcut, x, dtype)


def _concat(layer: spec.Concat, x: jax.Array, dtype: Any) -> jax.Array:
    return jnp.concatenate([x, _walk(layer.inner, x, dtype)], axis=-1)


_BUILD: dict[type, Callable[[Any, jax.Array, Any], jax.Array]] = {
    spec.Conv: _conv,
    spec.Up: _up,
    spec.Norm: _norm,
    spec.Relu: lambda _, x, __: nn.relu(x),
    spec.MaxPool: _max_pool,
    spec.MeanGlobal: lambda _, x, __: x.mean((1, 2)),
    spec.Flatten: lambda _, x, __: x.reshape(x.shape[0], -1),
    spec.Dense: _dense,
    spec.Residual: _residual,
    spec.Concat: _concat,
}
