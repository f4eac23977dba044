"""Sharded over eight devices, over images or over channels, the rules give the same numbers."""

from running import environment, python

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import jaxcnnbp
from jaxcnnbp import nn

assert len(jax.devices()) == 8
mesh = jax.make_mesh((4, 2), ("images", "maps"), axis_types=(AxisType.Auto,) * 2)
generator = np.random.default_rng(0)

def drawn(*shape):
    return jnp.asarray(generator.normal(size=shape), jnp.float32)

x, labels = drawn(8, 6, 6, 4), jnp.arange(8) % 3
params = dict(kernel=drawn(3, 3, 4, 16), mixed=drawn(2, 2, 16, 4), each=drawn(3, 3, 1, 4), logits=drawn(4, 4),
              square=drawn(1, 1, 4, 4), beta=drawn(4), bias=drawn(4), weights=drawn(4, 3))

def loss(params, x, labels):
    h = jaxcnnbp.relu(jaxcnnbp.correlate(x, params["kernel"], stride=2, padding=1))
    h = jaxcnnbp.add_bias(jaxcnnbp.convolve(h, params["mixed"], padding="SAME"), params["bias"])
    h = jaxcnnbp.correlate(h, params["each"], groups=4, padding="SAME")
    h = jaxcnnbp.combine_maps(h, params["square"], params["logits"], params["bias"])
    h = jaxcnnbp.max_pool(h, (2, 2), padding="SAME", ties="split")
    for kind in (dict(), dict(activation="silu"), dict(pool_kind="mean")):
        h = jaxcnnbp.conv_block(h, params["square"], params["bias"], pool=2, pool_padding="SAME", **kind)
    h = jaxcnnbp.subsample(jaxcnnbp.avg_pool(h, (2, 2)), params["beta"], params["bias"], (2, 2))
    return nn.softmax_cross_entropy(jaxcnnbp.dense(h.mean((1, 2)), params["weights"]), labels)

def assert_same(found, wanted):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-4), found, wanted)

gradients = jax.jit(jax.value_and_grad(loss))
wanted = gradients(params, x, labels)

# Sharded arrays: the compiler places the work.
for of_x, of_kernel in (
    (P("images"), P()),
    (P(("images", "maps")), P()),
    (P("images", None, None, "maps"), P(None, None, None, "maps")),
):
    own = params | {"kernel": jax.device_put(params["kernel"], NamedSharding(mesh, of_kernel))}
    assert_same(gradients(own, jax.device_put(x, NamedSharding(mesh, of_x)), labels), wanted)

# A function for each device: parameters that all share, images of its own.
def mapped(body, out_specs):
    return jax.shard_map(body, mesh=mesh, in_specs=(P(), P("images"), P("images")), out_specs=out_specs)

def mean_over_devices(params, x, labels):
    return jax.lax.pmean(loss(params, x, labels), "images")

assert_same(jax.jit(jax.value_and_grad(mapped(mean_over_devices, P())))(params, x, labels), wanted)
assert_same(jax.jit(mapped(jax.value_and_grad(mean_over_devices), P()))(params, x, labels), wanted)

# Forward mode, outside and inside.
with jaxcnnbp.mode("both_ways"):
    wanted = jax.jvp(loss, (params, x, labels), (params, x, np.zeros(8, jax.dtypes.float0)))
    one = mapped(mean_over_devices, P())
    assert_same(jax.jvp(lambda params, x: jax.jit(one)(params, x, labels), (params, x), (params, x)), wanted)

    def slope(params, x, labels):
        found = jax.jvp(lambda params, x: loss(params, x, labels), (params, x), (params, x))
        return jax.tree.map(lambda a: jax.lax.pmean(a, "images"), found)

    assert_same(jax.jit(mapped(slope, P()))(params, x, labels), wanted)

# Where the shardings are part of the types.
def energy(x):
    h = jaxcnnbp.conv_block(x, params["mixed"][..., :4, :], params["bias"], activation="silu", pool=2)
    return jnp.sum(jaxcnnbp.max_pool(h, (2, 2)) ** 2)

wanted = energy(x), jax.grad(energy)(x), np.vdot(jax.grad(energy)(x), x)
with jax.set_mesh(jax.make_mesh((4, 2), ("images", "maps"), axis_types=(AxisType.Explicit,) * 2)):
    spread = jax.device_put(np.asarray(x), P("images"))
    params = jax.tree.map(np.asarray, params)
    assert_same(jax.jit(jax.value_and_grad(energy))(spread), wanted[:2])
    with jaxcnnbp.mode("both_ways"):
        assert_same(jax.jvp(jax.jit(energy), (spread,), (spread,)), wanted[::2])

print("same")
"""


def test_eight_devices():
    done = python("-c", PROGRAM, env=environment(devices=8, quick=True))
    assert done.stdout.strip() == "same", done.stderr[-2000:]
