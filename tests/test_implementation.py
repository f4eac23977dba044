"""`implementation` chooses how convolutions are computed; `explain_choice` says what serves, and why."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CONVOLUTIONS, LAX_CONVOLUTIONS, Case
from check import assert_same, delta_like, value_and_pullback
from marks import one_in

import jaxcnnbp
from jaxcnnbp import correlate, explain_choice, implementation, manual_backward
from jaxcnnbp.ops.conv.implementations import implementations

LONG = Case("129 taps", "correlate", ((1, 131, 1), (129, 1, 2)))
CASES = (*CONVOLUTIONS, *LAX_CONVOLUTIONS, LONG)
PASSES = ("forward", "input grad", "kernel grad")
ANYWHERE = sorted(name for name in implementations() if name not in ("pallas", "strided"))
IMAGES, KERNEL = jax.ShapeDtypeStruct((2, 8, 8, 16), np.float32), jax.ShapeDtypeStruct((3, 3, 16, 24), np.float32)


def served(fun, *args, **options):
    """The implementation of each pass, by rule and pass; of the last one of equal rules."""
    return {(row.rule, row.pass_name): row.implementation for row in explain_choice(fun, *args, **options).rows}


def of_conv(fun, *args, **options):
    found = served(fun, *args, **options)
    return tuple(found["conv", name] for name in PASSES)


@functools.cache
def supporting(case):
    """The names that each pass of a case may ask for."""
    rows = explain_choice(case, *(jax.ShapeDtypeStruct(shape, np.float64) for shape in case.shapes)).rows
    return {row.pass_name: {row.implementation, *row.others} for row in rows}


def supports(case, name):
    has = implementations()[name]
    return all(name in names for of_pass, names in supporting(case).items() if of_pass in has)


def supported_by(name):
    return next(case for case in CASES if supports(case, name))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ANYWHERE)
def test_each_serves_where_it_is_asked_for(name):
    case = supported_by(name)
    with implementation(name):
        chosen = served(case, *case.arrays())
    assert {chosen["conv", of_pass] for of_pass in implementations()[name]} == {name}


# The forms themselves: in `test_forms.py`.
@pytest.mark.usefixtures("quick", "x64")
@pytest.mark.parametrize("name", one_in(6, ANYWHERE))
def test_each_is_the_reference(name):
    case = supported_by(name)
    arrays, delta = case.arrays(), delta_like(case, case.arrays())

    @jax.jit
    def both(arrays, delta):
        return value_and_pullback(case, arrays, delta)

    with implementation("xla" if case is LONG else "reference"):  # so many taps take long to compile one by one
        expected = both(arrays, delta)
    with implementation(name):
        assert_same(both(arrays, delta), expected)


def test_unknown_name():
    with pytest.raises(ValueError, match=r"`implementation` \(='im2col'\) is unknown; use one of 'columns'"):
        implementation("im2col")


def test_one_that_does_not_support_the_layer():
    expected = (
        r"`implementation` \(='winograd'\) must have a form for the forward pass of this convolution \(window 3x3,"
        r" stride 2x2, groups=1, 16 to 24 channels in each\); use one of 'xla', .*'patches', .*, or None."
    )
    with implementation("winograd"), pytest.raises(ValueError, match=expected):
        jax.eval_shape(functools.partial(correlate, stride=2), IMAGES, KERNEL)
    if jax.default_backend() == "cpu":
        of_channels = jax.ShapeDtypeStruct((3, 3, 1, 16), np.float32)
        with implementation("pallas"), pytest.raises(ValueError, match="'pallas'.* use one of 'xla', .*'shifts'"):
            jax.eval_shape(functools.partial(correlate, groups=16), IMAGES, of_channels)


def test_a_pass_that_it_never_has_is_the_default():
    strided = functools.partial(correlate, stride=2, padding=1)
    default = of_conv(strided, IMAGES, KERNEL)
    with implementation("depth_to_space"):
        assert of_conv(strided, IMAGES, KERNEL) == (default[0], "depth_to_space", default[2])


def test_pools_have_one():
    pool = functools.partial(jaxcnnbp.max_pool, window_shape=(2, 2))
    for name in (None, "reference", "winograd"):
        with implementation(name):
            assert served(pool, IMAGES) == {
                ("extreme_pool", "forward"): "reference",
                ("extreme_pool", "input grad"): "reference",
            }


def test_part_of_the_key_of_jit():
    layer = jax.jit(correlate)
    texts = []
    for name in ("reference", "xla", "reference"):
        with implementation(name):
            texts.append(layer.lower(IMAGES, KERNEL).as_text())
    assert texts[0] == texts[2]
    assert ["stablehlo.convolution" in text for text in texts] == [False, True, False]


@pytest.mark.parametrize("way", ["manual", "both_ways"])
@pytest.mark.parametrize("wrap", [jax.jit, lambda fun: fun], ids=["jit", "eager"])
def test_backward_pass_follows_the_call(wrap, way):
    def loss(name, x, kernel):
        with implementation(name):
            y = correlate(x, kernel)
        return jnp.sin(y).sum()

    for inside, outside in (("reference", "xla"), ("xla", "reference")):
        with implementation(outside), jaxcnnbp.mode(way):
            gradient = jax.grad(wrap(functools.partial(loss, inside)), (0, 1))
            text = str(jax.make_jaxpr(gradient)(IMAGES, KERNEL))
        assert ("conv_general_dilated[" in text) == (inside == "xla")


def test_parts_are_the_default():
    """A form that is made of smaller convolutions does not ask for itself again."""
    volumes = jnp.ones((1, 4, 4, 4, 2)), jnp.ones((2, 2, 2, 2, 3))
    with implementation("slices"):
        assert correlate(*volumes).shape == (1, 3, 3, 3, 3)


LAYERS = {
    "3x3": (correlate, (IMAGES.shape, KERNEL.shape)),
    "1x1": (correlate, (IMAGES.shape, (1, 1, 16, 24))),
    "depthwise": (functools.partial(correlate, groups=16), (IMAGES.shape, (3, 3, 1, 16))),
    "grouped": (functools.partial(correlate, groups=4), (IMAGES.shape, (3, 3, 4, 16))),
    "transposed": (
        lambda x, k: jaxcnnbp.conv_transpose(x, k, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")),
        (IMAGES.shape, (2, 2, 16, 8)),
    ),
}


@pytest.mark.skipif(jax.device_count("cpu") > 1, reason="several devices have tables of their own")
@pytest.mark.parametrize(
    ("layer", "able"),
    [
        ("3x3", ("patches", "winograd", "reference", "xla")),
        ("1x1", ("reference", "patches", "xla")),
        ("depthwise", ("tap_rows", "reference", "xla")),
        ("grouped", ("in_turn", "xla", "reference")),
        ("transposed", ("patches", "reference", "xla")),
    ],
)
def test_layers(layer, able):
    fun, shapes = LAYERS[layer]
    arrays = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    choices = explain_choice(lambda x, k: fun(x, k), *arrays, platform="cpu")  # noqa: PLW0108 - a line to be found
    assert [(row.rule, row.pass_name) for row in choices.rows] == [("conv", name) for name in PASSES]
    for row in choices.rows:
        assert set(able) <= {row.implementation, *row.others}
        assert row.implementation not in row.others
        assert row.reason
        assert "test_implementation.py" in row.where
    assert of_conv(fun, *arrays, platform="tpu") == ("xla",) * 3
    on_cuda = explain_choice(fun, *arrays, platform="cuda").rows
    assert all(("pallas" in row.others) == (layer == "depthwise") for row in on_cuda)


def test_through_everything():
    """Equal layers on two lines are two; a gradient, a loop, a branch and a mapped axis hide nothing."""

    def net(x, kernel):
        x = correlate(x, kernel, padding="SAME")
        x = correlate(x, kernel, padding="SAME")

        def step(carry, _):
            return jax.jit(functools.partial(correlate, padding="FULL", groups=16))(carry, kernel[:2, :2, :1])[
                :, 1:, 1:
            ], None

        x = jax.lax.scan(step, x, None, 3)[0]
        x = jax.lax.cond(x.sum() > 0, lambda x: jaxcnnbp.max_pool(x, (2, 2), (2, 2)), lambda x: x[:, :4, :4], x)
        return jax.vmap(lambda one: jaxcnnbp.avg_pool(one[None], (2, 2)))(x).sum()

    kernel = jax.ShapeDtypeStruct((3, 3, 16, 16), np.float32)
    for fun in (net, jax.jit(net), jax.jit(jax.grad(net)), jax.grad(jax.checkpoint(net))):
        rows = explain_choice(fun, IMAGES, kernel).rows
        assert [row.rule for row in rows if row.pass_name == "forward"] == [
            "conv",
            "conv",
            "conv",
            "extreme_pool",
            "mean_pool",
        ]
        assert all(row.calls == 1 for row in rows)
        assert rows[0].where != rows[3].where
        assert rows[-1].operands == ("float32[1,4,4,16]",)


def test_flax_net():
    linen = pytest.importorskip("flax.linen")

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.Conv(8, (3, 3))(x)
            x = linen.Conv(8, (3, 3))(x)
            return linen.max_pool(x, (2, 2), (2, 2)).sum()

    images, net = jnp.ones((2, 8, 8, 8)), Net()
    params = net.init(jax.random.key(0), images)
    assert not explain_choice(net.apply, params, images).rows
    with implementation("patches"):
        rows = explain_choice(jax.jit(jax.grad(manual_backward(net.apply))), params, images).rows
    assert [row.rule for row in rows] == ["conv"] * 6 + ["extreme_pool"] * 2
    assert [row.implementation for row in rows] == ["patches"] * 6 + ["reference"] * 2
    assert all(f"Conv_{i}" in rows[3 * i].scope for i in range(2))


def test_other_rules():
    x, kernel = jnp.ones((1, 6, 6, 2)), jnp.ones((3, 3, 2, 4))
    assert set(served(functools.partial(jaxcnnbp.conv_block, pool=2), x, kernel)) == {
        ("block", name) for name in PASSES
    }
    grad = explain_choice(
        lambda delta, k: jaxcnnbp.conv_input_grad(delta, k, (1, 1, 3)), jnp.ones((1, 1, 2)), jnp.ones((1, 1, 2))
    )
    assert [(row.rule, row.pass_name) for row in grad.rows] == [("conv_input_grad", "input grad")]
    assert not explain_choice(jaxcnnbp.relu, x).rows


def test_reads_as_a_table():
    choices = explain_choice(functools.partial(correlate, stride=2), IMAGES, KERNEL)
    head, *lines = repr(choices).splitlines()
    assert head.startswith(f"on {jax.default_backend()}")
    assert lines[0] == "conv float32[2,8,8,16], float32[3,3,16,24]"
    assert [line[2:13].strip() for line in lines[1:]] == list(PASSES)
    assert "no convolution" in repr(explain_choice(jnp.sin, 1.0))


def test_nothing_is_computed_or_left_behind():
    def fun(x, kernel):
        y = correlate(x, kernel)
        assert isinstance(y, jax.core.Tracer)
        return y

    before = jax.jit(fun).lower(IMAGES, KERNEL).as_text()
    explain_choice(fun, IMAGES, KERNEL)
    assert jax.jit(fun).lower(IMAGES, KERNEL).as_text() == before
