"""The kernels for GPUs: run by Pallas's interpreter they are the plain rules, and they are lowered for CUDA."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from check import assert_same
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh
from marks import first_are_quick, slow_but

from jaxcnnbp.geometry import Window
from jaxcnnbp.ops._dtypes import cast
from jaxcnnbp.ops.conv import cuda
from jaxcnnbp.ops.conv import forms as conv_forms
from jaxcnnbp.ops.conv.geometry import ConvGeometry
from jaxcnnbp.ops.conv.problem import ConvProblem
from jaxcnnbp.ops.pallas import kernels as pallas
from jaxcnnbp.ops.pool.max import send_to_winners, where_cells
from jaxcnnbp.ops.pool.window_max import extremes_and_taps

# (spatial, size, stride, padding, dilation, channels)
WINDOWS = {
    "3x3": ((5, 9), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 5),
    "3x3/2": ((8, 11), (3, 3), (2, 2), ((0, 1), (1, 1)), (1, 1), 6),
    "wide": ((5, 70), (1, 3), (1, 1), ((0, 0), (1, 1)), (1, 1), 3),
    "dilated": ((9, 10), (3, 2), (1, 2), ((2, 2), (3, 0)), (2, 3), 4),
    "cropped": ((9, 8), (3, 2), (2, 1), ((-1, 2), (2, -3)), (1, 1), 7),
    "gaps": ((9, 9), (2, 1), (3, 4), ((0, 0), (0, 0)), (1, 1), 33),
    "mostly padding": ((2, 3), (2, 2), (1, 1), ((3, 2), (0, 4)), (1, 1), 2),
    "many taps": ((5, 6), (4, 5), (1, 1), ((2, 2), (3, 3)), (1, 1), 2),
}
# Several programs along every axis, with edges; the GPU's own tiles for windows that are quickly compiled.
TILES = {case: pallas.Tile(rows=2, channels=4, elements=16, programs=5) for case in WINDOWS} | {"gaps": None}
pytestmark = pytest.mark.usefixtures("x64", "quick")


def window_of(case: str) -> tuple[Window, int]:
    spatial, size, stride, padding, dilation, channels = WINDOWS[case]
    return Window(spatial, size, stride, padding, dilation, (1, 1)), channels


def normal(*shape: int, dtype: Any = jnp.float32, seed: int = 0) -> jax.Array:
    return jax.device_put(np.random.default_rng(seed).normal(size=shape).astype(dtype))


def operands(case: str, dtype: Any) -> tuple[ConvGeometry, jax.Array, jax.Array, jax.Array]:
    window, channels = window_of(case)
    x = normal(2, *window.spatial, channels, dtype=dtype)
    kernel = normal(*window.size, 1, channels, dtype=dtype, seed=1)
    delta = normal(2, *window.output, channels, dtype=dtype, seed=2)
    return ConvGeometry(window, groups=channels), x, kernel, delta


def tiled(case: str) -> dict[str, Any]:
    tile = TILES[case]
    return {"interpret": True} | ({} if tile is None else {"tile": tile})


@pytest.mark.parametrize("case", slow_but(["3x3/2"], TILES))
def test_depthwise_forms_are_the_plain_ones(case: str) -> None:
    options = tiled(case)
    geometry, *arrays = operands(case, jnp.float64)

    def both(x: jax.Array, kernel: jax.Array, delta: jax.Array) -> tuple[Any, Any]:
        found = (
            pallas.forward_by_pallas(x, kernel, geometry, **options),
            pallas.input_grad_by_pallas(delta, kernel, geometry, **options),
            pallas.kernel_grad_by_pallas(x, delta, geometry, **options),
        )
        wanted = (
            conv_forms.forward_by_taps(x, kernel, geometry),
            conv_forms.input_grad_by_taps(delta, kernel, geometry),
            conv_forms.kernel_grad_by_taps(x, delta, geometry),
        )
        return found, wanted

    assert_same(*jax.jit(both)(*arrays))


@pytest.mark.parametrize("dtype", slow_but(["bfloat16"], ["float32", "bfloat16", "float16"]))
def test_sums_of_narrow_floats_are_wide(dtype: str) -> None:
    geometry, x, kernel, delta = operands("wide", dtype)
    asked = dataclasses.replace(geometry, output_dtype="float32")
    found = (
        pallas.forward_by_pallas(x, kernel, geometry, **tiled("wide")),
        pallas.forward_by_pallas(x, kernel, asked, **tiled("wide")),
        pallas.kernel_grad_by_pallas(x, delta, geometry, **tiled("wide")),
    )
    wide = [cast(a, jnp.float64) for a in (x, kernel, delta)]
    y = conv_forms.forward_by_taps(*wide[:2], geometry)
    dk = conv_forms.kernel_grad_by_taps(wide[0], wide[2], geometry)
    # One rounding to the dtype of the result, after sums of at most 700 numbers near 1 in float32.
    for a, b in zip(found, (cast(y, dtype), cast(y, jnp.float32), cast(dk, dtype)), strict=True):
        assert_same(a, b, rounding=max(float(jnp.finfo(a.dtype).eps), 1e-5))


def with_ties(case: str, dtype: Any) -> tuple[Window, jax.Array]:
    """Integers, among which ties abound, with NaNs, infinities, and windows of nothing but -inf."""
    window, channels = window_of(case)
    x = np.random.default_rng(3).integers(-2, 3, (2, *window.spatial, channels)).astype(np.float32)
    x[0, 1] = -np.inf
    x[1].flat[::7] = np.nan
    return window, jnp.nan_to_num(jnp.asarray(x)).astype(dtype) if dtype == jnp.int32 else jnp.asarray(x, dtype)


@pytest.mark.parametrize(
    "case, kind",
    first_are_quick(1, [("dilated", "min"), ("3x3/2", "max"), ("cropped", "max"), ("mostly padding", "max")]),
)
def test_max_pool_has_the_winners_of_the_rule(case: str, kind: str) -> None:
    window, x = with_ties(case, jnp.float32)
    delta = normal(2, *window.output, x.shape[-1])
    if case != "3x3/2":  # there the rule adds up tap by tap as well; elsewhere the sums have to be exact in any order
        delta = jnp.round(delta * 9)

    def both(x: jax.Array, delta: jax.Array) -> tuple[Any, Any]:
        best, taps = pallas.max_pool_by_pallas(x, window, kind, **tiled(case))
        wanted, winners = extremes_and_taps(x, window, kind)
        sent = pallas.send_by_pallas(delta, taps, window, **tiled(case))
        # Of a window on the padding alone no tap is the winner: its number goes nowhere.
        taps, known = (where_cells(window, a, 0) for a in (taps, winners))
        return (best, taps, sent), (wanted, known, send_to_winners(delta, winners, window))

    assert_identical(*jax.jit(both)(x, delta))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.int32, marks=pytest.mark.slow)])
def test_max_pool_keeps_the_dtype(dtype: Any) -> None:
    window, x = with_ties("wide", dtype)
    assert_identical(pallas.max_pool_by_pallas(x, window, **tiled("wide")), extremes_and_taps(x, window, "max"))


def assert_identical(found: Any, wanted: Any) -> None:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a).astype(np.float64), np.asarray(b).astype(np.float64))


@pytest.mark.parametrize("empty", ["images", "outputs"])
def test_nothing_gives_nothing(empty: str) -> None:
    spatial = (2, 2) if empty == "outputs" else (4, 4)
    window = Window(spatial, (3, 3), (1, 1), ((0, 0), (0, 0)), (1, 1), (1, 1))
    geometry, images = ConvGeometry(window, groups=2), 0 if empty == "images" else 1
    x, delta, kernel = normal(images, *spatial, 2), normal(images, *window.output, 2), normal(3, 3, 1, 2)
    assert pallas.forward_by_pallas(x, kernel, geometry).shape == delta.shape
    assert_same(pallas.input_grad_by_pallas(delta, kernel, geometry), jnp.zeros_like(x))
    assert_same(pallas.kernel_grad_by_pallas(x, delta, geometry), jnp.zeros_like(kernel))
    assert [a.shape for a in pallas.max_pool_by_pallas(x, window)] == [delta.shape] * 2
    assert_same(pallas.send_by_pallas(delta, jnp.zeros(delta.shape, jnp.uint8), window), jnp.zeros_like(x))


def test_serve_only_what_they_are_written_for() -> None:
    geometry = operands("3x3", jnp.float32)[0]
    problem = ConvProblem(geometry, 1, 1, images=2, dtype="bfloat16")
    gaps = dataclasses.replace(geometry, window=dataclasses.replace(geometry.window, input_dilation=(2, 1)))
    line = ConvGeometry(Window((5,), (3,), (1,), ((1, 1),), (1,), (1,)), groups=5)
    others = [dict(out_channels=2), dict(dtype="complex64"), dict(geometry=gaps), dict(geometry=line)]
    for (row,) in cuda.BY_NAME.values():
        assert row.supports(problem)
        assert not any(row.supports(dataclasses.replace(problem, **other)) for other in others)


# JAX 0.11 gave notice of a backend that it means to drop.
@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    "case, dtype", first_are_quick(1, [("3x3", jnp.float64), ("3x3/2", jnp.bfloat16), ("gaps", jnp.float32)])
)
def test_kernels_are_lowered_for_cuda(case: str, dtype: Any) -> None:
    geometry, x, kernel, delta = operands(case, dtype)
    window, taps = geometry.window, jnp.zeros(delta.shape, jnp.uint8)
    calls: list[tuple[Callable[..., Any], tuple[jax.Array, ...]]] = [
        (lambda x, k: pallas.forward_by_pallas(x, k, geometry), (x, kernel)),
        (lambda d, k: pallas.input_grad_by_pallas(d, k, geometry), (delta, kernel)),
        (lambda x, d: pallas.kernel_grad_by_pallas(x, d, geometry), (x, delta)),
        (lambda x: pallas.max_pool_by_pallas(x, window), (x,)),
        (lambda d, t: pallas.send_by_pallas(d, t, window), (delta, taps)),
    ]
    gpu = AbstractMesh((1,), ("x",), abstract_device=AbstractDevice("NVIDIA H100", None, "cuda"))
    with use_abstract_mesh(gpu):  # where there is no GPU, JAX 0.11 asks for one by name
        for fun, arrays in calls:
            shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arrays]
            program = jax.jit(fun).trace(*shapes).lower(lowering_platforms=("cuda",)).as_text()
            assert program.count("stablehlo.custom_call") == 1
            assert "triton" in program
