"""Which form of a convolution rule serves which geometry on which platform, decided when the program is lowered.

A row is taken if it fits (the form is right there) and pays (it is faster there); the first such row wins, and
`lax.conv_general_dilated` serves the rest. On GPUs and TPUs it serves everything, by the vendor's library, but for the
few geometries of `cuda`.

`measured` is the time of lax's form against this one in the same process (2 cores, float32), with the layer.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxcnnbp.modes import chosen_implementation
from jaxcnnbp.ops.conv import cuda
from jaxcnnbp.ops.conv import forms as plain
from jaxcnnbp.ops.conv import partitioned as spread
from jaxcnnbp.ops.conv.cpu import column_blocks as columns
from jaxcnnbp.ops.conv.cpu import depthwise, grouped, volumes, winograd
from jaxcnnbp.ops.conv.cpu import im2col as patches
from jaxcnnbp.ops.conv.cpu import phases as strided
from jaxcnnbp.ops.conv.cpu import row_packing as long_rows
from jaxcnnbp.ops.conv.geometry import ConvGeometry
from jaxcnnbp.ops.conv.problem import Form, Layer, Row, Spread
from jaxcnnbp.ops.conv.serving import Pass, Served, served
from jaxcnnbp.ops.conv.serving import chosen_rows as chosen_rows
from jaxcnnbp.ops.devices import may_be_partitioned, zeros_varying_like
from jaxcnnbp.ops.finite import where_finite
from jaxcnnbp.ops.numerics import cast
from jaxcnnbp.ops.processor import has_short_vectors
from jaxcnnbp.recording import recording


def forward_of_parts(x: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """The forward rule again, over one axis less or of one group."""
    with chosen_implementation(None):
        return choose_forward(x, kernel, geometry)


def kernel_grad_of_parts(x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """The kernel gradient again, over one axis less or of one group."""
    with chosen_implementation(None):
        return choose_kernel_grad(x, delta, geometry)


def input_grad_of_parts(delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """The input gradient again: of one group, or of the strided convolution that a transposed one is made from."""
    with chosen_implementation(None):
        return choose_input_grad(delta, kernel, geometry)


def _groups_by_lax(form: Form) -> tuple[Row, Row]:
    """The last resort of groups: lax's own form, and the one that stands in where numbers are not finite."""
    row = partial(Row, fits=lambda a: not a.dense, alone=True, uncounted=True)
    zeros = "lax's own: XLA makes one dense convolution of all groups, with zeros between them"
    in_turn = partial(grouped.in_turn, form)
    return row(form, zeros, spreads=Spread.MENDED), row(in_turn, "where those zeros meet a NaN")


