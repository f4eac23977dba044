"""Which form of a convolution rule serves which geometry on which platform, decided when the program is lowered.

A row is taken if its condition holds; the first such row wins, and `lax.conv_general_dilated` serves the rest. On
GPUs and TPUs every rule is lax's: there the vendor's libraries are ahead of anything written in JAX.

`measured` is the time of the form against lax's form in the same process (2 cores, float32), with the layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from jax import Array, lax
from jax.export import is_symbolic_dim

from jaxcnnbp.ops import conv_cpu_forms as cpu
from jaxcnnbp.ops import conv_forms as plain
from jaxcnnbp.ops import conv_groups as grouped
from jaxcnnbp.ops.conv_geometry import ConvGeometry, dual
from jaxcnnbp.ops.numerics import cast

Form = Callable[[Array, Array, ConvGeometry], Array]


@dataclass(frozen=True)
class Layer:
    """What a row's condition may ask about."""

    geometry: ConvGeometry
    depth: int  # input channels a group
    width: int  # output channels a group

    @property
    def spatial(self) -> bool:
        return self.geometry.window.rank > 0

    @property
    def pointwise(self) -> bool:
        return self.geometry.window.taps == 1

    @property
    def depthwise(self) -> bool:
        return self.depth == self.width == 1

    @property
    def dense(self) -> bool:
        return self.geometry.groups == 1

    @property
    def grouped(self) -> bool:
        return self.geometry.groups > 1 and self.depth * self.width > 1

    @property
    def strided(self) -> bool:
        """A stride that splits the input gradient into phases."""
        return max(self.geometry.window.stride, default=1) > 1 and not self.dilated

    @property
    def phases_as_channels(self) -> bool:
        """Few input channels, no products with zeros, or more phases than are quick to compile one by one."""
        window = self.geometry.window
        unfilled = all(k % s == 0 for k, s in zip(window.size, window.stride, strict=True))
        return self.depth < 16 or unfilled or math.prod(window.stride) > 16

    @property
    def transposed(self) -> bool:
        """A stride of one over a dilated input: the input gradient of a strided convolution."""
        window = self.geometry.window
        return max(window.input_dilation, default=1) > 1 and math.prod(window.stride) == math.prod(window.dilation) == 1

    @property
    def as_strided(self) -> Layer:
        """The strided convolution whose input gradient a transposed one is."""
        return Layer(dual(self.geometry), self.width, self.depth)

    @property
    def exceeds_input(self) -> bool:
        """A window that spans more than the whole input: XLA's convolution then runs a plain loop."""
        return any(e > n for e, n in zip(self.geometry.window.extent, self.geometry.window.dilated, strict=True))

    @property
    def exceeds_output(self) -> bool:
        """The same for the convolution that carries delta back."""
        return any(e > o for e, o in zip(self.geometry.window.extent, self.geometry.window.output, strict=True))

    @property
    def dilated(self) -> bool:
        window = self.geometry.window
        return math.prod(window.dilation) > 1 or math.prod(window.input_dilation) > 1


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    when: Callable[[Layer], bool]
    form: Form
    measured: str


def _few_taps(layer: Layer) -> bool:
    """Whether a form that writes its taps out one by one stays quick to compile."""
    return layer.geometry.window.taps <= 128


FORWARD = (
    Row(
        lambda a: a.transposed and a.dense, partial(cpu.transposed_forward, cpu.input_grad_by_phases), "see INPUT_GRAD"
    ),
    Row(lambda a: a.depth == 1 and _few_taps(a), cpu.forward_by_image, "depthwise 3x3: 64 -> 2.0 ms"),
    Row(lambda a: a.pointwise and a.dense, plain.forward_by_taps, "1x1, 512 to 128: 20 -> 4.6 ms"),
    Row(
        lambda a: a.exceeds_input and a.dense and _few_taps(a), plain.forward_by_taps, "3x3 on 2x2, 512: 385 -> 4.7 ms"
    ),
    Row(lambda a: a.grouped and _few_taps(a), grouped.forward_by_group, "32 groups of 8: 39 -> 5.6 ms"),
)
INPUT_GRAD = (
    Row(lambda a: a.depthwise and _few_taps(a), cpu.input_grad_by_image, "depthwise 3x3: 65 -> 1.9 ms"),
    Row(lambda a: a.pointwise and a.dense, plain.input_grad_by_taps, "1x1, 512 to 128: 8.6 -> 4.7 ms"),
    Row(lambda a: a.exceeds_output and a.dense and _few_taps(a), plain.input_grad_by_taps, "3x3 on 2x2: 385 -> 11 ms"),
    Row(
        lambda a: a.strided and a.dense and a.phases_as_channels,
        cpu.input_grad_by_depth_to_space,
        "7x7/2 of 3: 66 -> 19 ms",
    ),
    Row(lambda a: a.strided and a.dense, cpu.input_grad_by_phases, "3x3/2, 128 to 128: 40 -> 19 ms"),
    Row(lambda a: a.grouped and _few_taps(a), grouped.input_grad_by_group, "32 groups of 8: as the forward"),
)
KERNEL_GRAD = (
    Row(
        lambda a: a.transposed and a.dense and _few_taps(a),
        partial(cpu.transposed_kernel_grad, cpu.kernel_grad_by_rows),
        "2x2 transposed: delta is sliced, not x dilated",
    ),
    Row(lambda a: a.pointwise and a.dense, plain.kernel_grad_by_taps, "1x1/2, 256 to 512: 182 -> 12 ms"),
    Row(
        lambda a: a.depthwise and a.spatial and _few_taps(a),
        cpu.depthwise_kernel_grad_by_image,
        "depthwise 3x3: 39 -> 7 ms",
    ),
    Row(lambda a: a.grouped and _few_taps(a), grouped.kernel_grad_by_group, "32 groups of 8: 2685 -> 6 ms"),
    Row(lambda a: a.dense and a.depth >= 16 and _few_taps(a), cpu.kernel_grad_by_rows, "3x3, 64 to 128: 261 -> 107 ms"),
)


def choose_forward(x: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """The output, in the dtype asked for."""
    layer = Layer(geometry, kernel.shape[-2], kernel.shape[-1] // geometry.groups)
    dtype = geometry.output_dtype or x.dtype
    return _by_platform(FORWARD, plain.forward_by_lax, layer, x, kernel, dtype)


def choose_input_grad(delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """dx, in the dtype of the operands."""
    layer = Layer(geometry, kernel.shape[-2], kernel.shape[-1] // geometry.groups)
    return _by_platform(INPUT_GRAD, plain.input_grad_by_lax, layer, delta, kernel, delta.dtype)


def choose_kernel_grad(x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """dk, in the dtype of the operands."""
    layer = Layer(geometry, x.shape[-1] // geometry.groups, delta.shape[-1] // geometry.groups)
    return _by_platform(KERNEL_GRAD, plain.kernel_grad_by_lax, layer, x, delta, x.dtype)


def _by_platform(table: tuple[Row, ...], otherwise: Form, layer: Layer, a: Array, b: Array, dtype) -> Array:
    def run(form: Form, a: Array, b: Array) -> Array:
        return cast(form(a, b, layer.geometry), dtype)

    chosen = next((row.form for row in table if row.when(layer)), otherwise)
    # Forms that go over blocks of images need to know how many there are; under `jax.export` that may be a symbol.
    if chosen is otherwise or is_symbolic_dim(a.shape[0]):
        return run(otherwise, a, b)

    return lax.platform_dependent(a, b, cpu=partial(run, chosen), default=partial(run, otherwise))
