"""Blocks keep what their backward pass needs and no more, and are the layers that they join."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import BLOCKS, named
from check import assert_same, delta_like, value_and_pullback
from marks import first_are_quick, slow_but

import jaxcnnbp
from jaxcnnbp import nn
from jaxcnnbp.nn.models import lenet5
from jaxcnnbp.ops import block
from jaxcnnbp.ops.activation import rule_named

X, KERNEL, BIAS = jnp.ones((2, 8, 6, 3)), jnp.ones((3, 3, 3, 4)), jnp.ones(4)
OUTPUT, POOLED = 2 * 8 * 6 * 4, 2 * 4 * 3 * 4
MAX, MEAN = (dict(padding=1, pool=2, pool_strides=2, pool_kind=kind) for kind in ("max", "mean"))


def kept(fun, *arrays):
    """The distinct arrays that `jax.vjp` keeps for the backward pass."""
    _, pullback = jax.vjp(fun, *arrays)
    leaves = [leaf for leaf in jax.tree.leaves(pullback) if isinstance(leaf, jax.Array)]
    return list({leaf.unsafe_buffer_pointer(): leaf for leaf in leaves}.values())


def size_of(arrays):
    return sum(array.nbytes for array in arrays)


# --- what is kept


@pytest.mark.parametrize(
    ("activation", "options", "wanted"),
    first_are_quick(
        7,
        [
            ("relu", MAX, POOLED * (1 + 4)),  # a byte for the winner, and y, which the next layer keeps anyway
            ("gelu", MAX, POOLED * (1 + 4)),  # the winner, and the input of gelu there
            (None, MAX, POOLED),
            ("relu", MEAN, OUTPUT // 8),
            ("logistic", MEAN, OUTPUT * 4),
            (None, MEAN, 0),
            ("silu", dict(padding=1), OUTPUT * 4),
            ("leaky_relu", MAX, POOLED * (1 + 4)),
            ("tanh", MAX, POOLED * (1 + 4)),
            ("silu", MAX | dict(pool_kind="min"), POOLED * (1 + 4)),
            ("leaky_relu", MEAN, OUTPUT // 8),
            ("gelu", MEAN, OUTPUT * 4),
            ("relu", dict(padding=1), OUTPUT * 4),
            (None, dict(padding=1), 0),
        ],
    ),
)
def test_bytes_kept(activation, options, wanted):
    arrays = kept(lambda *a: jaxcnnbp.conv_block(*a, activation=activation, **options), X, KERNEL, BIAS)
    assert size_of(arrays) == X.nbytes + KERNEL.nbytes + wanted


def test_falling_leaky_relu_keeps_a_bit():
    options = dict(activation="leaky_relu", activation_argument=-0.5, padding=1)
    arrays = kept(lambda *a: jaxcnnbp.conv_block(*a, **options), X, KERNEL, BIAS)
    assert size_of(arrays) == X.nbytes + KERNEL.nbytes + OUTPUT // 8


def test_bits_are_packed_along_the_axis_that_wastes_fewest():
    u = jnp.zeros((3, 5, 16, 4))
    assert block._pack_signs(u).shape == (3, 5, 2, 4)


def lenets():
    """LeNet-5 as the package ships it, and rebuilt from blocks; the parameters are the same ones."""
    layers = lenet5().layers
    joined = (nn.ConvBlock(*layers[:3]), nn.ConvBlock(*layers[3:6]), *layers[6:])
    apart, blocks = nn.Sequential(layers), nn.Sequential(joined)
    params = apart.init(jax.random.key(0), (4, 28, 28, 1))
    renamed = {"block1": params["conv1"], "block2": params["conv2"]}
    return apart, params, blocks, renamed | {name: p for name, p in params.items() if name.startswith("dense")}


@pytest.mark.slow
def test_lenet5_of_blocks():
    apart, params, blocks, renamed = lenets()
    x, labels = jax.device_put(np.random.default_rng(0).normal(size=(4, 28, 28, 1)).astype(jnp.float32)), jnp.arange(4)

    def found(model, params):
        return jax.jit(lambda p, x: nn.backprop(model, p, x, labels, nn.softmax_cross_entropy))(params, x)

    of_layers, of_blocks = found(apart, params), found(blocks, renamed)
    assert blocks.init(jax.random.key(0), x.shape).keys() == renamed.keys()
    assert_same(of_blocks.outputs, of_layers.outputs, 1e-6)
    assert_same(list(of_blocks.gradients.values()), list(of_layers.gradients.values()), 1e-5)
    # The delta of a block is that of its pool.
    assert_same(of_blocks.deltas["block1"], of_layers.deltas["pool1"], 1e-5)
    assert_same(of_blocks.deltas["input"], of_layers.deltas["input"], 1e-5)


@pytest.mark.slow
def test_lenet5_of_blocks_keeps_less():
    apart, params, blocks, renamed = lenets()
    x = jnp.ones((4, 28, 28, 1))
    with jaxcnnbp.mode("autodiff"):
        of_autodiff = size_of(kept(apart.apply, params, x))
    of_layers, of_blocks = size_of(kept(apart.apply, params, x)), size_of(kept(blocks.apply, renamed, x))
    weights = size_of(jax.tree.leaves(params))
    # Outside of jit y is kept twice, for the block that gave it and for the next.
    assert of_blocks - weights < 0.55 * (of_layers - weights)
    assert of_blocks - weights < 0.3 * (of_autodiff - weights)


@pytest.mark.slow
def test_a_compiled_step_needs_less():
    """The compiler keeps the bits, and does not find them anew in the backward pass."""
    x, conv, relu, pool = jnp.ones((4, 32, 32, 8)), nn.Conv(8, 1), nn.Relu(), nn.MeanPool(2, 1)

    def bytes_of(*layers):
        model = nn.Sequential(layers * 4)
        loss = jax.jit(jax.value_and_grad(lambda p: jnp.sum(model.apply(p, x) ** 2)))
        params = jax.eval_shape(lambda: model.init(jax.random.key(0), x.shape))
        return loss.lower(params).compile().memory_analysis().temp_size_in_bytes

    assert bytes_of(nn.ConvBlock(conv, relu, pool)) < 0.8 * bytes_of(conv, relu, pool)


# --- ties, plateaus, and numbers that are none


def compiled(fun, arrays, delta):
    """`value_and_pullback` as one program."""
    return jax.jit(lambda arrays, delta: value_and_pullback(fun, arrays, delta))(arrays, delta)


def one_after_another(x, kernel, bias, pool=2, activation="relu"):
    y = jaxcnnbp.add_bias(jaxcnnbp.correlate(x, kernel), bias)
    return jaxcnnbp.max_pool(getattr(jaxcnnbp, activation)(y), (pool,), (pool,))


def as_block(x, kernel, bias, pool=2, activation="relu"):
    return jaxcnnbp.conv_block(x, kernel, bias, activation=activation, pool=pool, pool_strides=pool)


def line(*values, dtype="float32"):
    return jax.device_put(np.array(values, dtype).reshape(1, -1, 1))


ONE, NOTHING = jnp.ones((1, 1, 1)), jnp.zeros(1)


@pytest.mark.parametrize("rule", ["identity", "relu", "logistic", "tanh", "scaled_tanh", "leaky_relu"])
def test_a_slope_told_by_the_output_belongs_to_what_never_falls(rule):
    """What `block_fwd` relies on where it pools first."""
    found = rule_named(rule)
    assert found.from_output
    values = found.value(jnp.linspace(-20, 20, 4001))
    # Two values of a float32 function that are equal but for rounding may stand in the wrong order.
    assert float(jnp.min(jnp.diff(values))) >= -1e-6


@pytest.mark.parametrize("rule", [("gelu", None), ("gelu", False), ("silu", None), ("leaky_relu", -0.1)])
def test_what_falls_is_not_told_by_the_output(rule):
    assert not rule_named(*rule).from_output


@pytest.mark.parametrize(
    ("activation", "images"),
    [("relu", [(-1, -2, -3, -1), (-1, -1, 0, 0), (2, 2, 1, 3)]), ("tanh", [(30, 40, -40, -30)])],
)
def test_plateaus_and_ties(activation, images):
    """Where f is flat both send nothing; where u itself ties both take the first."""
    arrays, delta = (np.float32(images)[..., None], ONE, NOTHING), np.float32([[[1], [10]]] * len(images))
    found = compiled(lambda *a: as_block(*a, activation=activation), arrays, delta)
    assert_same(found, compiled(lambda *a: one_after_another(*a, activation=activation), arrays, delta), 0)


@pytest.mark.parametrize("dtype", slow_but(["bfloat16"], ["bfloat16", "float16"]))
def test_tie_by_rounding_goes_to_the_larger_input(dtype):
    u = {"bfloat16": (2.5, 2.516), "float16": (4, 4.004)}[dtype]
    arrays = (line(*u, dtype=dtype), ONE.astype(dtype), NOTHING.astype(dtype))
    assert len(set(np.ravel(jaxcnnbp.tanh(arrays[0])).tolist())) == 1
    assert arrays[0][0, 0] < arrays[0][0, 1]
    delta = line(1, dtype=dtype)
    (value, (dx, *of_parameters)), (wanted, (swapped, *others)) = (
        compiled(lambda *a, f=f: f(*a, activation="tanh"), arrays, delta) for f in (as_block, one_after_another)
    )
    assert_same((value, dx[:, ::-1]), (wanted, swapped))
    assert dx[0, 0, 0] == 0 != dx[0, 1, 0]
    assert_same(of_parameters[1], others[1])


def test_windows_on_padding_alone_are_those_of_the_pool():
    arrays = (line(1, 2), ONE, NOTHING)
    options = dict(activation="tanh", pool=2, pool_padding=((3, 0),))
    value, (_, _, db) = compiled(lambda *a: jaxcnnbp.conv_block(*a, **options), arrays, line(5, 0, 0, 0))
    assert_same(value, jaxcnnbp.max_pool(jaxcnnbp.tanh(arrays[0]), (2,), padding=((3, 0),)), 1e-6)
    assert value[0, 0, 0] == -jnp.inf
    assert db.item() == 0


def test_nan_wins():
    found = as_block(line(1, jnp.nan, 3, 2), ONE, NOTHING)
    assert_same(found, line(jnp.nan, 3))


@pytest.mark.parametrize("options", [MAX, MEAN, dict(activation="gelu", **MAX)])
def test_empty_batch(options):
    arrays = (jnp.zeros((0, 8, 6, 3)), KERNEL, BIAS)
    _, gradients = compiled(lambda *a: jaxcnnbp.conv_block(*a, **options), arrays, jnp.zeros((0, 4, 3, 4)))
    assert [g.shape for g in gradients] == [a.shape for a in arrays]
    assert all(np.all(g == 0) for g in gradients)


def test_forward_mode_gives_way(x64):
    arrays = named(BLOCKS, "without pool")[0].arrays()

    @jax.jit
    def slope(arrays):
        return jax.jvp(jaxcnnbp.conv_block, arrays, arrays)[1]

    with jaxcnnbp.mode("both_ways"):
        found = slope(arrays)
    with jaxcnnbp.mode("autodiff"):
        assert_same(found, slope(arrays))


@pytest.mark.parametrize("name", slow_but(["max"], ["max", "gelu mean"]))
def test_scan_and_checkpoint(name, x64):
    (case,) = named(BLOCKS, name)
    arrays, delta = case.arrays(), delta_like(case, case.arrays())

    def scanned(*arrays):
        return jax.lax.scan(lambda _, a: (None, jax.checkpoint(case)(*a)), None, [a[None] for a in arrays])[1][0]

    assert_same(compiled(scanned, arrays, delta), compiled(case, arrays, delta))


@pytest.mark.slow
def test_before_the_judge():
    x, kernel, bias = named(BLOCKS, "max")[0].arrays("float32")
    report = jaxcnnbp.compare_gradients(lambda *a: jnp.sum(jnp.sin(named(BLOCKS, "max")[0](*a))), x, kernel, bias)
    assert report.ok, str(report)
