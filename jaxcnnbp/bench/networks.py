"""The networks whose training steps are measured, as data that each framework builds its own model from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class Conv:
    """A convolution; depthwise if it has no features of its own. A bias only where no normalisation follows."""

    features: int
    window: int
    stride: int = 1
    padding: int = 0
    bias: bool = True


@dataclass(frozen=True)
class Up:
    """A transposed convolution whose windows lie side by side."""

    features: int
    window: int


@dataclass(frozen=True)
class Norm:
    """Batch normalisation with running averages."""


@dataclass(frozen=True)
class Relu:
    """max(x, 0)."""


@dataclass(frozen=True)
class MaxPool:
    """Max pooling."""

    window: int
    stride: int
    padding: int = 0


@dataclass(frozen=True)
class MeanGlobal:
    """The mean over the image, `(batch, channels)`."""


@dataclass(frozen=True)
class Flatten:
    """`(batch, everything else)`."""


@dataclass(frozen=True)
class Dense:
    """A dense layer."""

    features: int


@dataclass(frozen=True)
class Residual:
    """body(x) + shortcut(x); a shortcut of no layers is x."""

    body: Layers
    shortcut: Layers = ()


@dataclass(frozen=True)
class Concat:
    """x beside inner(x), along the channels."""

    inner: Layers


Layer = Conv | Up | Norm | Relu | MaxPool | MeanGlobal | Flatten | Dense | Residual | Concat
Layers = tuple[Layer, ...]


@dataclass(frozen=True)
class Network:
    """A network and what it is trained on.

    Attributes:
      name: of the network.
      shape: of the images, `(batch, height, width, channels)`.
      layers: from image to logits.
      optimizer: "sgd" (momentum 0.9) or "adam".
    """

    name: str
    shape: tuple[int, int, int, int]
    layers: Layers
    optimizer: str = "sgd"

    @property
    def layer(self) -> str:
        """For reading."""
        return f"{'x'.join(map(str, self.shape))}, {self.optimizer}"

    def scaled(self, factor: float) -> Network:
        """The same network on another number of images, at least one."""
        return dataclasses.replace(self, shape=(max(1, round(self.shape[0] * factor)), *self.shape[1:]))


def _lenet() -> Layers:
    head = (Dense(120), Relu(), Dense(84), Relu(), Dense(10))
    return (Conv(6, 5, padding=2), Relu(), MaxPool(2, 2), Conv(16, 5), Relu(), MaxPool(2, 2), Flatten(), *head)


def _vgg() -> Layers:
    layers: Layers = ()
    for stage in ((64,), (128,), (256, 256), (512, 512), (512, 512)):
        layers += tuple(part for features in stage for part in (Conv(features, 3, padding=1), Relu()))
        layers += (MaxPool(2, 2),)
    return (*layers, Flatten(), Dense(512), Relu(), Dense(512), Relu(), Dense(10))


def _normed(features: int, window: int, stride: int = 1) -> Layers:
    return Conv(features, window, stride, window // 2, bias=False), Norm()


def _residual_block(features: int, stride: int, widens: bool) -> Layers:
    body = (*_normed(features, 3, stride), Relu(), *_normed(features, 3))
    return Residual(body, _normed(features, 1, stride) if widens else ()), Relu()


def _resnet() -> Layers:
    layers: Layers = (*_normed(64, 7, 2), Relu(), MaxPool(3, 2, 1))
    for features, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += _residual_block(features, stride, widens=stride > 1) + _residual_block(features, 1, widens=False)
    return (*layers, MeanGlobal(), Dense(10))


def _bottleneck(features: int, stride: int, widens: bool) -> Layers:
    body = (*_normed(features, 1), Relu(), *_normed(features, 3, stride), Relu(), *_normed(4 * features, 1))
    return Residual(body, _normed(4 * features, 1, stride) if widens else ()), Relu()


def _resnet50() -> Layers:
    layers: Layers = (*_normed(64, 7, 2), Relu(), MaxPool(3, 2, 1))
    for features, stride, blocks in ((64, 1, 3), (128, 2, 4), (256, 2, 6), (512, 2, 3)):
        layers += _bottleneck(features, stride, widens=True) + _bottleneck(features, 1, widens=False) * (blocks - 1)
    return (*layers, MeanGlobal(), Dense(1000))


def _mobilenet() -> Layers:
    layers: Layers = (*_normed(32, 3, 2), Relu())
    rows = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
    for features, stride in rows:
        layers += (*_normed(0, 3, stride), Relu(), *_normed(features, 1), Relu())
    return (*layers, MeanGlobal(), Dense(10))


def _unet(features: int = 32, depth: int = 3) -> Layers:
    pair = (Conv(features, 3, padding=1), Relu()) * 2
    if depth == 0:
        return pair
    inner = (MaxPool(2, 2), *_unet(2 * features, depth - 1), Up(features, 2))
    return (*pair, Concat(inner), *pair)


NETWORKS: tuple[Network, ...] = (
    Network("lenet-5", (64, 28, 28, 1), _lenet()),
    Network("vgg-11", (16, 32, 32, 3), _vgg()),
    Network("resnet-18", (8, 64, 64, 3), _resnet()),
    Network("mobilenet", (8, 64, 64, 3), _mobilenet(), "adam"),
    Network("u-net", (2, 64, 64, 3), (*_unet(), Conv(2, 1)), "adam"),
)
# What fills a GPU and would take minutes a step elsewhere.
LARGE: tuple[Network, ...] = (
    Network("resnet-50", (64, 224, 224, 3), _resnet50()),
    Network("mobilenet-224", (64, 224, 224, 3), _mobilenet(), "adam"),
    Network("u-net-256", (16, 256, 256, 3), (*_unet(64), Conv(2, 1)), "adam"),
)
