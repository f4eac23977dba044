"""Which form of a convolution rule serves on NVIDIA GPUs where lax's, cuDNN's, was measured to be slow.

`measured` is the time of lax's form against this one on an H200 (float32 with TF32, JAX 0.11.2, 64 images), from
`benchmarks/gpu/h200-forms.json`. Other dtypes and one or three axes were not measured, and stay lax's.
"""

from __future__ import annotations

import importlib

from jax import Array

from jaxcnnbp.ops.conv import forms as plain
from jaxcnnbp.ops.conv.cpu import depthwise
from jaxcnnbp.ops.conv.geometry import ConvGeometry
from jaxcnnbp.ops.conv.problem import Layer, Row


def _is_gapless(a: Layer) -> bool:
    return a.planar and a.gapless and a.few_taps


def _is_depthwise(a: Layer) -> bool:
    return _is_gapless(a) and a.depthwise


def _is_float32(a: Layer) -> bool:
    return a.itemsize == 4


FORWARD = (
    Row(
        depthwise.forward_by_padding,
        "depthwise 3x3, dilated 2, 128 channels on 56x56: 1394 -> 153 us",
        _is_depthwise,
        lambda a: _is_float32(a) and a.dilated,
    ),
    Row(
        depthwise.forward_by_shifts,
        "depthwise 3x3/2, 64 channels on 112x112: 180 -> 100 us",
        _is_depthwise,
        lambda a: _is_float32(a) and a.steps and a.taps <= 9,
    ),
)
INPUT_GRAD = (
    Row(
        depthwise.input_grad_by_padding,
        "depthwise 3x3, dilated 2: 1395 -> 153 us",
        _is_depthwise,
        lambda a: _is_float32(a) and a.dilated,
    ),
    Row(
        plain.input_grad_by_taps,
        "depthwise 3x3/2: 225 -> 174 us",
        _is_depthwise,
        lambda a: _is_float32(a) and a.steps and a.taps <= 9,
    ),
)
KERNEL_GRAD = (
    Row(
        depthwise.kernel_grad_by_products,
        "depthwise 3x3, dilated 2: 85950 -> 290 us; 7x7, 192 channels on 28x28: 2540 -> 729 us; but 3x3: 89 -> 376 us",
        _is_depthwise,
        # 5x5 was not measured.
        lambda a: _is_float32(a) and (a.dilated or a.taps > 25),
    ),
    Row(
        plain.kernel_grad_by_taps,
        "3x3, dilated 2, 256 channels on 65x65: 2272 -> 783 us",
        lambda a: _is_gapless(a) and a.dense,
        lambda a: _is_float32(a) and a.dilated,
    ),
)


def _by_pallas(name: str) -> Row:
    """A kernel of `pallas_kernels`, imported where it is asked for."""

    def form(a: Array, b: Array, geometry: ConvGeometry) -> Array:
        return getattr(importlib.import_module("jaxcnnbp.ops.pallas.kernels"), name)(a, b, geometry)

    form.__name__ = name
    return Row(form, "", lambda a: a.depthwise and a.planar and a.gapless, alone=True, platform="cuda")


# Not faster than XLA on every layer, so never chosen unasked.
BY_NAME = {
    "forward": (_by_pallas("forward_by_pallas"),),
    "input grad": (_by_pallas("input_grad_by_pallas"),),
    "kernel grad": (_by_pallas("kernel_grad_by_pallas"),),
}
