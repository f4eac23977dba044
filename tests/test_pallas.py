"""The kernels for GPUs: run by Pallas's interpreter they are the plain rules, and they are lowered for CUDA."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from check import assert_same

from jaxcnnbp.geometry import Window
from jaxcnnbp.ops import conv_forms
from jaxcnnbp.ops import pallas_kernels as pallas
from jaxcnnbp.ops.conv_geometry import ConvGeometry

# (spatial, size, stride, padding, dilation, channels)
WINDOWS = {
    "3x3": ((5, 9), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 5),
    "3x3/2": ((8, 11), (3, 3), (2, 2), ((0, 1), (1, 1)), (1, 1), 6),
    "wide": ((5, 70), (1, 3), (1, 1), ((0, 0), (1, 1)), (1, 1), 3),
    "dilated": ((9, 10), (3, 2), (1, 2), ((2, 2), (3, 0)), (2, 3), 4),
    "cropped": ((9, 8), (3, 2), (2, 1), ((-1, 2), (2, -3)), (1, 1), 7),
    "gaps": ((9, 9), (2, 1), (3, 4), ((0, 0), (0, 0)), (1, 1), 33),
    "mostly padding": ((2, 3), (2, 2), (1, 1), ((3, 2), (0, 4)), (1, 1), 1),
    "one output": ((2, 3), (2, 3), (1, 1), ((0, 0), (0, 0)), (1, 1), 2),
    "many taps": ((5, 6), (4, 5), (1, 1), ((2, 2), (3, 3)), (1, 1), 2),
}
# Several programs along every axis, with edges; the GPU's own tiles for windows that are quickly compiled.
TILES = {case: pallas.Tile(rows=2, channels=4, elements=16, programs=5) for case in WINDOWS} | {"gaps": None}
pytestmark = pytest.mark.usefixtures("x64", "quick")


def window_of(case: str) -> tuple[Window, int]:
    spatial, size, stride, padding, dilation, channels = WINDOWS[case]
    return Window(spatial, size, stride, padding, dilation, (1, 1)), channels


def normal(*shape: int, dtype: Any = jnp.float32, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def operands(case: str, dtype: Any) -> tuple[ConvGeometry, jax.Array, jax.Array, jax.Array]:
    window, channels = window_of(case)
    x = normal(2, *window.spatial, channels, dtype=dtype)
    kernel = normal(*window.size, 1, channels, dtype=dtype, seed=1)
    delta = normal(2, *window.output, channels, dtype=dtype, seed=2)
    return ConvGeometry(window, groups=channels), x, kernel, delta


def tiled(case: str) -> dict[str, Any]:
    tile = TILES[case]
    return {"interpret": True} | ({} if tile is None else {"tile": tile})


@pytest.mark.parametrize("case", TILES)
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
