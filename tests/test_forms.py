"""Every implementation in `ops.conv.dispatch` is the plain form, wherever it says that it supports a convolution."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest
from cases import CONVOLUTIONS, LAX_CONVOLUTIONS, Case
from check import assert_same
from jax import export
from marks import first_are_quick, slow_but

import jaxcnnbp
from jaxcnnbp.geometry.window import Window
from jaxcnnbp.modes import chosen_implementation
from jaxcnnbp.ops import processor
from jaxcnnbp.ops._xla_cpu import compute_once
from jaxcnnbp.ops.conv import dispatch
from jaxcnnbp.ops.conv import forms as conv_forms
from jaxcnnbp.ops.conv import partitioned as conv_spread
from jaxcnnbp.ops.conv.api import conv_geometry
from jaxcnnbp.ops.conv.cpu import depthwise, direct, winograd
from jaxcnnbp.ops.conv.cpu import im2col as conv_patches
from jaxcnnbp.ops.conv.cpu import row_packing as conv_long_rows
from jaxcnnbp.ops.conv.geometry import ConvGeometry
from jaxcnnbp.ops.conv.lax_layout import lax_convolution
from jaxcnnbp.ops.conv.problem import ConvProblem, Implementation, Spread
from jaxcnnbp.tune.grid import random_problem
from jaxcnnbp.tune.measure import random_operands

pytestmark = pytest.mark.usefixtures("x64")

DEFAULTS = dict(stride=1, padding="VALID", dilation=1, groups=1, mirrored=False)
LAX_DEFAULTS = dict(
    dimension_numbers=None,
    feature_group_count=1,
    batch_group_count=1,
    lhs_dilation=None,
    rhs_dilation=None,
    precision=None,
    preferred_element_type=None,
)


def _dilated(x: tuple[int, ...], kernel: tuple[int, ...], padding: Any, **options: Any) -> Case:
    numbers = dict(dimension_numbers=("NHWC", "HWIO", "NHWC"), window_strides=(1, 1))
    return Case(f"{x} {kernel}", "conv_general_dilated", (x, kernel), numbers | dict(padding=padding) | options)


# Input gradients of strided convolutions, met as forwards.
TRANSPOSED = (
    _dilated((1, 3, 4, 2), (3, 2, 2, 3), ((2, 2), (1, 1)), lhs_dilation=(2, 3)),
    _dilated((1, 3, 4, 16), (2, 2, 16, 3), ((1, 1), (1, 1)), lhs_dilation=(2, 2)),
    _dilated((1, 3, 4, 2), (3, 3, 2, 16), ((0, 3), (2, -1)), lhs_dilation=(3, 2)),
    _dilated((1, 2, 2, 16), (3, 3, 16, 17), ((1, 1), (1, 1))),
)
CASES = tuple(c for c in CONVOLUTIONS if c.op == "correlate" or "strided" in c.name or "groups" in c.name) + TRANSPOSED
CASES += tuple(c for c in LAX_CONVOLUTIONS if c.name.startswith("no spatial axis"))
# Two blocks of four output columns, the taps reaching into the next one.
CASES += (_dilated((1, 3, 8, 2), (2, 3, 2, 3), ((1, 0), (1, 1))),)

# Windows that tile: with a rest that nobody reads, over padding, over gaps, a single one.
CASES += (
    _dilated((2, 7, 6, 3), (2, 3, 3, 4), ((0, 0), (0, 0)), window_strides=(2, 3)),
    _dilated((2, 5, 3, 2), (3, 2, 2, 3), ((1, 2), (-1, 2)), window_strides=(3, 2), lhs_dilation=(1, 2)),
    _dilated((2, 4, 5, 3), (3, 4, 3, 2), ((0, 0), (0, 0)), window_strides=(2, 3)),
)

# What only the tables for GPUs ask about.
CASES += (
    _dilated((2, 7, 6, 3), (3, 2, 1, 3), ((1, 2), (0, 1)), rhs_dilation=(2, 3), feature_group_count=3),
    _dilated((2, 7, 6, 3), (3, 2, 1, 3), ((1, 1), (0, 1)), window_strides=(2, 3), feature_group_count=3),
    _dilated((2, 7, 6, 2), (3, 2, 2, 3), ((1, 1), (0, 1)), rhs_dilation=(2, 1)),
)

MEANINGS: dict[str, Callable[..., Any]] = {
    "forward": conv_forms.forward_by_taps,
    "input grad": conv_forms.input_grad_by_taps,
    "kernel grad": conv_forms.kernel_grad_by_taps,
}
OTHERWISE = {
    "forward": conv_forms.forward_by_lax,
    "input grad": conv_forms.input_grad_by_lax,
    "kernel grad": conv_forms.kernel_grad_by_lax,
}


def geometry_of(case: Case) -> ConvGeometry:
    """The geometry of a correlation of arrays with channels last."""
    x, kernel = (jax.ShapeDtypeStruct(shape, np.float64) for shape in channels_last(case))
    if case.op == "conv_general_dilated":
        return lax_convolution(*case.shapes, **(LAX_DEFAULTS | case.options)).geometry
    options = {name: value for name, value in case.options.items() if name != "connections"}
    return conv_geometry(x, kernel, **(DEFAULTS | options))


def channels_last(case: Case) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes, also of the cases without a spatial axis, whose kernels lax has as (out, in)."""
    x, kernel = case.shapes
    return (x, kernel[::-1]) if len(x) == 2 else (x, kernel)


