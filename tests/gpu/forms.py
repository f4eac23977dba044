"""Every form of the three convolution rules that a layer admits: what a choice could be made from, on this device."""

from __future__ import annotations

import functools
from collections.abc import Callable
from time import monotonic
from typing import Any

import jax
import numpy as np
from jax import Array, lax

from jaxcnnbp.bench.cases import Case
from jaxcnnbp.bench.jax_side import arrays as drawn
from jaxcnnbp.bench.jax_side import autodiff_layer
from jaxcnnbp.geometry import Window
from jaxcnnbp.ops.conv import dispatch
from jaxcnnbp.ops.conv.api import conv_geometry
from jaxcnnbp.ops.conv.geometry import ConvGeometry, Form
from jaxcnnbp.ops.conv.lax_layout import lax_convolution
from jaxcnnbp.ops.conv.problem import ConvProblem
from jaxcnnbp.ops.pallas import kernels as pallas_kernels
from jaxcnnbp.ops.pool import max as extreme_pool
from jaxcnnbp.ops.pool import max_blocks as extreme_blocks
from jaxcnnbp.ops.pool import window_max as extreme_fold
from jaxcnnbp.ops.pool.parse import parse_pool
from jaxcnnbp.timing import Plan, call_of
from jaxcnnbp.timing import side_by_side as timed
from tests.gpu.problems import narrow, small
from tests.gpu.record import Record, side_by_side

STEPS = ("forward", "input grad", "kernel grad")
# Loops over taps, rows or groups wait for the device in every turn, and blocks for the caches of a processor do nothing
# for it: measured once, every one of these took longer than lax's form, up to thirty times.
_FOR_CPUS = (
    *("tap_rows", "direct", "in_turn", "rows", "slices", "patches", "patches_of_delta"),
    *("winograd", "winograd_4x4", "long_rows", "pairs", "each_group", "eigen"),
)


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


