"""`shard_map` and sharded `jit` on eight CPU devices, which only a fresh process can have."""

from __future__ import annotations

import pytest
from running import environment, python

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import jaxcnnbp
from jaxcnnbp.transform import explain_swaps, manual_backward

def layer(x, k):
    y = lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return lax.reduce_window(jnp.sin(y), -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "SAME")

x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 5, 5, 2)))
k = jnp.asarray(np.random.default_rng(1).normal(size=(3, 3, 2, 4)))
expected = jax.grad(lambda x, k: layer(x, k).sum(), (0, 1))(x, k)

def check(gradients):
    for a, b in zip(gradients, expected):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)

mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
for check_vma in (True, False):
    def loss(x, k):
        body = lambda x, k: lax.psum(layer(x, k).sum(), "batch")
        return jax.shard_map(body, mesh=mesh, in_specs=(P("batch"), P()), out_specs=P(), check_vma=check_vma)(x, k)
    assert len(explain_swaps(loss)(x, k).swapped) == 2
    check(jax.jit(jax.grad(manual_backward(loss), (0, 1)))(x, k))
    check(jax.grad(manual_backward(jax.jit(loss)), (0, 1))(x, k))

sharded = jax.device_put(x, NamedSharding(mesh, P("batch")))
check(jax.jit(jax.grad(manual_backward(lambda x, k: layer(x, k).sum()), (0, 1)))(sharded, k))

inside = jax.shard_map(
    lambda x, k: jax.grad(manual_backward(lambda x: layer(x, k).sum()))(x),
    mesh=mesh, in_specs=(P("batch"), P()), out_specs=P("batch"),
)
np.testing.assert_allclose(inside(x, k), expected[0], rtol=1e-10, atol=1e-10)

explicit = jax.make_mesh((4, 2), ("batch", "maps"), axis_types=(AxisType.Explicit,) * 2)
with jax.set_mesh(explicit):
    def loss(x, k):
        return jnp.sin(layer(x, k)).sum()
    typed = jax.device_put(x, P("batch"))
    assert len(explain_swaps(loss)(typed, k).swapped) == 2
    assert jax.typeof(manual_backward(layer)(typed, k)) == jax.typeof(layer(typed, k))
    # JAX has no gradient by the kernel here, nor one of a max pool, to compare with.
    wanted = jax.grad(lambda x, k: jnp.sin(layer(x, k)).sum(), (0, 1))(np.asarray(x), np.asarray(k))
    compiled = jax.jit(jax.grad(manual_backward(jax.jit(loss)), (0, 1)))
    for gradients in (jax.grad(manual_backward(loss), (0, 1)), compiled):
        found = gradients(typed, k)
        assert jax.typeof(found[0]) == jax.typeof(typed), jax.typeof(found[0])
        for a, b in zip(found, wanted):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)

    # The output is placed as it is asked for, and gradients lie as their operands do.
    by_map = jax.device_put(k, P(None, None, None, "maps"))
    def placed(conv):
        def conv_loss(x, k):
            numbers = ("NHWC", "HWIO", "NHWC")
            y = conv(x, k, (2, 2), "SAME", dimension_numbers=numbers, out_sharding=P("batch", None, None, "maps"))
            return jnp.sin(y).sum(), y
        return jax.value_and_grad(conv_loss, (0, 1), has_aux=True)
    lax_gradients = placed(lax.conv_general_dilated)(typed, by_map)
    for one in (placed(jaxcnnbp.conv_general_dilated), jax.jit(placed(jaxcnnbp.conv_general_dilated))):
        found = one(typed, by_map)
        assert jax.tree.map(jax.typeof, found) == jax.tree.map(jax.typeof, lax_gradients)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), found, lax_gradients)
    pooled = jaxcnnbp.max_pool(typed, (2, 2), (2, 2))
    assert jax.typeof(pooled) == jax.typeof(lax.reduce_window(typed, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1)))
    dx = jax.grad(lambda x: (jaxcnnbp.avg_pool(x, (3, 3)) ** 2).sum())(typed)
    assert jax.typeof(dx) == jax.typeof(typed)
print("same gradients")
"""


@pytest.mark.slow
def test_gradients_over_eight_devices():
    done = python("-c", PROGRAM, env=environment(devices=8, quick=True, JAX_ENABLE_X64="1"), timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "same gradients" in done.stdout