def problem_of(case: Case) -> ConvProblem:
    geometry, kernel = geometry_of(case), channels_last(case)[1]
    return ConvProblem(geometry, kernel[-2], kernel[-1] // geometry.groups, case.shapes[0][0])


def listed(rule: str) -> tuple[Implementation, ...]:
    """What is held to the plain form, which is itself one of them."""
    of = dispatch.passes()[rule]
    every = (*of.on_cpu, *(row.implementation for row in of.on_cuda))
    return tuple(row for row in every if row.form is not MEANINGS[rule])


@functools.cache
def operands(case_index: int) -> dict[str, tuple[jax.Array, jax.Array]]:
    """The two operands of each rule."""
    case = CASES[case_index]
    generator, geometry = np.random.default_rng(0), geometry_of(case)
    shapes = channels_last(case)
    output = (shapes[0][0], *geometry.window.output, shapes[1][-1])
    x, kernel, delta = (jax.device_put(generator.normal(size=shape)) for shape in (*shapes, output))
    return {"forward": (x, kernel), "input grad": (delta, kernel), "kernel grad": (x, delta)}


def as_program(form: Callable[..., Any], geometry: ConvGeometry) -> Callable[..., Any]:
    return jax.jit(functools.partial(form, geometry=geometry))


@functools.cache
def meaning(rule: str, case_index: int) -> Callable[..., Any]:
    return as_program(MEANINGS[rule], geometry_of(CASES[case_index]))


@functools.cache
def plain(rule: str, case_index: int) -> np.ndarray:
    """The meaning of the rule."""
    return np.asarray(meaning(rule, case_index)(*operands(case_index)[rule]))


def assert_touches(run: Callable[..., Any], rule: str, case_index: int) -> None:
    """Raises AssertionError unless an infinity or a NaN in an operand reaches exactly what its windows touch.

    One in the second operand, the kernel or the delta of its gradient, may also meet the zeros of padding and of gaps,
    as it does in lax, but stays in its group.
    """
    generator = np.random.default_rng(2)
    for which, value in ((0, np.inf), (0, np.nan), (1, np.nan)):
        arrays = [np.array(a) for a in operands(case_index)[rule]]
        place = tuple(generator.integers(0, n) for n in arrays[which].shape)
        arrays[which][place] = value
        ones = [np.ones(a.shape) for a in arrays]
        ones[which] = np.zeros(arrays[which].shape)
        ones[which][place] = 1
        touched = np.asarray(meaning(rule, case_index)(*ones)) != 0
        found = np.asarray(run(*arrays))
        if which == 0:
            np.testing.assert_array_equal(np.isnan(found) if np.isnan(value) else np.isinf(found), touched)
            assert np.isfinite(found[~touched]).all()
        else:
            assert not np.isfinite(found[touched]).any()
            groups = geometry_of(CASES[case_index]).groups
            own = place[-1] * groups // arrays[1].shape[-1]
            assert np.isfinite(np.delete(np.array(np.split(found, groups, -1)), own, 0)).all()


def choose(rule: str) -> Callable[..., Any]:
    """What runs a pass."""
    return getattr(dispatch, "choose_" + rule.replace(" ", "_"))


def identity(form: Any) -> tuple:
    """Equal for equal forms: some rows of a table differ in their conditions only."""
    return (form.func, form.args) if isinstance(form, functools.partial) else (form,)


def few_of_each(groups: list[list[int]]) -> dict[int, int]:
    """One of each group, by its number, and few different ones: the plain form is compiled for every one."""
    chosen: dict[int, int] = {}
    for number in sorted((n for n, group in enumerate(groups) if group), key=lambda n: len(groups[n])):
        taken = [i for i in groups[number] if i in chosen.values()]
        chosen[number] = (taken or groups[number])[-1]
    return chosen


def admitted() -> Iterator[Any]:
    """Every form once, on every case that any of its rows supports; but for one, that is slow."""
    for rule in MEANINGS:
        rows: dict[tuple, list[Implementation]] = {}
        for row in listed(rule):
            rows.setdefault((*identity(row.form), row.spreads), []).append(row)
        able = [
            [i for i, case in enumerate(CASES) if any(row.supports(problem_of(case)) for row in alike)]
            for alike in rows.values()
        ]
        quick = few_of_each(able)
        for number, (alike, indices) in enumerate(zip(rows.values(), able, strict=True)):
            for i in indices:
                marks = () if i == quick[number] else pytest.mark.slow
                yield pytest.param(rule, alike[0], i, id=f"{rule} {number} on {CASES[i].name}", marks=marks)


ADMITTED = list(admitted())


# One tap after the other, the large windows take long to compile.
SOME = [index for index, case in enumerate(CASES) if index % 3 == 0 and geometry_of(case).window.taps < 20]


@pytest.mark.parametrize(("rule", "row", "case_index"), ADMITTED)
def test_form_is_the_plain_one(rule, row, case_index):
    run = as_program(row.form, geometry_of(CASES[case_index]))
    assert_same(run(*operands(case_index)[rule]), plain(rule, case_index))
    if row.spreads is Spread.NOWHERE:
        assert_touches(run, rule, case_index)


SPREADING = {(rule, identity(row.form)): (rule, row, index) for rule, row, index in (p.values for p in ADMITTED[::-1])}
SPREADING = {key: values for key, values in SPREADING.items() if values[1].spreads is Spread.MENDED}


@pytest.mark.parametrize(("rule", "row", "case_index"), SPREADING.values(), ids=lambda v: getattr(v, "name", None))
def test_form_that_spreads_is_for_finite_numbers(rule, row, case_index, monkeypatch):
    """Beside it stands lax's form, for whatever it would carry further than the windows."""
    monkeypatch.setattr(dispatch, "may_be_partitioned", lambda *_, **__: False)
    run = jax.jit(functools.partial(choose(rule), geometry=geometry_of(CASES[case_index])))
    with chosen_implementation(row.name):
        assert_same(run(*operands(case_index)[rule]), plain(rule, case_index))
        assert_touches(run, rule, case_index)


@pytest.mark.parametrize("flag", [jax.debug_nans, jax.debug_infs])
@pytest.mark.parametrize("rule", MEANINGS)
def test_nothing_spreads_where_jax_looks_for_faults(rule, flag):
    x, kernel = (jax.ShapeDtypeStruct(s, np.float32) for s in ((8, 28, 28, 128), (3, 3, 128, 128)))

    def able() -> set[Spread]:
        problem = ConvProblem(conv_geometry(x, kernel, **(DEFAULTS | dict(padding="SAME"))), 128, 128, 8)
        return {row.spreads for row in dispatch.passes()[rule].supporting(problem, False)}

    assert Spread.IN_TILES in able()
    with flag(True):
        assert able() == {Spread.NOWHERE}


@pytest.mark.parametrize("rule", MEANINGS)
@pytest.mark.parametrize("case_index", slow_but(SOME[::4], SOME, lambda index: CASES[index].name))
def test_lax_form_is_the_plain_one(rule, case_index):
    form = functools.partial(OTHERWISE[rule], geometry=geometry_of(CASES[case_index]))
    assert_same(jax.jit(form)(*operands(case_index)[rule]), plain(rule, case_index))


GROUPED = next(index for index, case in enumerate(CASES) if case.name == "2 groups strided")
SPREAD_OUT = CASES.index(TRANSPOSED[0])


# A row of taps at a time, and one tap.
@pytest.mark.parametrize(
    "written_out, index", first_are_quick(2, [(128, SPREAD_OUT), (1, GROUPED), (128, GROUPED), (1, SPREAD_OUT)])
)
@pytest.mark.parametrize("rule", MEANINGS)
def test_tap_groups(rule, written_out, index, monkeypatch):
    """What serves many taps where images may lie on several devices, on few of them."""
    monkeypatch.setattr(conv_spread, "MANY_TAPS", written_out)
    form = {
        "forward": conv_spread.forward_by_tap_groups,
        "input grad": conv_spread.input_grad_by_tap_groups,
        "kernel grad": conv_spread.kernel_grad_by_tap_groups,
    }[rule]
    found = jax.jit(functools.partial(form, geometry=geometry_of(CASES[index])))(*operands(index)[rule])
    assert_same(found, plain(rule, index))


@pytest.mark.parametrize("rule", MEANINGS)
def test_every_row_is_tried(rule):
    """But for the loop over many taps, which is tried on few of them."""
    tried = {identity(param.values[1].form) for param in ADMITTED if param.values[0] == rule}
    assert {row.name for row in listed(rule) if identity(row.form) not in tried} == {"tap_groups"}


def test_chosen_at_lowering():
    """On another platform than a CPU lax's own convolution is lowered, without running anything there."""
    depthwise = next(index for index, case in enumerate(CASES) if case.name == "depthwise")
    geometry = geometry_of(CASES[depthwise])
    traced = jax.jit(lambda x, k: dispatch.choose_forward(x, k, geometry)).trace(*operands(depthwise)["forward"])
    assert "stablehlo.convolution" in traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "stablehlo.convolution" not in traced.lower(lowering_platforms=("cpu",)).as_text()


@pytest.mark.parametrize("rule", MEANINGS)
def test_dilated_depthwise_on_cuda(rule):
    """cuDNN takes up to three hundred times as long for it; other platforms than CUDA have lax's convolution."""
    x, kernel, delta = (jax.ShapeDtypeStruct(s, np.float32) for s in ((2, 9, 9, 4), (3, 3, 1, 4), (2, 5, 5, 4)))
    geometry = conv_geometry(x, kernel, **(DEFAULTS | dict(dilation=2, groups=4)))
    pair = {"forward": (x, kernel), "input grad": (delta, kernel), "kernel grad": (x, delta)}[rule]
    traced = jax.jit(functools.partial(choose(rule), geometry=geometry)).trace(*pair)
    lowered = {p: traced.lower(lowering_platforms=(p,)).as_text() for p in ("cuda", "rocm", "tpu")}
    assert [p for p, text in lowered.items() if "stablehlo.convolution" in text] == ["rocm", "tpu"]


def lowered_for(platform, x_shape, kernel_shape, **options):
    """A convolution and its gradients."""
    x, kernel = (jax.ShapeDtypeStruct(s, np.float32) for s in (x_shape, kernel_shape))
    loss = jax.value_and_grad(lambda x, k: jaxcnnbp.correlate(x, k, **options).sum(), (0, 1))
    return jax.jit(loss).trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()


def test_padding_is_passed_as_given():
    """cuDNN pads both ends alike: for a padding that ends with the last window XLA would copy the input."""
    text = lowered_for("cuda", (2, 8, 8, 3), (3, 3, 3, 4), stride=2, padding=1)
    assert "stride = [2, 2], pad = [[1, 1], [1, 1]]" in text.replace("\n", " ")


def test_transposed_on_cuda():
    """As the input gradient that XLA knows by the flip of its kernel; delta is sliced, and gaps are written nowhere."""
    x, kernel = (jax.ShapeDtypeStruct(s, np.float32) for s in ((2, 4, 4, 3), (3, 3, 3, 5)))
    loss = jax.grad(lambda x, k: jaxcnnbp.conv_transpose(x, k, (2, 2), "SAME").sum(), (0, 1))
    traced = jax.jit(lambda x, k: (jaxcnnbp.conv_transpose(x, k, (2, 2), "SAME"), loss(x, k))).trace(x, kernel)
    lowered = {p: traced.lower(lowering_platforms=(p,)).as_text() for p in ("cuda", "tpu")}
    assert ["stablehlo.optimization_barrier" in text for text in lowered.values()] == [True, False]
    # That of the forward pass, and on other platforms that of the kernel gradient.
    assert [text.count("lhs_dilate = [2, 2]") for text in lowered.values()] == [1, 2]


def test_four_axes_on_cuda():
    """XLA would abort the process there."""
    shapes = (2, 3, 3, 3, 3, 2), (2, 2, 2, 2, 2, 2)
    for implementation in (None, "xla"):
        with jaxcnnbp.implementation(implementation):
            assert "stablehlo.convolution" not in lowered_for("cuda", *shapes)
    assert "stablehlo.convolution" in lowered_for("tpu", *shapes)
    (batch,) = export.symbolic_shape("b")
    x, kernel = (jax.ShapeDtypeStruct(s, np.float32) for s in ((batch, 4, 4, 4, 4, 1), (4, 4, 4, 3, 1, 1)))
    many_taps = export.export(jax.jit(jaxcnnbp.correlate), platforms=["cuda"])(x, kernel)
    assert "stablehlo.convolution" not in many_taps.mlir_module()


@pytest.mark.parametrize(
    ("name", "taps", "dilation", "shape"),
    first_are_quick(
        2,
        [
            ("winograd", 3, (1, 1), (3, 5, 7, 2, 3)),
            ("winograd_4x4", 3, (2, 3), (3, 19, 25, 2, 3)),
            ("winograd", 5, (1, 2), (3, 7, 19, 2, 3)),
            ("winograd", 3, (2, 1), (4, 8, 6, 3, 2)),
            ("winograd_4x4", 3, (1, 1), (4, 16, 6, 3, 2)),
        ],
    ),
)
@pytest.mark.parametrize("rule", MEANINGS)
def test_winograd_in_many_strips(rule, name, taps, dilation, shape, monkeypatch):
    """Few rows of tiles at a time, odd extents filled up: as on images that are too large for the cache."""
    monkeypatch.setattr(winograd, "BLOCK_BYTES", 1)
    images, height, width, depth, features = shape
    generator = np.random.default_rng(0)
    output = (height + 2 - (taps - 1) * dilation[0], width + 1 - (taps - 1) * dilation[1])
    x, kernel, delta = (
        jax.device_put(generator.normal(size=size))
        for size in ((images, height, width, depth), (taps, taps, depth, features), (images, *output, features))
    )
    geometry = conv_geometry(x, kernel, **(DEFAULTS | dict(padding=[(2, 0), (0, 1)], dilation=dilation)))
    arrays = {"forward": (x, kernel), "input grad": (delta, kernel), "kernel grad": (x, delta)}[rule]
    form = getattr(winograd, f"{rule.replace(' ', '_')}_by_{name}")
    assert_same(as_program(form, geometry)(*arrays), as_program(MEANINGS[rule], geometry)(*arrays))


@pytest.mark.parametrize(("name", "taps", "units"), [("winograd", 3, 16), ("winograd", 5, 64), ("winograd_4x4", 3, 64)])
@pytest.mark.parametrize("rule", MEANINGS)
def test_winograd_rounds_by_few_units(rule, name, taps, units):
    """Of 96 channels, in units of the last place of the largest; lax's kernel gradient is off by 10 to 50."""
    window = Window((16, 16), (taps, taps), (1, 1), ((taps // 2,) * 2,) * 2, (1, 1), (1, 1))
    geometry = ConvGeometry(window, 1, exact=False)
    problem = ConvProblem(geometry, 96, 96, 2, "float32")
    arrays = random_operands(rule, problem)
    form = getattr(winograd, f"{rule.replace(' ', '_')}_by_{name}")
    found = np.asarray(as_program(form, geometry)(*arrays), np.float64)
    exact = np.asarray(as_program(MEANINGS[rule], geometry)(*(a.astype(np.float64) for a in arrays)))
    assert np.abs(found - exact).max() <= units * 2.0**-24 * np.abs(exact).max()


def drawn(x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], options: Any) -> tuple[Any, Any, ConvGeometry]:
    """Random images, a random kernel, and their convolution."""
    generator = np.random.default_rng(0)
    x, kernel = (jax.device_put(generator.normal(size=size)) for size in (x_shape, kernel_shape))
    return x, kernel, conv_geometry(x, kernel, **(DEFAULTS | options))


LONG_ROWS = (
    ((1, 16, 5, 2), (3, 3, 2, 3), dict(padding=[(1, 1), (1, 1)])),
    ((6, 8, 5, 2), (3, 3, 2, 3), dict(padding=[(2, 0), (0, 3)])),
    ((4, 9, 7, 2), (2, 3, 2, 3), dict()),
    ((3, 17, 11, 2), (3, 2, 2, 3), dict(stride=(2, 3), padding=[(1, 0), (1, 1)], dilation=(1, 2))),
    ((2, 9, 8, 2), (3, 2, 2, 3), dict(stride=(1, 3), padding=[(0, 0), (-1, 2)])),
)


@pytest.mark.parametrize("products", [1, 10**9], ids=["some to a row", "all in one row"])
@pytest.mark.parametrize("problem", slow_but(LONG_ROWS[3:4], LONG_ROWS))
def test_long_rows(problem, products, monkeypatch):
    """Strips of images beside each other, with strides, gaps and uneven padding, read nothing of their neighbours."""
    monkeypatch.setattr(conv_long_rows, "ROW_PRODUCTS", products)
    monkeypatch.setattr(conv_long_rows, "ROW_COLUMNS", 12)
    x, kernel, geometry = drawn(*problem)
    y = as_program(conv_forms.forward_by_taps, geometry)(x, kernel)
    assert_same(as_program(conv_long_rows.forward_in_long_rows, geometry)(x, kernel), y)
    if geometry.window.stride == (1, 1):
        wanted = as_program(conv_forms.input_grad_by_taps, geometry)(y, kernel)
        assert_same(as_program(conv_long_rows.input_grad_in_long_rows, geometry)(y, kernel), wanted)


DIRECT = (
    ((2, 4, 12, 16), (3, 3, 1, 16), dict(groups=16, padding="SAME")),
    ((2, 5, 9, 4), (2, 3, 1, 16), dict(groups=4, dilation=(1, 2), padding=[(1, 0), (0, 3)])),
    ((1, 13, 6), (3, 2, 9), dict(groups=3, stride=2)),
    ((2, 3, 5, 7, 2), (2, 2, 2, 2, 3), dict(stride=(1, 2, 1), dilation=(2, 1, 2))),
)


@pytest.mark.parametrize("problem", slow_but(DIRECT[1:3], DIRECT))
def test_direct_in_blocks_and_strips(problem, monkeypatch):
    """Blocks of channels, and of the columns of a kernel gradient; a NaN stays with the taps that read it."""
    monkeypatch.setattr(direct, "COLUMNS", 4)
    x, kernel, geometry = drawn(*problem)
    y = as_program(conv_forms.forward_by_taps, geometry)(x, kernel)
    assert_same(as_program(direct.forward_direct, geometry)(x, kernel), y)
    by_kernel = as_program(conv_forms.kernel_grad_by_taps, geometry), as_program(direct.kernel_grad_direct, geometry)
    for last in (1.0, np.nan):
        wanted, found = (form(x.at[..., -1, :].mul(last), y) for form in by_kernel)
        np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
        assert_same(np.nan_to_num(found), np.nan_to_num(wanted))
    if max(geometry.window.stride) == 1:
        wanted = as_program(conv_forms.input_grad_by_taps, geometry)(y, kernel)
        assert_same(as_program(direct.input_grad_direct, geometry)(y, kernel), wanted)


@pytest.mark.parametrize("images", slow_but([5], [1, 4, 5]))
def test_patches_in_blocks_of_images(images, monkeypatch):
    generator = np.random.default_rng(0)
    x, kernel, delta = (
        jax.device_put(generator.normal(size=size)) for size in ((images, 4, 3, 2), (2, 2, 2, 3), (images, 3, 2, 3))
    )
    geometry = conv_geometry(x, kernel, **DEFAULTS)
    monkeypatch.setattr(conv_patches, "BLOCK_BYTES", 2 * conv_patches.patch_bytes(x, geometry))
    for form, meaning, operands in (
        (conv_patches.forward_by_patches, conv_forms.forward_by_taps, (x, kernel)),
        (conv_patches.input_grad_by_patches_of_delta, conv_forms.input_grad_by_taps, (delta, kernel)),
        (conv_patches.kernel_grad_by_patches, conv_forms.kernel_grad_by_taps, (x, delta)),
    ):
        assert_same(as_program(form, geometry)(*operands), as_program(meaning, geometry)(*operands))


def test_rows_of_taps_in_blocks_of_images(monkeypatch):
    """Several outputs of each channel, a stride, uneven padding; one image after the other."""
    options = dict(stride=(2, 1), padding=[(2, 0), (0, 1)], groups=2)
    x, kernel, geometry = drawn((3, 7, 6, 2), (3, 2, 1, 4), options)
    monkeypatch.setattr(conv_patches, "BLOCK_BYTES", 1)
    found = as_program(depthwise.forward_by_tap_rows, geometry)(x, kernel)
    assert_same(found, as_program(conv_forms.forward_by_taps, geometry)(x, kernel))


@pytest.mark.parametrize("precision", ["highest", jax.lax.Precision.HIGHEST, (None, jax.lax.Precision.HIGH)])
def test_precision_asks_for_the_plain_form(precision):
    x, kernel = jax.numpy.ones((1, 4, 4, 1)), jax.numpy.ones((3, 3, 1, 1))
    geometry = conv_geometry(x, kernel, **DEFAULTS)
    for tiles in (winograd.TILES_2X2, winograd.TILES_4X4):
        assert winograd.fits(geometry, tiles)
        assert not winograd.fits(dataclasses.replace(geometry, precision=precision), tiles)


@pytest.mark.parametrize(
    ("flags", "xla_flags", "kind"),
    [
        ("sse4_2 avx avx2 fma", "", "avx2"),
        ("avx2 avx512f avx512vl", "", "avx512"),
        ("avx2 avx512f", "--xla_cpu_max_isa=AVX2", "avx2"),
        ("avx2 avx512f", "--xla_cpu_max_isa=AVX512", "avx512"),
        ("fp asimd", "", "arm64"),
    ],
)
def test_kinds_of_processors(flags, xla_flags, kind, monkeypatch):
    monkeypatch.setattr(processor.Path, "read_text", lambda self: f"flags : {flags}")
    monkeypatch.setattr(processor.platform, "machine", lambda: "arm64")
    monkeypatch.setenv("XLA_FLAGS", xla_flags)
    assert processor.cpu_kind.__wrapped__() == kind


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rule", ["input grad", "kernel grad"])
def test_gradients_in_loops_keep_the_fast_layout(rule, dtype):
    """XLA rearranges a convolution that is laid out otherwise only outside of loops, and inside runs a plain loop."""
    x, kernel = np.ones((2, 6, 6, 2), dtype), np.ones((3, 3, 2, 3), dtype)
    geometry = conv_geometry(x, kernel, **(DEFAULTS | dict(padding="SAME")))
    delta = np.ones((2, 6, 6, 3), dtype)
    arrays = {"input grad": (delta, kernel), "kernel grad": (x, delta)}[rule]
    in_lax, ours = OTHERWISE[rule], listed(rule)[0].form

    def in_loop(form):
        def summed(a, b):
            return jax.lax.fori_loop(0, 3, lambda i, s: s + form(a * i, b, geometry), form(a, b, geometry))

        return jax.jit(summed).lower(*map(jax.numpy.asarray, arrays))

    def layouts(text: str) -> set[str]:
        return set(re.findall(r"dim_labels=(\S+?),?\s", text))

    assert layouts(in_loop(ours).compile().as_text()) == {"b01f_01io->b01f"}
    assert layouts(in_loop(in_lax).as_text(dialect="hlo")) - {"b01f_01io->b01f"}


def test_computed_apart_is_kept_apart():
    """On CPUs XLA keeps the call, elsewhere there is none to keep; the values are those of the function."""
    x = jax.numpy.arange(3.0)
    run = jax.jit(lambda x: compute_once(lambda x: (x + 1, x * 2), x))
    assert_same(run(x), (x + 1, x * 2))
    assert " call(" in run.lower(x).compile().as_text()
    lowered = {p: run.trace(x).lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "cuda")}
    assert {p: "inlineable" in text for p, text in lowered.items()} == {"cpu": True, "cuda": False}


def test_each_pass_is_a_program_of_its_own():
    """On a CPU nothing is fused into a convolution that is not lax's, and it is not computed again where it is read."""

    def loss(x, kernel):
        y = jaxcnnbp.correlate(jax.numpy.tanh(x), kernel, groups=3)
        return ((y - y.mean()) ** 2).sum()

    x, kernel = jax.numpy.ones((2, 9, 9, 3)), jax.numpy.ones((3, 3, 1, 3))
    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(x, kernel).compile().as_text()
    assert len(re.findall(r'to_apply=%on_cpu\S*, frontend_attributes={inlineable="false"}', compiled)) == 3


def small_problem(rng: np.random.Generator) -> ConvProblem:
    """A random layer of few taps, with padding of any width."""
    while True:
        problem = random_problem(rng, "float64", largest=6)
        window = problem.geometry.window
        padding = tuple((int(rng.integers(0, e + 1)), int(rng.integers(0, e + 1))) for e in window.extent)
        window = dataclasses.replace(window, padding=padding)
        if window.taps <= 12 and min(window.output) > 0:
            return dataclasses.replace(problem, geometry=dataclasses.replace(problem.geometry, window=window))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_random_problems(seed):
    """Whatever says that it supports a small random layer is the plain form there."""
    problem = small_problem(np.random.default_rng(seed))
    for rule, meant in MEANINGS.items():
        arrays = random_operands(rule, problem)
        wanted = as_program(meant, problem.geometry)(*arrays)
        for row in listed(rule):
            if row.serves(problem, partitioned=False):
                assert_same(as_program(row.form, problem.geometry)(*arrays), wanted)
