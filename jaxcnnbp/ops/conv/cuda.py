"""What serves on NVIDIA GPUs where lax's convolution, cuDNN's, was measured to be slow, and what can be asked for.

`measured` is the time of lax's against this one on an H200 (float32 with TF32, JAX 0.11.2, 64 images), from
`benchmarks/gpu`. Other dtypes and three axes were not measured, and stay lax's, but for transposed convolutions: there
it is XLA that writes the gaps into memory, whatever the dtype.
"""

from __future__ import annotations

import importlib
import math
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxcnnbp.ops.conv import forms as plain
from jaxcnnbp.ops.conv.cpu import depthwise, phases
from jaxcnnbp.ops.conv.geometry import ConvGeometry, Form, flip
from jaxcnnbp.ops.conv.problem import Condition, ConvProblem, Implementation


class Faster(NamedTuple):
    """An implementation that is faster than cuDNN's on some of what it supports.

    Attributes:
      implementation: the faster one.
      measured: cuDNN's time and this one's.
      where: of what it supports.
      any_dtype: whether its reason holds for all dtypes; else it serves float32, which was measured.
    """

    implementation: Implementation
    measured: str
    where: Condition = lambda _: True
    any_dtype: bool = False

    def serves(self, problem: ConvProblem) -> bool:
        """Whether it may serve there and was measured to be faster."""
        supported = self.implementation.serves(problem, partitioned=False)
        return supported and (self.any_dtype or problem.dtype == "float32") and self.where(problem)


def forward_by_strided(x: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """A convolution over gaps as the input gradient of a strided one, which XLA knows by the flip of its kernel.

    It is flipped twice, with a barrier in between: XLA would drop both.

    Source: `MatchBackwardInput`, https://github.com/openxla/xla, xla/service/gpu/transforms/conv_rewriter.cc.
    """
    rank = geometry.window.rank
    return plain.forward_by_lax(x, flip(lax.optimization_barrier(flip(kernel, rank)), rank), geometry)


def kernel_grad_by_strided(x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """The kernel gradient of that strided convolution, by lax."""
    return phases.transposed_kernel_grad(plain.kernel_grad_by_lax, x, delta, geometry)


_transposed = partial(Implementation, supports=lambda a: a.transposed and a.dense, platform="cuda")


def _depthwise(form: Form, rank: int = 2) -> Implementation:
    return Implementation(form, lambda a: a.depthwise and a.geometry.window.rank == rank and a.gapless and a.few_taps)


FORWARD = (
    Faster(
        _transposed(forward_by_strided),
        "transposed 4x4/2, 128 to 64 channels on 32x32: 381 -> 116 us; 2x2/2 on 56x56: 199 -> 100 us",
        any_dtype=True,
    ),
    Faster(
        _depthwise(depthwise.forward_by_padding),
        "depthwise 3x3, dilated 2, 128 channels on 56x56: 1394 -> 153 us",
        lambda a: a.dilated,
    ),
    Faster(
        _depthwise(depthwise.forward_by_padding, rank=1),
        "depthwise, 31 taps, 256 channels on 2048: 3890 -> 596 us",
        lambda a: a.taps > 25,  # fewer were not measured
    ),
)
INPUT_GRAD = (
    Faster(
        _depthwise(depthwise.input_grad_by_padding),
        "depthwise 3x3, dilated 2: 1395 -> 153 us",
        lambda a: a.dilated,
    ),
    Faster(
        _depthwise(depthwise.input_grad_by_padding, rank=1),
        "depthwise, 31 taps: 3880 -> 579 us",
        lambda a: a.taps > 25,
    ),
    Faster(
        _depthwise(plain.input_grad_by_taps),
        "depthwise 3x3/2: 223 -> 176 us",
        lambda a: a.has_stride and a.taps <= 9,
    ),
)
KERNEL_GRAD = (
    Faster(
        _transposed(kernel_grad_by_strided),
        "transposed 4x4/2: 1458 -> 139 us; 2x2/2: 2411 -> 101 us",
        any_dtype=True,
    ),
    Faster(
        _depthwise(depthwise.kernel_grad_by_products),
        "depthwise 3x3, dilated 2: 85950 -> 290 us; 7x7, 192 channels on 28x28: 2540 -> 729 us; but 3x3: 82 -> 383 us",
        lambda a: a.dilated or a.taps > 25,  # 5x5 was not measured
    ),
    Faster(
        _depthwise(plain.kernel_grad_by_taps, rank=1),
        "depthwise, 31 taps: 2149 -> 1232 us",
        lambda a: a.taps > 25,
    ),
    Faster(
        Implementation(plain.kernel_grad_by_taps, lambda a: a.dense and a.planar and a.gapless and a.few_taps),
        "3x3, dilated 2, 256 channels on 65x65: 2272 -> 783 us",
        lambda a: a.dilated,
    ),
)


def _has_pallas(problem: ConvProblem) -> bool:
    """One output a channel, over two axes without gaps whose cells an int32 counts, of real numbers."""
    is_real = jnp.issubdtype(jnp.dtype(problem.dtype), jnp.floating)
    is_counted = math.prod(problem.geometry.window.spatial) < 2**31
    return problem.depthwise and problem.planar and problem.gapless and is_real and is_counted


def _by_pallas(name: str) -> Implementation:
    """A kernel of `ops.pallas.kernels`, imported where it is asked for."""

    def form(a: Array, b: Array, geometry: ConvGeometry) -> Array:
        return getattr(importlib.import_module("jaxcnnbp.ops.pallas.kernels"), name)(a, b, geometry)

    form.__name__ = name
    return Implementation(form, _has_pallas, single_device=True, platform="cuda")


# Not faster than XLA on every layer, so never chosen unasked.
BY_NAME = {
    "forward": (_by_pallas("forward_by_pallas"),),
    "input grad": (_by_pallas("input_grad_by_pallas"),),
    "kernel grad": (_by_pallas("kernel_grad_by_pallas"),),
}
