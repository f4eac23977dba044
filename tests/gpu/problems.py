"""What is looked at on a GPU: a layer of each kind, large enough to fill the chip."""

from __future__ import annotations

import dataclasses

from jaxcnnbp.bench.cases import Case, select
from jaxcnnbp.bench.networks import LARGE, Network

CONVOLUTIONS = (
    Case("dense", "conv", (64, 56, 56, 64), (3, 3), 64, padding=1),
    Case("dense-late", "conv", (64, 14, 14, 256), (3, 3), 256, padding=1),
    Case("pointwise", "conv", (64, 28, 28, 512), (1, 1), 128),
    Case("stem", "conv", (64, 224, 224, 3), (7, 7), 64, stride=2, padding=3),
    Case("strided", "conv", (64, 56, 56, 128), (3, 3), 128, stride=2, padding=1),
    Case("pointwise-strided", "conv", (64, 56, 56, 256), (1, 1), 512, stride=2),
    Case("dilated", "conv", (16, 65, 65, 256), (3, 3), 256, padding=2, dilation=2),
    Case("grouped", "conv", (64, 28, 28, 256), (3, 3), 256, padding=1, groups=32),
    Case("grouped-strided", "conv", (64, 56, 56, 256), (3, 3), 256, stride=2, padding=1, groups=32),
    Case("two-groups", "conv", (64, 27, 27, 96), (5, 5), 256, padding=2, groups=2),
    Case("depthwise", "conv", (64, 56, 56, 128), (3, 3), 128, padding=1, groups=128),
    Case("depthwise-strided", "conv", (64, 112, 112, 64), (3, 3), 64, stride=2, padding=1, groups=64),
    Case("depthwise-dilated", "conv", (64, 56, 56, 128), (3, 3), 128, padding=2, dilation=2, groups=128),
    Case("depthwise-7x7", "conv", (64, 28, 28, 192), (7, 7), 192, padding=3, groups=192),
    Case("transposed", "conv_transpose", (64, 32, 32, 128), (4, 4), 64, stride=2, padding=1),
    Case("transposed-2x2", "conv_transpose", (32, 56, 56, 128), (2, 2), 64, stride=2),
    Case("one-axis", "conv", (64, 4096, 64), (9,), 128, padding=4),
    Case("one-axis-depthwise", "conv", (64, 2048, 256), (31,), 256, padding=15, groups=256),
    Case("volumes", "conv", (4, 16, 56, 56, 32), (3, 3, 3), 64, padding=1),
)
POOLS = (
    Case("max-2x2-s2", "max_pool", (64, 112, 112, 64), (2, 2), stride=2),
    Case("max-3x3-s2", "max_pool", (64, 112, 112, 64), (3, 3), stride=2, padding=1),
    Case("max-3x3-s1", "max_pool", (64, 28, 28, 192), (3, 3), padding=1),
    Case("max-5x5-s1", "max_pool", (64, 20, 20, 256), (5, 5), padding=2),
    Case("mean-2x2-s2", "avg_pool", (64, 56, 56, 256), (2, 2), stride=2),
    Case("mean-3x3-s1", "avg_pool", (64, 28, 28, 192), (3, 3), padding=1),
    Case("mean-global", "avg_pool", (64, 7, 7, 2048), (7, 7)),
)


def small(case: Case, images: int, most: int) -> Case:
    """The same kind of layer on fewer and smaller images."""
    spatial = (
        min(n, max(most, case.dilation * (k - 1) + 1)) for n, k in zip(case.shape[1:-1], case.window, strict=True)
    )
    return dataclasses.replace(case, shape=(images, *spatial, case.shape[-1]))


def narrow(case: Case, channels: int) -> Case:
    """The same layer with `channels` channels at the most; a group keeps as many as it had."""
    if case.shape[-1] <= channels:
        return case
    share = case.shape[-1] // channels
    groups = max(1, case.groups // share)
    return dataclasses.replace(case, shape=(*case.shape[:-1], channels), features=case.features // share, groups=groups)


def chosen(pattern: str | None, dry: bool) -> tuple[tuple[Case, ...], tuple[Network, ...]]:
    """The layers and the networks that a pattern names, all by default; few layers and no network dry."""
    layers, networks = CONVOLUTIONS + POOLS, LARGE
    if pattern is not None:
        names = select(pattern, [one.name for one in (*layers, *networks)])
        layers = tuple(one for one in layers if one.name in names)
        networks = tuple(one for one in networks if one.name in names)
    elif dry:
        layers = layers[::7]
    return layers, () if dry else networks
