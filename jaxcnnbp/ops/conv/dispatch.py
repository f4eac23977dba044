"""The implementations of the three passes of a convolution, and what chooses between them.

`FORWARD`, `INPUT_GRAD` and `KERNEL_GRAD` list what can compute a pass on a CPU, each with the convolutions that it is
right for; which of them is fast is not written here but measured (`serving`). It is decided when a program is lowered,
for each platform: on GPUs and TPUs `lax.conv_general_dilated`, the vendor's library, serves, but for the few
geometries of `cuda`.
"""

from __future__ import annotations

import functools
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxcnnbp.modes import chosen_implementation
from jaxcnnbp.ops._dtypes import cast
from jaxcnnbp.ops._sharding import may_be_partitioned, zeros_varying_like
from jaxcnnbp.ops._xla_cpu import apart
from jaxcnnbp.ops.conv import cuda, partitioned
from jaxcnnbp.ops.conv import forms as plain
from jaxcnnbp.ops.conv.cpu import (
    column_blocks,
    depthwise,
    direct,
    grouped,
    im2col,
    phases,
    row_packing,
    volumes,
    winograd,
)
from jaxcnnbp.ops.conv.geometry import ConvGeometry, Form
from jaxcnnbp.ops.conv.problem import Condition, ConvProblem, Implementation, Spread
from jaxcnnbp.ops.conv.serving import Asked, Pass
from jaxcnnbp.ops.conv.tuning import in_force
from jaxcnnbp.ops.finite import where_finite
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


def _by_lax(form: Form, laid_out: Form) -> tuple[Implementation, ...]:
    """lax's own convolution, and what stands in for it where groups meet a NaN.

    XLA makes one dense convolution of all groups, with zeros between them; over several devices it sums wrongly.
    """

    def of_lax(form: Form, supports: Condition, spreads: Spread = Spread.NOWHERE) -> Implementation:
        return Implementation(form, lambda a: supports(a) and not a.has_single_cells, True, spreads, uncounted=True)

    return (
        of_lax(laid_out, lambda a: a.has_axes and a.dense),
        of_lax(form, lambda a: a.dense),
        of_lax(laid_out, lambda a: not a.dense, Spread.MENDED),
        of_lax(partial(grouped.in_turn, laid_out), lambda a: not a.dense),
    )


def _anywhere(by_tap_groups: Form, by_taps: Form) -> tuple[Implementation, ...]:
    """The rule's own formula, tap by tap, which also serves arrays that lie on several devices."""
    return (
        Implementation(by_tap_groups, lambda a: not a.few_taps),
        Implementation(by_taps, lambda _: True, uncounted=True),
    )


def _by_winograd(form: Form, tiles: winograd.Tiles) -> Implementation:
    return Implementation(form, lambda a: winograd.fits(a.geometry, tiles), single_device=True, spreads=Spread.IN_TILES)