def candidates(case: Case, step: str, for_cpus: bool) -> dict[str, Form]:
    """The forms by name: all that support the layer."""
    geometry = geometry_of(case)
    problem = ConvProblem(geometry, case.kernel_shape[-2], case.features // case.groups, case.shape[0])
    found = {row.name: row.form for row in dispatch.passes()[step].supporting(problem, False)}
    left_out = () if for_cpus else (*_FOR_CPUS, *(("columns",) if step != "input grad" else ()))
    return {name: form for name, form in found.items() if name not in left_out}


def operands_of(x: Array, kernel: Array, delta: Array) -> dict[str, tuple[Array, Array]]:
    """Of each step."""
    return dict(zip(STEPS, ((x, kernel), (delta, kernel), (x, delta)), strict=True))


def in_every_form(
    case: Case, x: Array, kernel: Array, delta: Array, compiled: Callable[..., Any]
) -> dict[str, dict[str, Array]]:
    """What each form makes of a layer, all in one program, in the dtype of the operands."""
    geometry = geometry_of(case)

    def run(x: Array, kernel: Array, delta: Array) -> dict[str, dict[str, Array]]:
        return {
            step: {
                name: lax.optimization_barrier(form(*pair, geometry).astype(x.dtype))
                for name, form in candidates(case, step, for_cpus=True).items()
            }
            for step, pair in operands_of(x, kernel, delta).items()
        }

    return compiled(run)(x, kernel, delta)


def run(record: Record, layers: tuple[Case, ...], dry: bool, workers: int, until: float) -> None:
    """The time of each form, call by call in turns, one layer after the other until the time is over."""
    layers = tuple(narrow(small(case, 1, 5), 8) for case in layers) if dry else layers
    kinds, seconds = (("float32",), 0.01) if dry else (("float32", "bfloat16"), 0.08)
    for dtype in kinds:
        for case in layers:
            if case.op == "avg_pool":
                continue
            if monotonic() > until:
                record.add(name=f"{case.name}, {dtype}", left_out="no time")
                continue
            for step, programs in _programs(case, dtype, workers, until, record).items():
                record.add(**_times(case, dtype, step, programs, seconds))


Programs = dict[str, tuple[Any, tuple[Array, ...]]]  # by the name of a form: compiled, and what it is called with


def _programs(case: Case, dtype: str, workers: int, until: float, record: Record) -> dict[str, Programs]:
    """By step; compiled side by side."""
    by_step = _pool_forms(case, dtype) if case.is_pool else _conv_forms(case, dtype)
    found: dict[str, Programs] = {step: {} for step in by_step}

    def compile_one(step: str, name: str, form: Callable[..., Any], args: tuple[Array, ...]) -> None:
        found[step][name] = jax.jit(form).lower(*args).compile(), args

    jobs = [
        (functools.partial(compile_one, step, name, form, args), f"{case.name}, {step}, {name}, {dtype}")
        for step, forms in by_step.items()
        for name, (form, args) in forms.items()
    ]
    side_by_side(jobs, workers, until, record)
    return {step: programs for step, programs in found.items() if programs}


def _conv_forms(case: Case, dtype: str) -> dict[str, dict[str, tuple[Callable[..., Any], tuple[Array, ...]]]]:
    operands, geometry = operands_of(*drawn(case, dtype)), geometry_of(case)

    def of(form: Form) -> Callable[..., Array]:
        return lambda a, b: form(a, b, geometry).astype(a.dtype)

    return {
        step: {name: (of(form), operands[step]) for name, form in candidates(case, step, for_cpus=False).items()}
        for step in STEPS
    }


def _pool_forms(case: Case, dtype: str) -> dict[str, dict[str, tuple[Callable[..., Any], tuple[Array, ...]]]]:
    """A maximum with its winners, and the way back to them; lax's is `select_and_scatter`, from the input."""
    x, _, delta = drawn(case, dtype)
    window = pool_window(case, x)
    taps = jax.jit(lambda x: extreme_fold.extremes_and_taps(x, window, "max")[1])(x)
    forward = {
        "values": lambda x: extreme_fold.extremes(x, window, "max"),
        "values and taps": lambda x: extreme_pool.winners(x, window, "max"),
        "by axis": lambda x: extreme_fold._one_axis_after_the_other(x, window, "max"),
        "at once": lambda x: extreme_fold._all_axes_at_once(x, window, "max"),
        "lax": autodiff_layer(case),
    }
    back = {
        "to winners": (lambda d, t: extreme_pool.send_to_winners(d, t, window), (delta, taps)),
        "blocks": (lambda d, t: extreme_blocks.send_to_blocks(d, t, window), (delta, taps)),
        "lax": (lambda d, x: jax.vjp(autodiff_layer(case), x)[1](d)[0], (delta, x)),
    }
    # Every tap of every row of a tile is written out: 169 taps did not compile in two minutes.
    if jax.default_backend() == "gpu" and window.rank == 2 and window.taps <= 25:
        forward["pallas"] = lambda x: pallas_kernels.max_pool_by_pallas(x, window)
        back["pallas"] = (lambda d, t: pallas_kernels.send_by_pallas(d, t, window), (delta, taps))
    return {"forward": {name: (form, (x,)) for name, form in forward.items()}, "input grad": back}


def _times(case: Case, dtype: str, step: str, programs: Programs, seconds: float) -> dict[str, Any]:
    """And whether all forms agree, as far as TF32 and sums in another order do."""
    calls = {name: call_of(*pair) for name, pair in programs.items()}
    times = timed([calls], Plan(seconds * len(calls), least=3))
    found = [np.asarray(jax.tree.leaves(run(*args))[0], np.float32) for run, args in programs.values()]
    largest = max(float(abs(a).max(initial=0)) for a in found)
    apart = max(float(abs(a - found[0]).max(initial=0)) for a in found) / (largest or 1)
    return {
        "name": f"{case.name}, {step}",
        "layer": case.layer,
        "dtype": dtype,
        "ok": apart <= 0.02,
        "apart": apart,
        "microseconds": {name: round(1e6 * t.median, 1) for name, t in times.items()},
    }


def pool_window(case: Case, x: Array) -> Window:
    """Of a pool of the bench."""
    pads = ((case.padding,) * 2,) * case.rank
    return parse_pool(x, case.window, (case.stride,) * case.rank, pads, (case.dilation,) * case.rank)[1]
