"""A network as a model of this package's `nn`, where its layers are there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxcnnbp import nn
from jaxcnnbp.bench import networks as spec


def own_model(network: spec.Network) -> nn.Sequential | None:
    """The network in `nn`, or None if it has a layer that `nn` has not."""
    if not all(type(layer) in _BUILD for layer in network.layers):
        return None
    return nn.Sequential(tuple(_BUILD[type(layer)](layer) for layer in network.layers))


def _conv(layer: spec.Conv) -> nn.Conv:
    return nn.Conv(layer.features, layer.window, layer.stride, layer.padding, use_bias=layer.bias)


_BUILD: dict[type, Callable[[Any], Any]] = {
    spec.Conv: _conv,
    spec.Relu: lambda _: nn.Relu(),
    spec.MaxPool: lambda layer: nn.MaxPool(layer.window, layer.stride, layer.padding),
    spec.Flatten: lambda _: nn.Flatten(),
    spec.Dense: lambda layer: nn.Dense(layer.features),
}
