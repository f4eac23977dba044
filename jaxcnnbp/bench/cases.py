"""The layers that are measured, as data: one line a case, from the networks that made them known.

Sizes are such that one pass by autodiff stays below about a second on two cores.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass

PASSES = ("forward", "input grad", "kernel grad", "together")


@dataclass(frozen=True)
class Case:
    """One layer: a convolution or a pool, its input, and nothing about how it is computed.

    Attributes:
      name: `network-layer`.
      op: "conv", "conv_transpose", "max_pool" or "avg_pool".
      shape: of the input, `(batch, *spatial, channels)`.
      window: taps of each spatial axis.
      features: channels of the output; a pool keeps those of its input.
      stride: of every axis.
      padding: zeros, or cells that never win, at both ends of every axis.
      dilation: of every axis.
      groups: of channels.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    window: tuple[int, ...]
    features: int = 0
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1

    @property
    def is_pool(self) -> bool:
        """Whether the layer has no kernel."""
        return self.op.endswith("pool")

    @property
    def rank(self) -> int:
        """Spatial axes."""
        return len(self.window)

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """`(*window, in // groups, out)`."""
        return (*self.window, self.shape[-1] // self.groups, self.features)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """`(batch, *spatial, channels)`."""
        size = self._transposed_size if self.op == "conv_transpose" else self._size
        spatial = (size(n, k) for n, k in zip(self.shape[1:-1], self.window, strict=True))
        return (self.shape[0], *spatial, self.features or self.shape[-1])

    def _size(self, n: int, k: int) -> int:
        return (n + 2 * self.padding - (k - 1) * self.dilation - 1) // self.stride + 1

    def _transposed_size(self, n: int, k: int) -> int:
        return (n - 1) * self.stride + k - 2 * self.padding

    @property
    def layer(self) -> str:
        """What a reader wants to know: `16x28x28x512 -> 128, 1x1/2`."""
        by = "x".join
        parts = [by(map(str, self.window)) + (f"/{self.stride}" if self.stride > 1 else "")]
        parts += [f"pad {self.padding}"] * (self.padding > 0) + [f"dilated {self.dilation}"] * (self.dilation > 1)
        if self.groups > 1:
            parts.append("depthwise" if self.groups == self.shape[-1] else f"{self.groups} groups")
        kind = {"conv": "", "conv_transpose": " transposed", "max_pool": " max", "avg_pool": " mean"}[self.op]
        to = f" -> {self.features}" if self.features else ""
        return f"{by(map(str, self.shape))}{to},{kind} {', '.join(parts)}"

    def work(self, step: str, itemsize: int) -> tuple[float, float]:
        """The least that one pass must do: floating-point operations, and bytes read and written.

        Taps that fall on padding count, so that an algorithm that leaves them out may exceed the limit by a little.
        """
        forward, carried, learned = self._traffic
        bytes_of = {"forward": forward, "input grad": carried, "kernel grad": learned, "together": forward}
        flops_of = {"together": 2 if self.is_pool else 3}
        elements = bytes_of[step] + (self._backward_traffic if step == "together" else 0)
        return flops_of.get(step, 1) * self._flops, elements * itemsize

    @property
    def _flops(self) -> float:
        positions = self.shape if self.op == "conv_transpose" else self.output_shape
        if self.is_pool:
            return float(math.prod(self.output_shape) * math.prod(self.window))
        return 2.0 * math.prod(positions[:-1]) * math.prod(self.kernel_shape)

    @property
    def _traffic(self) -> tuple[int, int, int]:
        x, y = math.prod(self.shape), math.prod(self.output_shape)
        kernel = 0 if self.is_pool else math.prod(self.kernel_shape)
        return x + kernel + y, y + kernel + x, x + y + kernel

    @property
    def _backward_traffic(self) -> int:
        """delta, the gradients, and what the rule multiplies them with."""
        x, y = math.prod(self.shape), math.prod(self.output_shape)
        return x + y if self.is_pool else 2 * x + y + 2 * math.prod(self.kernel_shape)

    @property
    def passes(self) -> tuple[str, ...]:
        """Those of `PASSES` that the layer has."""
        return tuple(step for step in PASSES if not (self.is_pool and step == "kernel grad"))

    def scaled(self, factor: float) -> Case:
        """The same layer on another number of images, at least one."""
        return dataclasses.replace(self, shape=(max(1, round(self.shape[0] * factor)), *self.shape[1:]))


def _conv(name: str, shape: Sequence[int], features: int, *window: int, **options: int) -> Case:
    return Case(name, "conv", tuple(shape), window, features, **options)


def _depthwise(name: str, shape: Sequence[int], *window: int, **options: int) -> Case:
    return Case(name, "conv", tuple(shape), window, shape[-1], groups=shape[-1], **options)


def _up(name: str, shape: Sequence[int], features: int, *window: int, **options: int) -> Case:
    return Case(name, "conv_transpose", tuple(shape), window, features, **options)


def _max(name: str, shape: Sequence[int], *window: int, **options: int) -> Case:
    return Case(name, "max_pool", tuple(shape), window, **options)


def _mean(name: str, shape: Sequence[int], *window: int, **options: int) -> Case:
    return Case(name, "avg_pool", tuple(shape), window, **options)


CASES: tuple[Case, ...] = (
    _conv("lenet-c1", (64, 32, 32, 1), 6, 5, 5),
    _conv("lenet-c2", (64, 14, 14, 6), 16, 5, 5),
    _conv("alexnet-c1", (16, 224, 224, 3), 64, 11, 11, stride=4, padding=2),
    _conv("alexnet-c2", (8, 27, 27, 64), 192, 5, 5, padding=2),
    _conv("alexnet-c3", (8, 13, 13, 192), 384, 3, 3, padding=1),
    _conv("vgg-c1", (2, 224, 224, 3), 64, 3, 3, padding=1),
    _conv("vgg-c2", (4, 112, 112, 64), 128, 3, 3, padding=1),
    _conv("vgg-c3", (2, 56, 56, 128), 256, 3, 3, padding=1),
    _conv("vgg-c4", (2, 28, 28, 256), 512, 3, 3, padding=1),
    _conv("vgg-c5", (4, 14, 14, 512), 512, 3, 3, padding=1),
    _conv("vgg-c5-one-image", (1, 14, 14, 512), 512, 3, 3, padding=1),
    _conv("googlenet-1x1", (16, 28, 28, 192), 64, 1, 1),
    _conv("googlenet-1x1-to-few", (16, 14, 14, 480), 16, 1, 1),
    _conv("googlenet-5x5-few", (16, 28, 28, 16), 32, 5, 5, padding=2),
    _conv("resnet-stem", (8, 224, 224, 3), 64, 7, 7, stride=2, padding=3),
    _conv("resnet-3x3", (16, 28, 28, 128), 128, 3, 3, padding=1),
    _conv("resnet-3x3-s2", (16, 56, 56, 128), 128, 3, 3, stride=2, padding=1),
    _conv("resnet-3x3-last", (16, 7, 7, 512), 512, 3, 3, padding=1),
    _conv("resnet-3x3-one-image", (1, 56, 56, 64), 64, 3, 3, padding=1),
    _conv("resnet-1x1", (16, 28, 28, 512), 128, 1, 1),
    _conv("resnet-1x1-widen", (16, 28, 28, 128), 512, 1, 1),
    _conv("resnet-1x1-s2", (16, 56, 56, 256), 512, 1, 1, stride=2),
    _conv("cifar-resnet-stem", (32, 32, 32, 3), 16, 3, 3, padding=1),
    _conv("cifar-resnet-3x3", (32, 32, 32, 16), 16, 3, 3, padding=1),
    _conv("small-4x4x512", (16, 4, 4, 512), 512, 3, 3, padding=1),
    _conv("small-2x2x512", (32, 2, 2, 512), 512, 3, 3, padding=1),
    _depthwise("mobilenet-dw", (8, 56, 56, 128), 3, 3, padding=1),
    _depthwise("mobilenet-dw-s2", (8, 112, 112, 64), 3, 3, stride=2, padding=1),
    _depthwise("mobilenet-dw-late", (16, 14, 14, 512), 3, 3, padding=1),
    _depthwise("mobilenet-dw-one-image", (1, 56, 56, 128), 3, 3, padding=1),
    _conv("mobilenet-stem", (8, 224, 224, 3), 32, 3, 3, stride=2, padding=1),
    _conv("mobilenet-pw", (8, 56, 56, 64), 128, 1, 1),
    _conv("mobilenet-pw-late", (16, 14, 14, 512), 512, 1, 1),
    _depthwise("efficientnet-dw-5x5-s2", (4, 56, 56, 144), 5, 5, stride=2, padding=2),
    _conv("convnext-stem", (8, 224, 224, 3), 96, 4, 4, stride=4),
    _depthwise("convnext-dw-7x7", (2, 56, 56, 96), 7, 7, padding=3),
    _depthwise("large-dw-31x31", (1, 28, 28, 64), 31, 31, padding=15),
    _conv("large-15x15", (4, 56, 56, 16), 16, 15, 15, padding=7),
    _conv("resnext-32-groups", (4, 14, 14, 256), 256, 3, 3, padding=1, groups=32),
    _conv("resnext-32-groups-s2", (4, 28, 28, 256), 256, 3, 3, stride=2, padding=1, groups=32),
    _conv("shufflenet-1x1-3-groups", (8, 28, 28, 240), 240, 1, 1, groups=3),
    _conv("deeplab-dilated-2", (8, 33, 33, 256), 256, 3, 3, padding=2, dilation=2),
    _conv("deeplab-dilated-12", (2, 33, 33, 256), 256, 3, 3, padding=12, dilation=12),
    _conv("unet-3x3-valid", (2, 68, 68, 64), 64, 3, 3),
    _up("unet-up-2x2-s2", (4, 28, 28, 256), 128, 2, 2, stride=2),
    _up("dcgan-up-4x4-s2", (16, 16, 16, 256), 128, 4, 4, stride=2, padding=1),
    _up("dcgan-up-4x4-last", (16, 32, 32, 64), 3, 4, 4, stride=2, padding=1),
    _conv("wavenet-1d-dilated-16", (4, 4096, 64), 128, 2, dilation=16),
    _conv("speech-1d-9", (16, 1000, 40), 64, 9, padding=4),
    _depthwise("conformer-1d-dw-31", (8, 400, 256), 31, padding=15),
    _conv("c3d-c1", (1, 16, 56, 56, 3), 64, 3, 3, 3, padding=1),
    _conv("c3d-c3", (1, 8, 28, 28, 64), 128, 3, 3, 3, padding=1),
    _max("lenet-max-2x2", (64, 28, 28, 6), 2, 2, stride=2),
    _mean("lenet-mean-2x2", (64, 28, 28, 6), 2, 2, stride=2),
    _max("alexnet-max-3x3-s2", (32, 55, 55, 64), 3, 3, stride=2),
    _max("vgg-max-2x2", (16, 112, 112, 64), 2, 2, stride=2),
    _max("vgg-max-2x2-late", (8, 14, 14, 512), 2, 2, stride=2),
    _max("googlenet-max-3x3-s1", (8, 28, 28, 192), 3, 3, padding=1),
    _max("resnet-max-3x3-s2", (8, 112, 112, 64), 3, 3, stride=2, padding=1),
    _max("yolo-max-5x5-s1", (4, 20, 20, 256), 5, 5, padding=2),
    _max("yolo-max-13x13-s1", (4, 13, 13, 256), 13, 13, padding=6),
    _max("dilated-max-3x3", (4, 33, 33, 128), 3, 3, padding=1, dilation=2),
    _max("audio-max-1d-2", (16, 4000, 64), 2, stride=2),
    _max("c3d-max-2x2x2", (1, 16, 56, 56, 64), 2, 2, 2, stride=2),
    _mean("resnet-mean-global", (32, 7, 7, 512), 7, 7),
    _mean("mean-14x14", (32, 28, 28, 32), 14, 14, stride=14),
    _mean("densenet-mean-2x2", (8, 28, 28, 256), 2, 2, stride=2),
    _mean("inception-mean-3x3-s1", (8, 17, 17, 192), 3, 3, padding=1),
    _mean("googlenet-mean-5x5-s3", (8, 14, 14, 512), 5, 5, stride=3),
    _mean("c3d-mean-2x2x2", (1, 16, 56, 56, 64), 2, 2, 2, stride=2),
)


def select(pattern: str, names: Sequence[str], argument: str = "cases") -> list[str]:
    """The names that match one of the shell patterns in `pattern`, which commas separate.

    Args:
      pattern: for instance `"resnet-*,*max*"`; a word that is no name stands for those that begin with it.
      names: to choose from.
      argument: what the pattern was given as, for the message.

    Returns:
      The matching names, in the order of `names`.

    Raises:
      ValueError: a pattern that matches nothing.

    Example:
      >>> select("vgg,*3x3", ["vgg-c1", "resnet-3x3", "lenet-c1"])
      ['vgg-c1', 'resnet-3x3']
    """
    wanted: set[str] = set()
    for word in [part.strip() for part in pattern.split(",") if part.strip()] or [pattern]:
        found = {name for name in names if fnmatch.fnmatchcase(name, word)}
        found = found or {name for name in names if name.startswith(f"{word}-")}
        if not found:
            raise ValueError(f"`{argument}` (={word!r}) matches none of: {', '.join(names)}.")
        wanted |= found
    return [name for name in names if name in wanted]
