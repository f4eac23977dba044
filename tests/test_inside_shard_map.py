"""Inside `jax.shard_map`, where a type says whether an array differs from device to device; a mesh of one shows it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import jaxcnnbp
from jaxcnnbp import mode, reduce_window

KERNEL = jnp.array([[0.5, -1.0], [2.0, 0.25]]).reshape(2, 2, 1, 1)
SAMPLES = jnp.array([0.2, 0.6, 0.9, 0.1, 0.7, 0.4]).reshape(1, 2, 3, 1)


def folded(reducer, start):
    return lambda x: reduce_window(x, start, reducer, (1, 2, 2, 1), (1, 2, 2, 1))


FUNCTIONS = {
    "relu": jaxcnnbp.relu,
    "correlate": lambda x: jaxcnnbp.correlate(x, KERNEL),
    "conv_block": lambda x: jaxcnnbp.conv_block(x, KERNEL, pool=2),
    "max_pool": lambda x: jaxcnnbp.max_pool(x, (2, 2)),
    "max_pool, ties": lambda x: jaxcnnbp.max_pool(x, (2, 2), ties="split"),
    "avg_pool": lambda x: jaxcnnbp.avg_pool(x, (2, 2)),
    "lp_pool": lambda x: jaxcnnbp.lp_pool(x, 3.0, (2, 2)),
    "adaptive_max_pool": lambda x: jaxcnnbp.adaptive_max_pool(x, (3, 2)),
    "adaptive_avg_pool": lambda x: jaxcnnbp.adaptive_avg_pool(x, (3, 2)),
    "stochastic_pool": lambda x: jaxcnnbp.stochastic_pool(x, (2, 2), (2, 2), samples=SAMPLES),
    "stochastic_pool, mean": lambda x: jaxcnnbp.stochastic_pool(x, (2, 2)),
    "upsample": lambda x: jaxcnnbp.upsample(x, (2, 2)),
    "logaddexp": folded(jnp.logaddexp, -jnp.inf),
    "literal": folded(lambda p, q: p + q + 2 * p * q, 0.0),
    "where": folded(lambda p, q: jnp.where(p > q, p, q), -jnp.inf),
    "product": folded(jax.lax.mul, 1.0),
}
FUNCTION = pytest.mark.parametrize("f", [pytest.param(f, id=name) for name, f in FUNCTIONS.items()])
X = jnp.asarray(np.random.default_rng(0).permutation(24).reshape(1, 4, 6, 1), jnp.float32) / 16 - 0.25


def mapped(f, check_vma=True):
    mesh = jax.make_mesh((1,), ("a",), axis_types=(AxisType.Auto,))
    return jax.shard_map(f, mesh=mesh, in_specs=P("a"), out_specs=P("a"), check_vma=check_vma)


@FUNCTION
@pytest.mark.parametrize("check_vma", [True, False])
def test_forward_without_jit(f, check_vma):
    np.testing.assert_allclose(mapped(f, check_vma)(X), f(X), 1e-6)


@FUNCTION
def test_first_and_second_order(f):
    """With `jax.shard_map` inside the derivative, and the derivative inside of it."""

    def orders(f, x):
        return jax.jvp(jax.grad(lambda x: (f(x) ** 2).sum()), (x,), (jnp.cos(x),))

    wanted = orders(f, X)
    found = jax.jit(lambda x: (orders(mapped(f), x), mapped(lambda x: orders(f, x))(x)))(X)
    for each in found:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-5), each, wanted)


@pytest.mark.parametrize("kind", ["manual", "autodiff"])
@pytest.mark.parametrize("name", ["conv_kernel_grad", "conv_input_grad"])
def test_gradients_as_functions(kind, name):
    """Each device has its own: nothing is summed over them."""
    numbers, delta = dict(dimension_numbers=("NHWC", "HWIO", "NHWC")), jnp.ones((1, 3, 5, 1))

    def grad(x):
        if name == "conv_kernel_grad":
            return jaxcnnbp.conv_kernel_grad(x, delta, KERNEL.shape, **numbers)
        return jaxcnnbp.conv_input_grad(x[:, :3, :5], KERNEL, X.shape, **numbers)

    with mode(kind):
        assert "psum" not in str(jax.make_jaxpr(mapped(grad))(X))