FORWARD = (
    Row(
        plain.forward_by_lax,
        "to compile: one axis of 1 to 1, 64 taps: 480 -> 26 ms",
        lambda a: a.dense and a.spatial and a.gapless,
        lambda a: a.little_for_lax,
        alone=True,
    ),
    Row(
        partial(strided.transposed_forward, input_grad_of_parts),
        "as the input gradient of the strided convolution that it is",
        lambda a: a.transposed and a.dense,
    ),
    Row(
        depthwise.forward_by_shifts,
        "depthwise 3x3: 64 -> 1.4 ms",
        lambda a: a.depthwise and a.gapless and a.few_taps,
        lambda a: a.taps <= 12,
    ),
    Row(
        depthwise.forward_by_padding,
        "depthwise 7x7: 77 -> 3.8 ms; 3x3, 1 to 128: 1.5 -> 0.7 ms",
        lambda a: a.depth == 1 and a.few_taps,
        lambda a: a.writes_taps_out,
    ),
    Row(
        depthwise.forward_by_tap_rows,
        "depthwise 31x31: 260 -> 20 ms; 11x11, 3 channels: compiles in 0.3 s for 0.8, but runs in 0.7 ms for 0.15",
        lambda a: a.depthwise and a.many_rows,
    ),
    Row(
        plain.forward_by_taps,
        "1x1, 512 to 128: 20 -> 4.6 ms",
        lambda a: a.pointwise and a.dense,
        lambda a: a.mixes_channels,
    ),
    Row(
        patches.forward_by_patches,
        "3x3 on 2x2, 256: 20 -> 1.1 ms",
        lambda a: a.dense and a.few_taps,
        lambda a: a.exceeds_input,
    ),
    Row(
        columns.forward_by_columns,
        "3x3/2, 3 to 32: 8.7 -> 4.2 ms; 3x3, 3 to 16 on 32x32: 1.1 -> 0.4 ms",
        lambda a: a.has_columns,
        lambda a: a.reads_little,
        alone=True,
        spreads=Spread.MENDED,
    ),
    Row(
        partial(volumes.forward_by_slices, forward_of_parts),
        "3x3x3, 16 to 32: 24 -> 10 ms",
        lambda a: a.volumes and a.dense,
        lambda a: a.width >= 16 or a.taps > 8,
    ),
    Row(
        patches.forward_by_patches,
        "float64: one axis of 64 to 64: 29 -> 3.5 ms; 3x3, 16 to 16: 1.5 -> 0.6 ms",
        lambda a: a.dense and a.few_taps,
        lambda a: a.runs_plain_loops,
        alone=True,
    ),
    Row(
        long_rows.forward_in_long_rows,
        "3x3, 64 to 64: 18.5 -> 11.2 ms on 8 images of 56x56, 2.3 -> 1.4 ms on one",
        lambda a: a.planar and a.dense and a.gapless,
        lambda a: a.has_short_rows,
        alone=True,
    ),
    Row(
        winograd.forward_by_winograd,
        "3x3, 14x14, 512 to 512: 41 -> 19 ms",
        lambda a: winograd.fits(a.geometry),
        lambda a: a.much_work and not a.has_long_rows,
        alone=True,
        spreads=Spread.IN_TILES,
    ),
    Row(
        patches.forward_by_patches,
        "3x3 on 7x7, 512, one image: 2.2 -> 1.7 ms; 3x3/2, 512 on 14x14: 2.4 -> 1.7 ms",
        lambda a: a.dense and a.few_taps,
        lambda a: a.few_to_read,
    ),
    Row(
        partial(grouped.each_group, forward_of_parts),
        "5x5, 2 groups of 48 to 128: 45 -> 23 ms; 1x1, 8 groups of 60: 2.5 -> 1.4 ms",
        lambda a: a.few_groups,
        lambda a: (a.shares_cells or not a.thin) and not a.few_to_multiply,
    ),
    Row(
        grouped.forward_by_group,
        "32 groups of 8: 39 -> 5.6 ms",
        lambda a: a.grouped and a.few_taps,
        lambda a: (a.shares_cells or not a.thin) and not a.few_to_multiply,
    ),
    *_groups_by_lax(plain.forward_by_lax),
)
INPUT_GRAD = (
    Row(
        plain.input_grad_as_forward,
        "to compile: one axis of 1 to 1, 64 taps: 540 -> 62 ms",
        # With a stride a NaN in the kernel would meet the zeros between the deltas.
        lambda a: a.dense and a.spatial and a.gapless and not a.steps,
        lambda a: a.little_for_lax,
        alone=True,
    ),
    Row(
        depthwise.input_grad_by_shifts,
        "depthwise 3x3: 65 -> 1.4 ms",
        lambda a: a.depthwise and a.gapless and a.few_taps,
        lambda a: a.taps <= 12,
    ),
    Row(
        depthwise.input_grad_by_padding,
        "depthwise 7x7: 78 -> 3.8 ms",
        lambda a: a.depthwise and a.few_taps,
        lambda a: not a.filters_images,
    ),
    Row(
        depthwise.input_grad_by_tap_rows,
        "depthwise 31x31: 264 -> 20 ms",
        lambda a: a.depthwise and a.many_rows,
    ),
    Row(
        plain.input_grad_by_taps,
        "1x1, 512 to 128: 8.6 -> 4.7 ms",
        lambda a: a.pointwise and a.dense,
        lambda a: a.mixes_channels,
    ),
    Row(
        columns.input_grad_by_columns,
        "LeNet-5, 5x5, 6 to 16: 1.7 -> 0.5 ms; 3x3x3, 3 to 64: 282 -> 16 ms",
        lambda a: a.has_columns,
        lambda a: a.little_to_send_back and not a.steps and (a.width <= 32 or a.volumes),
        spreads=Spread.MENDED,
    ),
    Row(
        columns.input_grad_by_columns,  # blocks of one column: no zeros
        "one axis of 1 to 402, 400 taps by 160: 119 -> 11 ms; to 130, 128 by 32: 12 -> 6 ms",
        lambda a: a.frames,
        lambda a: a.little_to_send_back,
    ),
    Row(
        patches.input_grad_by_patches,
        "3x3 on 2x2, 512: 280 -> 3.7 ms; 3x3, 3 to 64 on 112x112: 48 -> 7.3 ms",
        lambda a: a.dense and a.few_taps,
        lambda a: a.exceeds_output or (a.little_to_send_back and a.gapless),
    ),
    Row(
        partial(volumes.input_grad_by_slices, forward_of_parts),
        "3x3x3, 16 to 32: 46 -> 20 ms",
        lambda a: a.volumes and a.dense,
        lambda a: not a.strided and not a.few_to_send_back,
    ),
    Row(
        patches.input_grad_by_patches_of_delta,
        "float64: 3x3 without padding, 64 to 64: 58 -> 7 ms",
        lambda a: a.dense and a.few_taps,
        lambda a: a.carries_back_in_plain_loops,
        alone=True,
    ),
    Row(
        long_rows.input_grad_in_long_rows,
        "as the forward",
        lambda a: a.planar and a.dense and not a.steps,
        lambda a: a.carries_back_short_rows,
        alone=True,
    ),
    Row(
        winograd.input_grad_by_winograd,
        "as the forward",
        lambda a: winograd.fits(a.geometry),
        lambda a: a.much_work and not a.carries_back_long_rows,
        alone=True,
        spreads=Spread.IN_TILES,
    ),
    Row(
        patches.input_grad_by_patches,
        "3x3 on 7x7, 512, one image: 6.7 -> 1.8 ms; 256-bit vectors: 3x3/2, 32 to 32 on 28x28: 0.63 -> 0.32 ms",
        lambda a: a.dense and a.few_taps,
        lambda a: a.few_to_send_back or a.sends_back_in_short_vectors,
    ),
    Row(
        partial(strided.input_grad_by_depth_to_space, forward_of_parts),
        "7x7/2 of 3: 66 -> 19 ms",
        lambda a: a.strided and a.dense,
        lambda a: a.phases_as_channels and not a.zeros_are_cheap,
        spreads=Spread.MENDED,
    ),
    Row(
        partial(strided.input_grad_by_phases, forward_of_parts),
        "3x3/2, 128 to 128: 40 -> 19 ms",
        lambda a: a.strided and a.dense,
        lambda a: not a.zeros_are_cheap,
    ),
    Row(
        grouped.input_grad_side_by_side,
        "to compile: dense patches of 8x8/8, 3 channels: 1480 -> 480 ms; 7x7/2: 1670 -> 490 ms",
        lambda a: a.grouped and a.depth == 1 and a.few_taps and a.gapless,
        lambda a: a.few_to_multiply,
        alone=True,
    ),
    Row(
        partial(grouped.each_group, input_grad_of_parts),
        "5x5, 2 groups of 48 to 128: 75 -> 38 ms",
        lambda a: a.few_groups,
        lambda a: not (a.thin and a.pointwise and not a.steps) and not a.few_to_carry_back,
    ),
    Row(
        partial(strided.input_grad_by_depth_to_space, forward_of_parts),
        "3x3/2, 32 groups of 8: 8.3 -> 3.1 ms",
        lambda a: a.strided and a.grouped,
        lambda a: not a.pointwise and not a.few_to_carry_back,
        spreads=Spread.MENDED,
    ),
    Row(
        grouped.input_grad_by_group,
        "32 groups of 8: as the forward",
        lambda a: a.grouped and a.few_taps,
        lambda a: not (a.thin and a.pointwise and not a.steps) and not a.few_to_carry_back,
    ),
    Row(
        plain.input_grad_as_forward,
        "in a loop: 3x3, 32 to 32: 25 -> 2.0 ms; elsewhere the same",
        lambda a: a.spatial and a.dense,
        alone=True,
    ),
    *_groups_by_lax(plain.input_grad_as_forward),
)
KERNEL_GRAD = (
    Row(
        plain.kernel_grad_as_forward,
        "to compile: one axis of 1 to 1, 64 taps: 3000 -> 130 ms",
        lambda a: a.dense and a.spatial and a.gapless,
        lambda a: a.little_for_lax,
        alone=True,
    ),
    Row(
        partial(strided.transposed_kernel_grad, patches.kernel_grad_by_patches),
        "2x2 transposed: delta is sliced, not x dilated",
        lambda a: a.transposed and a.dense and a.few_taps,
        alone=True,
        spreads=Spread.MENDED,
    ),
    Row(plain.kernel_grad_by_taps, "1x1/2, 256 to 512: 182 -> 12 ms", lambda a: a.pointwise and a.dense),
    Row(
        columns.kernel_grad_by_columns,
        "3x3, 1 to 32 on 28x28: 3.3 -> 1.3 ms; 4x4/4, 3 to 96: 5.2 -> 2.2 ms",
        lambda a: a.has_columns,
        lambda a: a.corrects_from_columns,
        alone=True,
    ),
    Row(
        depthwise.kernel_grad_by_rows,
        "depthwise 3x3: 79 -> 7 ms",
        lambda a: a.depthwise and a.spatial and a.few_taps,
        lambda a: not a.filters_images,
        alone=True,
    ),
    Row(
        winograd.kernel_grad_by_winograd,
        "3x3, 14x14, 512 to 512: 41 -> 24 ms; 4x4, 256 to 512, 32 images: 15 -> 6.2 ms",
        lambda a: winograd.fits(a.geometry),
        lambda a: a.much_work,
        alone=True,
        spreads=Spread.IN_TILES,
    ),
    Row(
        patches.kernel_grad_by_patches,
        "3x3 on 4x4, 256, 8 images: 1.7 -> 1.5 ms, into the gradient as it lies",
        lambda a: a.dense and a.few_taps,
        lambda a: a.few_positions,
        alone=True,
    ),
    Row(
        partial(volumes.kernel_grad_by_slices, kernel_grad_of_parts),
        "3x3x3, 16 to 32: 44 -> 20 ms",
        lambda a: a.volumes and a.dense,
        lambda a: a.width >= 16 or a.taps > 8 or a.short_vectors,
    ),
    Row(
        patches.kernel_grad_by_patches,
        "float64: one axis of 64 to 64: 72 -> 5 ms",
        lambda a: a.dense and a.few_taps,
        lambda a: a.corrects_in_plain_loops,
        alone=True,
    ),
    Row(
        patches.kernel_grad_by_patches,
        "256-bit vectors: 3x3/2, 64 to 128 on 56x56: 21 -> 11 ms; 3x3, 64 to 64 on 68x68: 22 -> 11 ms",
        lambda a: a.dense and a.few_taps,
        lambda a: a.corrects_in_short_vectors,
        alone=True,
    ),
    Row(
        columns.kernel_grad_by_pairs,
        "3x3, 64 to 64 on 16x16: 3.4 -> 2.5 ms",
        lambda a: a.has_columns,
        lambda a: a.pairs_fill_cores,
        alone=True,
    ),
    Row(
        depthwise.kernel_grad_by_tap_rows,
        "depthwise 31x31: 219 -> 30 ms",
        lambda a: a.depthwise and a.many_rows,
        alone=True,
    ),
    Row(
        partial(grouped.each_group, kernel_grad_of_parts),
        "5x5, 2 groups of 48 to 128: 52 -> 26 ms",
        lambda a: a.few_groups,
    ),
    Row(
        grouped.kernel_grad_by_group,
        "32 groups of 8: 2685 -> 6 ms",
        lambda a: a.grouped and a.few_taps,
        alone=True,
    ),
    Row(
        plain.kernel_grad_as_forward,
        "in a loop: 3x3, 128 to 128: 1187 -> 43 ms; elsewhere the same",
        lambda a: a.spatial and a.dense,
        alone=True,
    ),
    *_groups_by_lax(plain.kernel_grad_as_forward),
)


