"""Lp and adaptive pooling against PyTorch in float64: values, winners and gradients.

Every configuration compiles once, so the suite checks a sample; `JAXCNNBP_EXHAUSTIVE=1` checks them all.
"""

from __future__ import annotations

import itertools
import os
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnnbp.ops.pool.adaptive import adaptive_avg_pool, adaptive_max_pool, cover
from jaxcnnbp.ops.pool.lp import lp_pool

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("x64")

# Both sum a window in their own order: a few units in the last place of float64.
CLOSE = dict(rtol=1e-12, atol=1e-12)


def _sample(cases: list, count: int) -> list:
    """`count` of the cases, the same in every run and every worker; all of them if asked for."""
    return cases if os.environ.get("JAXCNNBP_EXHAUSTIVE") else random.Random(0).sample(cases, count)


def _image(shape: tuple[int, ...], seed: int, positive: bool = False) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=shape)
    return np.abs(x) + 0.1 if positive else np.round(2 * x) / 2  # halves: ties on purpose


def _torch_gradient(function, x: np.ndarray, delta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`(batch, *spatial, channels)` through a function of PyTorch, which takes `(batch, channels, *spatial)`."""
    tensor = torch.tensor(np.moveaxis(x, -1, 1).copy(), requires_grad=True)
    y = function(tensor)
    (dx,) = torch.autograd.grad(y, tensor, torch.tensor(np.moveaxis(delta, -1, 1).copy()))
    return np.moveaxis(y.detach().numpy(), 1, -1), np.moveaxis(dx.numpy(), 1, -1)


def _agree(function, torch_function, x: np.ndarray) -> None:
    y, pull = jax.vjp(function, jnp.asarray(x))
    delta = np.random.default_rng(7).normal(size=y.shape)
    expected, dx = _torch_gradient(torch_function, x, delta)
    np.testing.assert_allclose(y, expected, **CLOSE)
    np.testing.assert_allclose(pull(jnp.asarray(delta))[0], dx, **CLOSE)


@pytest.mark.parametrize("extent, outputs", _sample(list(itertools.product(range(1, 25), range(1, 25))), 12))
def test_adaptive_pools_agree_with_pytorch_in_one_dimension(extent: int, outputs: int):
    x = _image((2, extent, 2), seed=extent)
    _agree(lambda x: adaptive_avg_pool(x, (outputs,)), lambda t: torch.nn.functional.adaptive_avg_pool1d(t, outputs), x)
    _agree(lambda x: adaptive_max_pool(x, (outputs,)), lambda t: torch.nn.functional.adaptive_max_pool1d(t, outputs), x)


def test_adaptive_windows_are_pytorchs():
    for extent, outputs in itertools.product(range(1, 60), range(1, 60)):
        positions = torch.arange(extent, dtype=torch.float64)
        first = -torch.nn.functional.adaptive_max_pool1d(-positions[None], outputs)[0]
        last = torch.nn.functional.adaptive_max_pool1d(positions[None], outputs)[0]
        windows = cover(extent, outputs)
        np.testing.assert_array_equal(windows.first, first.numpy())
        np.testing.assert_array_equal(windows.first + windows.count - 1, last.numpy())


TWO = list(itertools.product([(1, 1), (4, 7), (5, 3), (6, 6)], [(1, 1), (2, 3), (7, 2), (3, None)]))


@pytest.mark.parametrize("spatial, outputs", _sample(TWO, 4))
def test_adaptive_pools_agree_with_pytorch_in_two_dimensions(spatial, outputs):
    x = _image((2, *spatial, 2), seed=3)
    _agree(lambda x: adaptive_avg_pool(x, outputs), lambda t: torch.nn.functional.adaptive_avg_pool2d(t, outputs), x)
    _agree(lambda x: adaptive_max_pool(x, outputs), lambda t: torch.nn.functional.adaptive_max_pool2d(t, outputs), x)


def test_adaptive_pools_agree_with_pytorch_in_three_dimensions():
    x, outputs = _image((1, 4, 3, 5, 2), seed=5), (3, 2, 2)
    _agree(lambda x: adaptive_avg_pool(x, outputs), lambda t: torch.nn.functional.adaptive_avg_pool3d(t, outputs), x)
    _agree(lambda x: adaptive_max_pool(x, outputs), lambda t: torch.nn.functional.adaptive_max_pool3d(t, outputs), x)


@pytest.mark.parametrize("with_nan", [False, True])
def test_adaptive_winners_are_pytorchs(with_nan: bool):
    x = _image((2, 7, 5, 3), seed=11)
    if with_nan:
        x[0, 3, 2, 0] = x[0, 4, 2, 0] = x[1, 0, 0, 1] = np.nan
    values, argmax = adaptive_max_pool(jnp.asarray(x), (3, 2), return_argmax=True)
    tensor = torch.tensor(np.moveaxis(x, -1, 1).copy())
    expected, where = torch.nn.functional.adaptive_max_pool2d(tensor, (3, 2), return_indices=True)
    np.testing.assert_array_equal(np.moveaxis(argmax, -1, 1), where.numpy())
    np.testing.assert_array_equal(np.moveaxis(values, -1, 1), expected.numpy())


LP = list(
    itertools.product(
        [(5, 6), (7, 4), (3, 3)], (1, 2, 3.0, 2.5), ((2, 2), (3, 1)), (None, (1, 2), (2, 3)), (False, True)
    )
)


@pytest.mark.parametrize("spatial, norm, window, strides, ceil_mode", _sample(LP, 10))
def test_lp_pool_agrees_with_pytorch(spatial, norm, window, strides, ceil_mode):
    x = _image((2, *spatial, 2), seed=1, positive=norm != 2)
    arguments = norm, window, strides, ceil_mode
    _agree(lambda x: lp_pool(x, *arguments), lambda t: torch.nn.functional.lp_pool2d(t, *arguments), x)
