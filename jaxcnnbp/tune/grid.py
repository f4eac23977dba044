"""Random layers as networks have them: from some a table is measured, on others it is judged."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from jaxcnnbp.geometry import parse_padding
from jaxcnnbp.geometry.window import Ints, Pairs, Window
from jaxcnnbp.ops.conv.geometry import ConvGeometry
from jaxcnnbp.ops.conv.problem import ConvProblem

CHANNELS = (1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 112, 128, 160, 192, 256, 320, 384, 512, 768)
EXTENTS = (2, 4, 5, 7, 8, 10, 13, 14, 16, 17, 20, 24, 28, 32, 36, 48, 56, 64, 80, 96, 112, 128, 160, 224)
IMAGES = (1, 1, 2, 4, 8, 8, 16, 32, 32, 64, 128)
STRIDES = (1, 1, 1, 2, 2, 3)
# What the networks that most people train are made of.
USUAL_CHANNELS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
USUAL_EXTENTS = (7, 8, 14, 16, 28, 32, 56, 64, 112)
# A layer of fewer products is all overhead; one of more takes long where only a plain loop supports it, and where XLA
# multiplies every group with every other, as for kernel gradients.
LEAST_PRODUCTS, MOST_PRODUCTS, MOST_OF_ALL_GROUPS, MOST_CELLS = 2e4, 2e9, 8e9, 8e6


class Kind(NamedTuple):
    """A kind of layer.

    Attributes:
      share: how often it is drawn, beside the others: the more ways of computing it differ, the more often.
      rank: number of spatial axes.
      sizes: windows, the same on every axis.
      extents: of the input.
    """

    share: int
    rank: int
    sizes: Ints
    extents: Ints = EXTENTS


_LINES = tuple(round(2 ** (n / 4)) for n in range(16, 57))
KINDS = {
    "usual": Kind(34, 2, (1, 1, 3, 3, 3, 3, 5), USUAL_EXTENTS),
    "dense": Kind(32, 2, (2, 3, 3, 3, 3, 4, 5, 5, 7, 8, 11)),
    "stem": Kind(18, 2, (3, 3, 4, 5, 7, 7, 8, 11), (28, 32, 48, 64, 84, 96, 128, 160, 224)),
    "pointwise": Kind(8, 2, (1,)),
    "depthwise": Kind(18, 2, (3, 3, 3, 5, 7, 9, 11, 15, 31)),
    "multiplied": Kind(10, 2, (2, 3, 3, 4, 5, 7, 11)),
    "grouped": Kind(22, 2, (1, 2, 3, 3, 3, 5, 7)),
    "line": Kind(12, 1, (3, 3, 5, 7, 9, 15, 31, 64), _LINES),
    "frames": Kind(6, 1, (16, 25, 32, 64, 80, 128, 256, 400), _LINES),
    "volume": Kind(20, 3, (1, 2, 3, 3, 3, 5), (4, 7, 8, 14, 16, 28, 32)),
    "transposed": Kind(8, 2, (2, 3, 4, 4, 5)),
}


class _Draw(NamedTuple):
    rng: np.random.Generator
    largest: float

    def one(self, options: Ints) -> int:
        """One of those that are not too large, the first if all are."""
        return int(self.rng.choice([o for o in options if o <= self.largest] or options[:1]))


def random_problem(rng: np.random.Generator, dtype: str, largest: int | None = None) -> ConvProblem:
    """A layer of a random kind; no extent, number of channels or images above `largest`, where a kind allows that."""
    draw, least = _Draw(rng, largest or MOST_CELLS), 1 if largest else LEAST_PRODUCTS
    shares = np.array([kind.share for kind in KINDS.values()])
    while True:
        problem = _drawn(draw, str(rng.choice(list(KINDS), p=shares / shares.sum())), dtype)
        window, groups = problem.geometry.window, problem.geometry.groups
        if min(window.output) < 1:
            continue
        cells = problem.images * math.prod(window.spatial) * problem.in_channels * groups
        outputs = problem.positions * problem.out_channels * groups
        if (
            least <= problem.products <= MOST_PRODUCTS
            and problem.products * groups <= MOST_OF_ALL_GROUPS
            and max(cells, outputs) <= MOST_CELLS
        ):
            return problem


def _drawn(draw: _Draw, name: str, dtype: str) -> ConvProblem:
    kind, ones = KINDS[name], (1,) * KINDS[name].rank
    groups, in_channels, out_channels = _channels(draw, name)
    size = (draw.one(kind.sizes),) * kind.rank
    if name == "dense" and draw.rng.random() < 0.12:  # 1x7 and 7x1, as Inception has them
        size = (1, size[1]) if draw.rng.random() < 0.5 else (size[0], 1)
    spatial = (draw.one(kind.extents),) * kind.rank
    if name == "usual":
        stride = (draw.one((1, 1, 1, 2)),) * 2
        window = Window(spatial, size, stride, parse_padding("SAME", spatial, size, stride), ones, ones)
        return ConvProblem(
            ConvGeometry(window, groups, exact=False), in_channels, out_channels, draw.one(IMAGES), dtype
        )
    if kind.rank == 2 and draw.rng.random() < 0.3:
        spatial = (spatial[0], draw.one(kind.extents))
    # Others tile, or overlap by half: 8x8/4 and 4x4/2, as networks that read games have them.
    stride = (draw.one((*STRIDES, *STRIDES, size[0], size[0], size[0], max(1, size[0] // 2))),) * kind.rank
    dilation = (draw.one((2, 3, 4)) if draw.rng.random() < 0.08 else 1,) * kind.rank
    gaps = ones
    if name == "frames":
        stride, dilation = (max(1, size[0] // draw.one((1, 2, 4, 4, 8))),), ones
    if name == "transposed":
        gaps, stride, dilation = (draw.one((2, 2, 3, 4)),) * kind.rank, ones, ones
    extent = tuple((k - 1) * d + 1 for k, d in zip(size, dilation, strict=True))
    padding = _full(draw, extent) if name == "transposed" else _padding(draw, spatial, extent, stride)
    window = Window(spatial, size, stride, padding, dilation, gaps)
    return ConvProblem(ConvGeometry(window, groups, exact=False), in_channels, out_channels, draw.one(IMAGES), dtype)


def _channels(draw: _Draw, name: str) -> Ints:
    """Groups, and the channels that each reads and writes."""
    if name == "usual":
        reads = draw.one(USUAL_CHANNELS)
        if draw.rng.random() < 0.2:
            return reads, 1, 1
        return 1, reads, draw.one((reads, reads, 2 * reads, max(1, reads // 2), 4 * reads))
    reads, writes = draw.one(CHANNELS), draw.one(CHANNELS)
    if name == "stem":
        return 1, draw.one((1, 2, 3, 3, 3, 4)), draw.one(USUAL_CHANNELS[:6])
    if name == "depthwise":
        return reads, 1, 1
    if name == "multiplied":
        few = draw.rng.random() < 0.3
        return (draw.one((1, 2, 3)), 1, writes) if few else (reads, 1, draw.one((2, 3, 4, 8)))
    if name == "grouped":
        groups = draw.one((2, 2, 3, 4, 8, 8, 16, 32, 64))
        reads, writes = max(1, reads // groups), max(1, writes // groups)
        return groups, reads, reads if draw.rng.random() < 0.5 else writes
    if name == "frames":
        return 1, draw.one((1, 1, 2)), draw.one((8, 16, 32, 64, 128, 130, 257, 402))
    return 1, reads, reads if draw.rng.random() < 0.35 else writes


def _padding(draw: _Draw, spatial: Ints, extent: Ints, stride: Ints) -> Pairs:
    way = draw.rng.random()
    if way < 0.55:
        return parse_padding("SAME", spatial, extent, stride)
    around = 0 if way < 0.85 else int(draw.rng.integers(0, max(extent)))
    return ((around, around),) * len(spatial)


def _full(draw: _Draw, extent: Ints) -> Pairs:
    """What the input gradient of a strided convolution pads, which was padded less than its window spans."""
    cut = int(draw.rng.integers(0, extent[0]))
    around = [e - 1 - min(cut, e - 1) for e in extent]
    return tuple((n, n) for n in around)
