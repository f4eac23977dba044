"""Sharded over eight devices, in whatever way, the rules give the same numbers as on one."""

from __future__ import annotations

import pytest
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
# Two collectives, of which only one is inside a call that XLA keeps, can meet in another order on each device.
assert "inlineable" not in gradients.lower(params, x, labels).as_text()

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


# Rows, columns, channels, on meshes with and without an axis to spare: XLA adds up the parts of a convolution over too
# many devices there (docs/where-jax.md).
ANY_WAY = """
import jax, jax.numpy as jnp, numpy as np
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import jaxcnnbp

def mesh(*extents):
    return jax.make_mesh(extents, tuple("abc"[:len(extents)]), axis_types=(AxisType.Auto,) * len(extents))

spare, full, generator = mesh(2, 2, 2), mesh(2, 2), np.random.default_rng(0)

def drawn(shape):
    return jnp.asarray(generator.normal(size=shape), jnp.float32)

def pulled(f):
    def both(operands, delta):
        y, pull = jax.vjp(f, *operands)
        return y, pull(delta)
    return jax.jit(both)

def check(name, f, shapes, places):
    operands = [drawn(shape) for shape in shapes]
    delta, both = drawn(f(*operands).shape), pulled(f)
    wanted = both(operands, delta)
    for mesh, *specs in places:
        laid = [jax.device_put(a, NamedSharding(mesh, s)) for a, s in zip(operands, specs)]
        for a, b in zip(jax.tree.leaves(both(laid, delta)), jax.tree.leaves(wanted)):
            # Sums of a few hundred products in another order, each rounded to 6e-8 of the largest.
            np.testing.assert_allclose(a, b, 1e-4, 1e-5 * np.abs(b).max(), err_msg=f"{name} {mesh.shape} {specs}")

rows_and_outputs = full, P(None, "a"), P(None, None, None, "b")
PLACES = (
    (spare, P("a", "b"), P()), (spare, P(None, None, "b"), P()), rows_and_outputs,
    (full, P(None, "b", None, "a"), P(None, None, "a")), (spare, P(None, "a", "b"), P(None, None, None, "c")),
)
for name, x, kernel, places, options in (
    ("dense", (4, 4, 6, 16), (3, 3, 16, 4), PLACES, dict(padding="SAME")),
    ("few channels", (4, 4, 6, 4), (3, 3, 4, 4), PLACES[:3], dict(padding="SAME")),
    ("strided", (4, 8, 6, 16), (3, 2, 16, 4), PLACES[1:3], dict(padding=1, stride=2)),
    ("grouped", (4, 4, 4, 8), (3, 3, 4, 4), PLACES[1:3], dict(padding="SAME", groups=2, dilation=(1, 2))),
    ("depthwise", (4, 4, 4, 4), (3, 3, 1, 4), PLACES[1:3], dict(padding="SAME", groups=4)),
    ("many taps", (4, 4, 4, 9), (13, 11, 9, 2), PLACES[1:3], dict(padding="SAME")),
):
    check(name, lambda x, k: jaxcnnbp.correlate(x, k, **options), (x, kernel), places)

def layer(x, kernel):
    h = jaxcnnbp.conv_block(x, kernel, pool=(3, 2), pool_strides=2, pool_padding="SAME", activation="tanh")
    h = jaxcnnbp.avg_pool(jaxcnnbp.max_pool(h, (2, 2), padding="SAME", ties="split"), (2, 2), padding="SAME")
    h = h + jaxcnnbp.max_unpool(*jaxcnnbp.max_pool_with_argmax(h, (2, 2), (2, 2)), h.shape[1:3])
    h = jaxcnnbp.upsample(jaxcnnbp.lp_pool(h, 2, (2, 2)), (2, 2)) + jaxcnnbp.upsample(
        jaxcnnbp.reduce_window(h, 1.0, lax.mul, (1, 2, 2, 1), (1, 2, 2, 1)), (2, 2))
    return jaxcnnbp.adaptive_max_pool(h, (3, 3)) + jaxcnnbp.adaptive_avg_pool(h, (3, 3))

def slope(x, kernel):  # second order by both operands
    def energy(x, kernel):
        return jnp.sum(jnp.sin(jaxcnnbp.max_pool(jaxcnnbp.correlate(x, kernel, padding=1), (2, 2))))
    return sum(map(jnp.sum, jax.grad(energy, (0, 1))(x, kernel)))

check("layers", layer, ((4, 8, 8, 2), (1, 1, 2, 2)), (PLACES[0], PLACES[2]))
check("second order", slope, ((4, 6, 6, 2), (3, 3, 2, 2)), PLACES[2:3])
print("same")
"""

