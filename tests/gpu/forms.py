"""Every form of the three convolution rules that a layer admits: what a choice could be made from, on this device."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax import Array, lax

from jaxcnnbp.bench.cases import Case
from jaxcnnbp.bench.jax_side import arrays as drawn
from jaxcnnbp.bench.jax_side import call_of
from jaxcnnbp.ops import conv_choice, conv_forms, conv_groups, conv_strided
from jaxcnnbp.ops.conv_geometry import ConvGeometry
from jaxcnnbp.ops.conv_layer import Layer
from jaxcnnbp.ops.convolve import conv_geometry
from jaxcnnbp.ops.lax_layout import lax_convolution
from jaxcnnbp.timing import Plan
from jaxcnnbp.timing import side_by_side as timed
from tests.gpu.problems import CONVOLUTIONS, narrow, small
from tests.gpu.record import Record, side_by_side

Form = Callable[[Array, Array, ConvGeometry], Array]

STEPS = ("forward", "input grad", "kernel grad")
_TABLES = (conv_choice.FORWARD, conv_choice.INPUT_GRAD, conv_choice.KERNEL_GRAD)
_PLAIN: tuple[dict[str, Form], ...] = (
    {"lax": conv_forms.forward_by_lax, "taps": conv_forms.forward_by_taps},
    {"lax": conv_forms.input_grad_by_lax, "taps": conv_forms.input_grad_by_taps},
    {"lax": conv_forms.kernel_grad_by_lax, "taps": conv_forms.kernel_grad_by_taps},
)
_BY_GROUP = (conv_groups.forward_by_group, conv_groups.input_grad_by_group, conv_groups.kernel_grad_by_group)
# A loop over taps, rows or groups waits for the device in every turn.
_LOOPS = ("tap_rows", "by_group", "in_turn", "by_rows", "by_slices")


def geometry_of(case: Case) -> ConvGeometry:
    """The geometry of a layer of the bench."""
    pads = ((case.padding,) * 2,) * case.rank
    if case.op == "conv":
        x, kernel = (jax.ShapeDtypeStruct(s, np.float32) for s in (case.shape, case.kernel_shape))
        options = dict(stride=case.stride, padding=pads, dilation=case.dilation, groups=case.groups, mirrored=False)
        return conv_geometry(x, kernel, **options)
    axes = "HWD"[: case.rank]
    return lax_convolution(
        case.shape,
        case.kernel_shape,
        window_strides=(1,) * case.rank,
        padding=tuple((k - 1 - case.padding,) * 2 for k in case.window),
        lhs_dilation=(case.stride,) * case.rank,
        rhs_dilation=None,
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        feature_group_count=1,
        batch_group_count=1,
        precision=None,
        preferred_element_type=None,
    ).geometry


def candidates(case: Case, step: str, loops: bool) -> dict[str, Form]:
    """The forms by name: those of the tables whose condition holds, and the two plain ones."""
    place, geometry = STEPS.index(step), geometry_of(case)
    layer = Layer(geometry, case.kernel_shape[-2], case.features // case.groups, case.shape[0])
    found = dict(_PLAIN[place])
    for row in _TABLES[place]:
        if row.fits(layer) and not row.uncounted:
            found.setdefault(_name(row.form), row.form)
    if layer.grouped:
        found["groups side by side"] = functools.partial(_BY_GROUP[place], over=conv_groups.side_by_side)
    if layer.transposed and step == "kernel grad":
        found["sliced delta, lax"] = functools.partial(
            conv_strided.transposed_kernel_grad, conv_forms.kernel_grad_by_lax
        )
    return {name: form for name, form in found.items() if loops or not any(word in name for word in _LOOPS)}


def _name(form: Any) -> str:
    parts = [form.func, *form.args] if isinstance(form, functools.partial) else [form]
    return " of ".join(part.__name__ for part in parts)


def operands_of(x: Array, kernel: Array, delta: Array) -> dict[str, tuple[Array, Array]]:
    """Of each step."""
    return dict(zip(STEPS, ((x, kernel), (delta, kernel), (x, delta)), strict=True))


def in_every_form(case: Case, x: Array, kernel: Array, delta: Array) -> dict[str, dict[str, Array]]:
    """What each form makes of a layer, all in one program, in the dtype of the operands."""
    geometry = geometry_of(case)

    def run(x: Array, kernel: Array, delta: Array) -> dict[str, dict[str, Array]]:
        return {
            step: {
                name: lax.optimization_barrier(form(*pair, geometry).astype(x.dtype))
                for name, form in candidates(case, step, loops=True).items()
            }
            for step, pair in operands_of(x, kernel, delta).items()
        }

    return jax.jit(run)(x, kernel, delta)


def run(record: Record, dry: bool, workers: int, until: float) -> None:
    """The time of each form, of a layer call by call in turns."""
    layers = [narrow(small(case, 1, 5), 8) for case in CONVOLUTIONS[::6]] if dry else CONVOLUTIONS
    kinds = ("float32",) if dry else ("float32", "bfloat16")
    compiled: dict[tuple[str, str, str], dict[str, Any]] = {}

    def compile_step(key: tuple[Case, str, str]) -> None:
        case, dtype, step = key
        geometry = geometry_of(case)
        shapes = operands_of(
            *(jax.ShapeDtypeStruct(s, dtype) for s in (case.shape, case.kernel_shape, case.output_shape))
        )
        forms = candidates(case, step, loops=False)
        programs = {}
        for name, form in forms.items():
            narrowed = functools.partial(_narrowed, form, geometry)
            programs[name] = jax.jit(narrowed).lower(*shapes[step]).compile()
        compiled[case.name, dtype, step] = programs

    keys = [(case, dtype, step) for dtype in kinds for case in layers for step in STEPS]
    side_by_side(compile_step, keys, workers, until, record)
    for dtype in kinds:
        for case in layers:
            for row in _times(case, dtype, compiled, 0.01 if dry else 0.15):
                record.add(**row)


def _narrowed(form: Form, geometry: ConvGeometry, a: Array, b: Array) -> Array:
    return form(a, b, geometry).astype(a.dtype)


def _times(case: Case, dtype: str, compiled: dict, seconds: float) -> Iterator[dict[str, Any]]:
    operands = operands_of(*drawn(case, dtype))
    for step in STEPS:
        programs = compiled.get((case.name, dtype, step))
        if programs:
            calls = {name: call_of(program, operands[step]) for name, program in programs.items()}
            times = timed([calls], Plan(seconds * len(calls), least=3))
            yield {
                "name": f"{case.name}, {step}",
                "layer": case.layer,
                "dtype": dtype,
                "microseconds": {name: round(1e6 * t.median, 1) for name, t in times.items()},
            }