FORWARD = (
    *_by_lax(plain.forward_by_lax, plain.forward_by_lax),
    Implementation(plain.forward_by_eigen, lambda a: a.keeps_or_shrinks, single_device=True),
    Implementation(
        partial(phases.transposed_forward, input_grad_of_parts),
        lambda a: a.transposed and a.dense,
    ),
    Implementation(depthwise.forward_by_shifts, lambda a: a.depthwise and a.gapless and a.few_taps),
    Implementation(depthwise.forward_by_padding, lambda a: a.of_single_channels and a.few_taps),
    Implementation(
        direct.forward_direct,
        lambda a: a.gapless and a.few_inputs and not (a.of_single_channels and a.has_stride),
        single_device=True,
    ),
    Implementation(depthwise.forward_by_tap_rows, lambda a: a.of_single_channels and a.many_rows),
    Implementation(
        column_blocks.forward_by_columns, lambda a: a.has_columns, single_device=True, spreads=Spread.MENDED
    ),
    Implementation(partial(volumes.forward_by_slices, forward_of_parts), lambda a: a.volumetric and a.dense),
    Implementation(row_packing.forward_in_long_rows, lambda a: a.planar and a.dense and a.gapless, single_device=True),
    _by_winograd(winograd.forward_by_winograd, winograd.TILES_2X2),
    _by_winograd(winograd.forward_by_winograd_4x4, winograd.TILES_4X4),
    Implementation(partial(grouped.each_group, forward_of_parts), lambda a: a.few_groups),
    Implementation(im2col.forward_by_patches, lambda a: a.has_patches),
    *_anywhere(partitioned.forward_by_tap_groups, plain.forward_by_taps),
)
INPUT_GRAD = (
    *_by_lax(plain.input_grad_by_lax, plain.input_grad_as_forward),
    Implementation(plain.input_grad_by_eigen, lambda a: a.keeps_or_grows, single_device=True),
    Implementation(depthwise.input_grad_by_shifts, lambda a: a.depthwise and a.gapless and a.few_taps),
    Implementation(depthwise.input_grad_by_padding, lambda a: a.depthwise and a.few_taps),
    Implementation(
        direct.input_grad_direct,
        lambda a: a.gapless and a.few_outputs and not a.has_stride and (a.in_channels > 1 or a.depthwise),
        single_device=True,
    ),
    Implementation(depthwise.input_grad_by_tap_rows, lambda a: a.depthwise and a.many_rows),
    Implementation(column_blocks.input_grad_by_columns, lambda a: a.has_columns or a.has_frames, spreads=Spread.MENDED),
    Implementation(partial(volumes.input_grad_by_slices, forward_of_parts), lambda a: a.volumetric and a.dense),
    Implementation(im2col.input_grad_by_patches_of_delta, lambda a: a.dense and a.few_taps, single_device=True),
    Implementation(
        row_packing.input_grad_in_long_rows,
        lambda a: a.planar and a.dense and not a.has_stride,
        single_device=True,
    ),
    _by_winograd(winograd.input_grad_by_winograd, winograd.TILES_2X2),
    _by_winograd(winograd.input_grad_by_winograd_4x4, winograd.TILES_4X4),
    Implementation(
        partial(phases.input_grad_by_depth_to_space, forward_of_parts),
        lambda a: a.strided_undilated and not a.depthwise,
        spreads=Spread.MENDED,
    ),
    Implementation(
        grouped.input_grad_side_by_side,
        lambda a: a.grouped and a.in_channels == 1 and a.few_taps and a.gapless,
        single_device=True,
    ),
    Implementation(partial(grouped.each_group, input_grad_of_parts), lambda a: a.few_groups),
    Implementation(
        partial(grouped.input_grad_merged, input_grad_of_parts),
        lambda a: a.grouped and grouped.merged_groups(a.geometry.groups, a.in_channels, a.out_channels) > 1,
        spreads=Spread.MENDED,
    ),
    Implementation(im2col.input_grad_by_patches, lambda a: a.has_patches),
    *_anywhere(partitioned.input_grad_by_tap_groups, plain.input_grad_by_taps),
)
KERNEL_GRAD = (
    *_by_lax(plain.kernel_grad_by_lax, plain.kernel_grad_as_forward),
    Implementation(
        partial(phases.transposed_kernel_grad, im2col.kernel_grad_by_patches),
        lambda a: a.transposed and a.dense and a.few_taps,
        single_device=True,
        spreads=Spread.MENDED,
    ),
    Implementation(column_blocks.kernel_grad_by_columns, lambda a: a.has_columns, single_device=True),
    Implementation(column_blocks.kernel_grad_by_pairs, lambda a: a.has_columns, single_device=True),
    Implementation(
        depthwise.kernel_grad_by_rows,
        lambda a: a.of_single_channels and a.has_axes and a.few_taps,
        single_device=True,
    ),
    Implementation(
        depthwise.kernel_grad_by_products,
        lambda a: a.depthwise and a.planar and a.gapless and a.few_taps,
        single_device=True,
    ),
    Implementation(
        direct.kernel_grad_direct,
        lambda a: not a.dense and a.gapless and a.few_inputs and direct.has_strips(a.geometry.window),
        single_device=True,
    ),
    Implementation(depthwise.kernel_grad_by_tap_rows, lambda a: a.depthwise and a.many_rows, single_device=True),
    _by_winograd(winograd.kernel_grad_by_winograd, winograd.TILES_2X2),
    _by_winograd(winograd.kernel_grad_by_winograd_4x4, winograd.TILES_4X4),
    Implementation(partial(volumes.kernel_grad_by_slices, kernel_grad_of_parts), lambda a: a.volumetric and a.dense),
    Implementation(partial(grouped.each_group, kernel_grad_of_parts), lambda a: a.few_groups),
    Implementation(im2col.kernel_grad_by_patches, lambda a: a.has_patches, single_device=True),
    # Few channels, where a matrix product a tap has little to do and the patches are not worth a loop over images.
    Implementation(im2col.kernel_grad_by_patches, lambda a: a.dense and a.few_taps and a.in_channels <= 8),
    *_anywhere(partitioned.kernel_grad_by_tap_groups, plain.kernel_grad_by_taps),
)