# Every public function where the shardings are part of the types: its output, and its gradients with their types.
IN_TYPES = """
import jax, jax.numpy as jnp, numpy as np
from jax import lax
from jax.sharding import AxisType, PartitionSpec as P
import jaxcnnbp as J
from jaxcnnbp import nn

generator = np.random.default_rng(0)
X, K, first, argmax = (4, 6, 4, 2), (3, 3, 2, 4), ("NCHW", "OIHW", "NCHW"), np.arange(48).reshape(4, 3, 2, 2) % 24
CALLS = (
    (lambda x, k: J.correlate(x, k, padding="SAME"), X, K),
    (lambda x, k: J.convolve(x, k, groups=2, stride=2), X, (3, 3, 1, 4)),
    (lambda x, k: J.conv(x, k, (1, 1), "SAME"), X, (2, 6, 3, 3)),
    (lambda x, k: J.conv_transpose(x, k, (2, 2), "SAME"), X, K),
    (lambda d, k: J.conv_input_grad(d, k, (4, 5, 4, 4), dimension_numbers=first), X, (6, 5, 1, 3)),
    (lambda x, d: J.conv_kernel_grad(x, d, (3, 6, 2, 2)), X, (4, 3, 3, 1)),
    (lambda d: J.conv_bias_grad(d), X),
    (lambda x: J.max_pool(x, (2, 2), (2, 2)), X),
    (lambda x: J.min_pool(x, (2,), padding="SAME"), X),
    (lambda x: J.avg_pool(x, (2, 2), padding="SAME"), X),
    (lambda x: J.max_pool_with_argmax(x, (2, 2))[0], X),
    (lambda x: J.max_unpool(x, argmax, (6, 4)), (4, 3, 2, 2)),
    (lambda x: J.upsample(x, (2, 3)), X),
    (lambda x: J.lp_pool(x, 2, (2, 2)), X),
    (lambda x: J.adaptive_avg_pool(x, (3, 3)) + J.adaptive_max_pool(x, (3, 3)), X),
    (lambda x: J.reduce_window(x, 1.0, lax.mul, (1, 2, 2, 1), (1, 2, 2, 1)), X),
    (lambda x: J.reduce_window(x, 0.0, jnp.logaddexp, (1, 2, 2, 1)), X),
    (lambda x, w, b: J.dense(x, w, b), X, (2, 3), (3,)),
    (lambda x, a, b: J.subsample(x, a, b, (2, 2)), X, (2,), (2,)),
    (lambda x, k, c, b: J.combine_maps(x, k, c, b), X, K, (2, 4), (4,)),
    (lambda c: J.combination_entropy(c), (4, 3)),
    (lambda x, k, b: J.conv_block(x, k, b, pool=2, activation="silu"), X, K, (4,)),
    (lambda x: J.gelu(J.leaky_relu(J.scaled_tanh(x))), X),
    (lambda x: nn.softmax_cross_entropy(x, jnp.arange(4) % 3) + nn.squared_error(x, jnp.arange(4) % 3), (4, 3)),
)

LOGADDEXP = 16

@jax.jit
def all_of_them(operands):  # in one program, which is quicker to compile than one a function
    def energy(operands):
        outputs = [f(*own) for (f, *_), own in zip(CALLS, operands)]
        return sum(jnp.sum(jnp.sin(y) ** 2) for y in outputs), outputs
    return jax.grad(energy, has_aux=True)(operands)

operands = [[generator.normal(size=shape).astype(np.float32) for shape in shapes] for _, *shapes in CALLS]
wanted = all_of_them(operands)
with jax.set_mesh(jax.make_mesh((2, 2), ("a", "b"), axis_types=(AxisType.Explicit,) * 2)):
    # Images, then columns where there are any; for a reducer of one's own lax wants outputs that divide as well.
    for in_columns in (False, True):
        specs = [P(None, None, "b") if in_columns and len(x) == 4 and n != LOGADDEXP else P("a")
                 for n, (_, x, *_) in enumerate(CALLS)]
        laid = [[jax.device_put(x, s), *map(jnp.asarray, others)] for s, (x, *others) in zip(specs, operands)]
        found = all_of_them(laid)
        assert jax.tree.map(jax.typeof, found[0]) == jax.tree.map(jax.typeof, laid)
        for (place, a), b in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, 1e-4, 1e-5 * np.abs(b).max(), err_msg=f"{place} {specs}")

# Third order, where each device has its own images and JAX keeps account of what differs from device to device.
def energy(x):
    pools = J.max_pool(x, (2, 2)), J.reduce_window(x, 1.0, lax.mul, (1, 2, 1, 1))
    return sum(jnp.sum(jnp.sin(y)) for y in pools)

def third(x):
    first = jax.grad(energy)
    return jax.grad(lambda x: jnp.sum(jnp.sin(jax.grad(lambda x: jnp.sum(first(x) ** 2))(x))))(x)

x = generator.normal(size=(2, 3, 2, 1)).astype(np.float32)
devices = jax.make_mesh((2,), ("a",), axis_types=(AxisType.Auto,))
mapped = jax.shard_map(third, mesh=devices, in_specs=P("a"), out_specs=P("a"))
np.testing.assert_allclose(jax.jit(mapped)(x), jax.jit(third)(x), 1e-4, 1e-4)
print("same")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "devices"),
    [(PROGRAM, 8), (ANY_WAY, 8), (IN_TYPES, 4)],
    ids=["images and channels", "any way", "in types"],
)
def test_same_on_many_devices(program, devices):
    done = python("-c", program, env=environment(devices=devices, quick=True))
    assert done.stdout.strip() == "same", done.stderr[-2000:]
