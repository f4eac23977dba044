"""Every row of the migration tables: both sides give the same output and the same gradient."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnnbp

EXTENSIONS = Path(__file__).parents[2] / "docs" / "extensions"


def load(name):
    """A module of the site."""
    spec = importlib.util.spec_from_file_location(name, EXTENSIONS / f"{name}.py")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


rows = load("migration_rows")
GENERATOR = np.random.default_rng(0)


def operands(row):
    x = GENERATOR.normal(size=(2, 8, 8, 4)).astype(np.float32)
    kernel = None if row.kernel is None else GENERATOR.normal(size=row.kernel).astype(np.float32)
    bias = None if kernel is None else GENERATOR.normal(size=kernel.shape[-1]).astype(np.float32)
    return np.abs(x) + 0.1 if row.positive else x, kernel, bias


def channels_first(array):
    return np.moveaxis(array, -1, 1)


def weight_of(kernel):
    """(*window, in, out) as (out, in, *window)."""
    return None if kernel is None else np.ascontiguousarray(np.transpose(kernel, (3, 2, 0, 1)))


def by_jax(expression, x, kernel, bias, names, first=False):
    """Output and gradient of the sum of its squares, channels last."""
    given = {"jaxcnnbp": jaxcnnbp, "jax": jax, "jnp": jnp, "k": kernel, "b": bias, **names}

    def output(x):
        y = eval(expression, given | {"x": jnp.moveaxis(x, -1, 1) if first else x})
        return jnp.moveaxis(y, 1, -1) if first else y

    y = output(jnp.asarray(x))
    if not jnp.issubdtype(y.dtype, jnp.floating):
        return np.asarray(y), None
    return np.asarray(y), np.asarray(jax.jit(jax.grad(lambda x: (output(x) ** 2).sum()))(x))


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("row", rows.TORCH, ids=lambda row: row.theirs)
def test_torch(row):
    torch = pytest.importorskip("torch")
    x, kernel, bias = operands(row)
    given = {"torch": torch, "F": torch.nn.functional}
    given |= {name: None if a is None else torch.tensor(a) for name, a in (("w", weight_of(kernel)), ("b", bias))}
    given["x"] = torch.tensor(np.ascontiguousarray(channels_first(x)), requires_grad=True)
    y = eval(row.theirs, given)
    gradient = None
    if y.dtype.is_floating_point:
        (y**2).sum().backward()
        gradient = np.moveaxis(given["x"].grad.numpy(), 1, -1)
    ours = by_jax(row.ours, x, kernel, bias, {})
    assert_same(ours, (np.moveaxis(y.detach().numpy(), 1, -1), gradient))


@pytest.mark.parametrize("row", rows.FLAX, ids=lambda row: row.theirs + row.ours[:10])
def test_flax(row):
    linen, nnx = pytest.importorskip("flax.linen"), pytest.importorskip("flax.nnx")
    x, kernel, bias = operands(row)
    names = {"linen": linen, "nnx": nnx}
    with jax.numpy_dtype_promotion("standard"):  # Flax's mean pools count on it
        theirs = by_jax(row.theirs, x, kernel, bias, names)
    assert_same(by_jax(row.ours, x, kernel, bias, names), theirs)


@pytest.mark.parametrize("row", rows.EQUINOX, ids=lambda row: row.theirs)
def test_equinox(row):
    eqx = pytest.importorskip("equinox")
    x, kernel, bias = operands(row)

    def conv2d(weight, **options):
        out, features, *window = weight.shape
        layer = eqx.nn.Conv2d(features, out, window, use_bias=False, key=jax.random.key(0), **options)
        return eqx.tree_at(lambda layer: layer.weight, layer, jnp.asarray(weight))

    names = {"eqx": eqx, "conv2d": conv2d, "w": weight_of(kernel)}
    with jax.numpy_dtype_promotion("standard"):  # so do Equinox's adaptive pools
        theirs = by_jax(row.theirs, x, kernel, bias, names, first=True)
    assert_same(by_jax(row.ours, x, kernel, bias, {}), theirs)


def test_a_wrong_row_would_be_noticed():
    row = rows.FLAX[3]._replace(ours="jaxcnnbp.avg_pool(x, (2, 2), (2, 2))")
    with pytest.raises(AssertionError):
        test_flax(row)