@functools.cache
def passes() -> dict[str, Pass]:
    """The three passes of a convolution, by name, each with all that can compute it."""
    rows = (
        ("forward", FORWARD, cuda.FORWARD, plain.forward_by_lax),
        ("input grad", INPUT_GRAD, cuda.INPUT_GRAD, plain.input_grad_by_lax),
        ("kernel grad", KERNEL_GRAD, cuda.KERNEL_GRAD, plain.kernel_grad_by_lax),
    )
    return {name: Pass(name, on_cpu, on_cuda, cuda.BY_NAME[name], by_lax) for name, on_cpu, on_cuda, by_lax in rows}


def choose_forward(x: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """The output, in the dtype asked for."""
    problem = _problem(geometry, x, kernel.shape[-2], kernel.shape[-1] // geometry.groups)
    shape = geometry.output_shape(x.shape[0], kernel.shape[-1])
    result = jax.ShapeDtypeStruct(shape, jnp.dtype(geometry.output_dtype or x.dtype))
    return _by_platform("forward", problem, x, kernel, result)


def choose_input_grad(delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """dx, in the dtype of the operands."""
    problem = _problem(geometry, delta, kernel.shape[-2], kernel.shape[-1] // geometry.groups)
    shape = (delta.shape[0], *geometry.window.spatial, kernel.shape[-2] * geometry.groups)
    return _by_platform("input grad", problem, delta, kernel, jax.ShapeDtypeStruct(shape, delta.dtype))


def choose_kernel_grad(x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """dk, in the dtype of the operands."""
    problem = _problem(geometry, x, *(a.shape[-1] // geometry.groups for a in (x, delta)))
    result = jax.ShapeDtypeStruct(geometry.kernel_shape(x.shape[-1], delta.shape[-1]), x.dtype)
    return _by_platform("kernel grad", problem, x, delta, result)


def _problem(geometry: ConvGeometry, images: Array, in_channels: int, out_channels: int) -> ConvProblem:
    return ConvProblem(geometry, in_channels, out_channels, images.shape[0], images.dtype.name)


def _by_platform(name: str, problem: ConvProblem, a: Array, b: Array, result: jax.ShapeDtypeStruct) -> Array:
    asked = Asked(passes()[name], problem, may_be_partitioned(a), chosen_implementation.value, in_force())
    chosen = asked.served()
    if recording.value is not None and recording.value.takes(asked):
        return zeros_varying_like(result, a, b)
    mended, everywhere = chosen.on_cpu.spreads is Spread.MENDED, asked.implementation not in (None, "xla")
    exact = chosen.exact if mended else chosen.on_cpu
    of_each = chosen.on_cpu.form, exact.form, chosen.on_cuda.form, chosen.elsewhere.form
    forms = Forms(*of_each, mended, everywhere, asked.partitioned)
    if forms.on_cpu is forms.on_cuda is forms.elsewhere and not forms.mended:
        return _run(forms.on_cpu, problem.geometry, result, a, b)
    return _by_forms(forms, problem.geometry, result, a, b)


class Forms(NamedTuple):
    """What serves one convolution."""

    on_cpu: Form
    exact: Form  # where numbers are not finite, if `mended`
    on_cuda: Form
    elsewhere: Form
    mended: bool
    everywhere: bool  # `on_cpu` was asked for by name, on whatever platform, and is mended there too
    partitioned: bool  # the arrays may lie on several devices


# A program of its own, which is traced and lowered once for all convolutions alike: a form may write out many taps.
@partial(jax.jit, static_argnums=(0, 1, 2))
def _by_forms(forms: Forms, geometry: ConvGeometry, result: jax.ShapeDtypeStruct, a: Array, b: Array) -> Array:
    fast, right, on_cuda, elsewhere = (partial(_run, form, geometry, result) for form in forms[:4])

    def on_cpu(a: Array, b: Array) -> Array:
        return where_finite(fast, right, a, b, result.size) if forms.mended else fast(a, b)

    if forms.everywhere and forms.on_cpu is forms.on_cuda is forms.elsewhere:
        return on_cpu(a, b)
    by_platform = {} if forms.on_cuda is forms.elsewhere else {"cuda": on_cuda}
    alone = on_cpu if forms.partitioned else apart(jax.jit(on_cpu))
    return lax.platform_dependent(a, b, cpu=alone, default=elsewhere, **by_platform)


def _run(form: Form, geometry: ConvGeometry, result: jax.ShapeDtypeStruct, a: Array, b: Array) -> Array:
    return cast(form(a, b, geometry), result.dtype)