def passes() -> dict[str, Pass]:
    """The three passes of a convolution, by name, each with all its tables."""
    rows = (
        ("forward", FORWARD, spread.FORWARD, cuda.FORWARD, plain.forward_by_lax),
        ("input grad", INPUT_GRAD, spread.INPUT_GRAD, cuda.INPUT_GRAD, plain.input_grad_by_lax),
        ("kernel grad", KERNEL_GRAD, spread.KERNEL_GRAD, cuda.KERNEL_GRAD, plain.kernel_grad_by_lax),
    )
    return {name: Pass(name, cpu, several, gpu, cuda.BY_NAME[name], by_lax) for name, cpu, several, gpu, by_lax in rows}


def choose_forward(x: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """The output, in the dtype asked for."""
    layer = _layer(geometry, x, kernel.shape[-2], kernel.shape[-1] // geometry.groups)
    shape = (x.shape[0], *geometry.window.output, kernel.shape[-1])
    result = jax.ShapeDtypeStruct(shape, jnp.dtype(geometry.output_dtype or x.dtype))
    return _by_platform("forward", layer, x, kernel, result)


def choose_input_grad(delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """dx, in the dtype of the operands."""
    layer = _layer(geometry, delta, kernel.shape[-2], kernel.shape[-1] // geometry.groups)
    shape = (delta.shape[0], *geometry.window.spatial, kernel.shape[-2] * geometry.groups)
    return _by_platform("input grad", layer, delta, kernel, jax.ShapeDtypeStruct(shape, delta.dtype))


def choose_kernel_grad(x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """dk, in the dtype of the operands."""
    layer = _layer(geometry, x, *(a.shape[-1] // geometry.groups for a in (x, delta)))
    result = jax.ShapeDtypeStruct(geometry.kernel_shape(x.shape[-1], delta.shape[-1]), x.dtype)
    return _by_platform("kernel grad", layer, x, delta, result)


def _layer(geometry: ConvGeometry, images: Array, depth: int, width: int) -> Layer:
    return Layer(geometry, depth, width, images.shape[0], images.dtype.itemsize, has_short_vectors())


class Problem(NamedTuple):
    """What there is to choose for one pass."""

    name: str  # of the pass
    layer: Layer
    whole: bool  # whether the arrays may lie on several devices
    asked: str | None  # by `implementation`

    def served(self, platform: str | None = None) -> Served:
        """What serves."""
        return served(passes()[self.name], self.layer, self.whole, self.asked, platform)


def _by_platform(name: str, layer: Layer, a: Array, b: Array, result: jax.ShapeDtypeStruct) -> Array:
    problem = Problem(name, layer, may_be_partitioned(a), chosen_implementation.value)
    rows = problem.served()
    if recording.value is not None and recording.value.takes(problem):
        return zeros_varying_like(result, a, b)
    mended, everywhere = rows.on_cpu.spreads is Spread.MENDED, problem.asked not in (None, "xla")
    forms = Forms(rows.on_cpu.form, rows.exact.form, rows.on_cuda.form, rows.elsewhere.form, mended, everywhere)
    if forms.on_cpu is forms.on_cuda is forms.elsewhere and not forms.mended:
        return _run(forms.on_cpu, layer.geometry, result, a, b)
    return _by_forms(forms, layer.geometry, result, a, b)


class Forms(NamedTuple):
    """What serves one convolution."""

    on_cpu: Form
    exact: Form  # where numbers are not finite, if `mended`
    on_cuda: Form
    elsewhere: Form
    mended: bool
    everywhere: bool  # `on_cpu` was asked for by name, on whatever platform, and is mended there too


# A program of its own, which is traced and lowered once for all convolutions alike: a form may write out many taps.
@partial(jax.jit, static_argnums=(0, 1, 2))
def _by_forms(forms: Forms, geometry: ConvGeometry, result: jax.ShapeDtypeStruct, a: Array, b: Array) -> Array:
    fast, right, on_cuda, elsewhere = (partial(_run, form, geometry, result) for form in forms[:4])

    def on_cpu(a: Array, b: Array) -> Array:
        return where_finite(fast, right, a, b, result.size) if forms.mended else fast(a, b)

    if forms.everywhere and forms.on_cpu is forms.on_cuda is forms.elsewhere:
        return on_cpu(a, b)
    by_platform = {} if forms.on_cuda is forms.elsewhere else {"cuda": on_cuda}
    return lax.platform_dependent(a, b, cpu=on_cpu, default=elsewhere, **by_platform)


def _run(form: Form, geometry: ConvGeometry, result: jax.ShapeDtypeStruct, a: Array, b: Array) -> Array:
    return cast(form(a, b, geometry), result.dtype)
