"""Layers one after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from jaxcnnbp.geometry.window import Ints
from jaxcnnbp.nn.layer import Backward, Layer, Params, check_input_shape


@dataclass(frozen=True)
class Sequential:
    """A stack of layers, itself a layer.

    Attributes:
      layers: the layers, first to last.

    `names` are kind and number, `conv1`, `relu1`, `pool1`, `conv2`; `init` gives a dict by name of the layers that have
    parameters.

    Example:
      >>> import jax
      >>> from jaxcnnbp import nn
      >>> model = Sequential((nn.Conv(4, 3), nn.Relu(), nn.Flatten(), nn.Dense(2)))
      >>> model.names
      ('conv1', 'relu1', 'flatten1', 'dense1')
      >>> sorted(model.init(jax.random.key(0), (1, 8, 8, 1)))
      ['conv1', 'dense1']

    Source: the document's algorithm runs over such a stack.
    """

    layers: tuple[Layer, ...]
    kind = "sequential"

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        strangers = [layer for layer in self.layers if not isinstance(layer, Layer)]
        if strangers:
            raise TypeError(
                f"`layers` holds {strangers[0]!r}, which is no layer: it needs init, apply, forward, backward."
            )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The name of each layer, first to last."""
        seen: Counter[str] = Counter()
        names = []
        for layer in self.layers:
            seen[layer.kind] += 1
            names.append(f"{layer.kind}{seen[layer.kind]}")
        return tuple(names)

    def named_layers(self) -> Iterator[tuple[str, Layer]]:
        """Pairs of a name and its layer, first to last."""
        return zip(self.names, self.layers, strict=True)

    def init(self, key: Array, input_shape: Ints, dtype: DTypeLike = jnp.float32) -> Params:
        """Parameters by name, of the layers that have any."""
        shape, params = check_input_shape(input_shape), {}
        keys = jax.random.split(key, max(len(self.layers), 1))
        for (name, layer), own_key in zip(self.named_layers(), keys, strict=False):
            own = layer.init(own_key, shape, dtype)
            params |= {name: own} if own else {}
            shape = layer.output_shape(shape)
        return params

    def output_shape(self, input_shape: Ints) -> Ints:
        """Shape after the last layer."""
        shape = check_input_shape(input_shape)
        for layer in self.layers:
            shape = layer.output_shape(shape)
        return shape

    def apply(self, params: Params, x: Array) -> Array:
        """The output of the last layer."""
        for name, layer in self.named_layers():
            x = layer.apply(params.get(name, {}), x)
        return x

    def forward(self, params: Params, x: Array) -> tuple[Array, tuple[Any, ...]]:
        """The output, and every layer's residuals."""
        kept = []
        for name, layer in self.named_layers():
            x, residuals = layer.forward(params.get(name, {}), x)
            kept.append(residuals)
        return x, tuple(kept)

    def backward(self, params: Params, residuals: tuple[Any, ...], delta: Array) -> Backward:
        """Layer by layer backwards."""
        gradients, deltas = self.backward_with_deltas(params, residuals, delta)
        return Backward(gradients, deltas["input"])

    def backward_with_deltas(
        self, params: Params, residuals: tuple[Any, ...], delta: Array
    ) -> tuple[Params, dict[str, Array]]:
        """Gradients by layer, and the delta of every layer's output, that of the network's input under "input"."""
        gradients: Params = {}
        deltas: dict[str, Array] = {}
        for name, layer, kept in reversed(list(zip(self.names, self.layers, residuals, strict=True))):
            deltas[name] = delta
            own, delta = layer.backward(params.get(name, {}), kept, delta)
            gradients |= {name: own} if own else {}
        deltas["input"] = delta
        return dict(reversed(gradients.items())), dict(reversed(deltas.items()))
