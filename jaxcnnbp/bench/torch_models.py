"""A network as a PyTorch model, built from `torch.nn` layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from jaxcnnbp.bench import networks as spec
from jaxcnnbp.bench.torch_side import device_of, layouts, torch_module

Forward = Callable[[Any], Any]
Shape = tuple[int, ...]  # (channels, height, width), or (features,)
Built = tuple[Forward, Shape, list[Any]]  # the function, the shape of what it returns, its modules


def torch_step(network: spec.Network, dtype: str, layout: str, rate: float) -> Callable[[], Any]:
    """One step of training on random images: loss, gradients, update."""
    torch = torch_module()
    memory_format = layouts(2)[layout]
    batch, height, width, channels = network.shape
    forward, outputs, modules = _build(network.layers, (channels, height, width))
    everything = torch.nn.ModuleList(modules).to(device_of(), getattr(torch, dtype), memory_format=memory_format)
    optimizer = _optimizer(network.optimizer, everything.parameters(), rate)
    images = torch.randn(batch, channels, height, width).to(device_of(), getattr(torch, dtype))
    images = images.contiguous(memory_format=memory_format)
    labels = torch.randint(0, outputs[0], (batch, *outputs[1:])).to(device_of())

    def step() -> Any:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(forward(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def _optimizer(name: str, parameters: Any, rate: float) -> Any:
    optim = torch_module().optim
    return optim.Adam(parameters, rate) if name == "adam" else optim.SGD(parameters, rate, momentum=0.9)


def _build(layers: spec.Layers, shape: Shape) -> Built:
    forwards: list[Forward] = []
    modules: list[Any] = []
    for layer in layers:
        forward, shape, inner = _BUILD[type(layer)](layer, shape)
        forwards.append(forward)
        modules += inner

    def walk(x: Any) -> Any:
        for forward in forwards:
            x = forward(x)
        return x

    return walk, shape, modules


def _conv(layer: spec.Conv, shape: Shape) -> Built:
    features, groups = layer.features or shape[0], 1 if layer.features else shape[0]
    module = torch_module().nn.Conv2d(
        shape[0], features, layer.window, layer.stride, layer.padding, groups=groups, bias=layer.bias
    )
    spatial = ((n + 2 * layer.padding - layer.window) // layer.stride + 1 for n in shape[1:])
    return module, (features, *spatial), [module]


def _up(layer: spec.Up, shape: Shape) -> Built:
    module = torch_module().nn.ConvTranspose2d(shape[0], layer.features, layer.window, layer.window)
    return module, (layer.features, *(layer.window * n for n in shape[1:])), [module]


def _norm(_: spec.Norm, shape: Shape) -> Built:
    module = torch_module().nn.BatchNorm2d(shape[0])
    return module, shape, [module]


def _max_pool(layer: spec.MaxPool, shape: Shape) -> Built:
    module = torch_module().nn.MaxPool2d(layer.window, layer.stride, layer.padding)
    spatial = ((n + 2 * layer.padding - layer.window) // layer.stride + 1 for n in shape[1:])
    return module, (shape[0], *spatial), []


def _flatten(_: spec.Flatten, shape: Shape) -> Built:
    return lambda x: x.flatten(1), (math.prod(shape),), []


def _dense(layer: spec.Dense, shape: Shape) -> Built:
    module = torch_module().nn.Linear(shape[0], layer.features)
    return module, (layer.features,), [module]


def _residual(layer: spec.Residual, shape: Shape) -> Built:
    body, after, modules = _build(layer.body, shape)
    shortcut, _, more = _build(layer.shortcut, shape)
    return lambda x: body(x) + shortcut(x), after, modules + more


def _concat(layer: spec.Concat, shape: Shape) -> Built:
    torch = torch_module()
    inner, after, modules = _build(layer.inner, shape)
    return lambda x: torch.cat([x, inner(x)], 1), (shape[0] + after[0], *after[1:]), modules


_BUILD: dict[type, Callable[[Any, Shape], Built]] = {
    spec.Conv: _conv,
    spec.Up: _up,
    spec.Norm: _norm,
    spec.Relu: lambda _, shape: (torch_module().nn.functional.relu, shape, []),
    spec.MaxPool: _max_pool,
    spec.MeanGlobal: lambda _, shape: (lambda x: x.mean((2, 3)), shape[:1], []),
    spec.Flatten: _flatten,
    spec.Dense: _dense,
    spec.Residual: _residual,
    spec.Concat: _concat,
}
