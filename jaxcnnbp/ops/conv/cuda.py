"""What serves on NVIDIA GPUs where lax's convolution, cuDNN's, was measured to be slow, and what can be asked for.

`measured` is the time of lax's against this one on an H200 (float32 with TF32, JAX 0.11.2, 64 images), from
`benchmarks/gpu/h200-forms.json`. Other dtypes and one or three axes were not measured, and stay lax's.
"""

from __future__ import annotations

import importlib
from functools import partial
from typing import NamedTuple

from jax import Array

from jaxcnnbp.ops.conv import forms as plain
from jaxcnnbp.ops.conv.cpu import depthwise
from jaxcnnbp.ops.conv.geometry import ConvGeometry
from jaxcnnbp.ops.conv.problem import Condition, ConvProblem, Implementation


class Faster(NamedTuple):
    """An implementation that is faster than cuDNN's on some of what it supports."""

    implementation: Implementation
    where: Condition
    measured: str

    def serves(self, problem: ConvProblem) -> bool:
        """Whether it may serve there and was measured to be faster."""
        supported = self.implementation.serves(problem, partitioned=False)
        return supported and problem.dtype == "float32" and self.where(problem)


def _is_gapless(a: ConvProblem) -> bool:
    return a.planar and a.gapless and a.few_taps


_depthwise = partial(Implementation, supports=lambda a: a.depthwise and _is_gapless(a))
_dense = partial(Implementation, supports=lambda a: a.dense and _is_gapless(a))

FORWARD = (
    Faster(
        _depthwise(depthwise.forward_by_padding),
        lambda a: a.dilated,
        "depthwise 3x3, dilated 2, 128 channels on 56x56: 1394 -> 153 us",
    ),
    Faster(
        _depthwise(depthwise.forward_by_shifts),
        lambda a: a.has_stride and a.taps <= 9,
        "depthwise 3x3/2, 64 channels on 112x112: 180 -> 100 us",
    ),
)
INPUT_GRAD = (
    Faster(
        _depthwise(depthwise.input_grad_by_padding),
        lambda a: a.dilated,
        "depthwise 3x3, dilated 2: 1395 -> 153 us",
    ),
    Faster(
        _depthwise(plain.input_grad_by_taps),
        lambda a: a.has_stride and a.taps <= 9,
        "depthwise 3x3/2: 225 -> 174 us",
    ),
)
KERNEL_GRAD = (
    Faster(
        _depthwise(depthwise.kernel_grad_by_products),
        lambda a: a.dilated or a.taps > 25,  # 5x5 was not measured
        "depthwise 3x3, dilated 2: 85950 -> 290 us; 7x7, 192 channels on 28x28: 2540 -> 729 us; but 3x3: 89 -> 376 us",
    ),
    Faster(
        _dense(plain.kernel_grad_by_taps),
        lambda a: a.dilated,
        "3x3, dilated 2, 256 channels on 65x65: 2272 -> 783 us",
    ),
)


def _by_pallas(name: str) -> Implementation:
    """A kernel of `pallas_kernels`, imported where it is asked for."""

    def form(a: Array, b: Array, geometry: ConvGeometry) -> Array:
        return getattr(importlib.import_module("jaxcnnbp.ops.pallas.kernels"), name)(a, b, geometry)

    form.__name__ = name
    return Implementation(form, lambda a: a.depthwise and a.planar and a.gapless, single_device=True, platform="cuda")


# Not faster than XLA on every layer, so never chosen unasked.
BY_NAME = {
    "forward": (_by_pallas("forward_by_pallas"),),
    "input grad": (_by_pallas("input_grad_by_pallas"),),
    "kernel grad": (_by_pallas("kernel_grad_by_pallas"),),
}
