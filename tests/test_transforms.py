"""jit, scan, cond, checkpoint and abstract evaluation leave a rule what it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CONVOLUTIONS, LAYERS, MAX_POOLS, MEAN_POOLS, Case, named
from check import assert_same, delta_like, value_and_pullback

import jaxcnnbp
from jaxcnnbp.hand_written import hand_written

pytestmark = pytest.mark.usefixtures("quick", "x64")

SOME = (
    *named(CONVOLUTIONS, "stride 2 of 3x3", "depthwise strided"),
    *named(MAX_POOLS, "ceil mode overlapping"),
    *named(MEAN_POOLS, "ceil mode overlapping"),
    *[case for case in LAYERS if case.op == "combine_maps"][:1],
    Case("", "silu", ((3, 4),)),
)


def network(params, x):
    """A bit of everything, with the shape of its input."""
    h = jaxcnnbp.tanh(jaxcnnbp.add_bias(jaxcnnbp.correlate(x, params["kernel"], padding="SAME"), params["bias"]))
    h = jaxcnnbp.max_pool(h, (3, 3), padding=1)
    return x + jaxcnnbp.avg_pool(h, (3, 3), padding=1)


def drawn():
    generator = np.random.default_rng(0)
    params = {"kernel": generator.normal(size=(3, 3, 2, 2)) / 4, "bias": generator.normal(size=2)}
    return jax.device_put(params), jax.device_put(generator.normal(size=(2, 4, 5, 2)))


@pytest.mark.parametrize("case", SOME, ids=str)
def test_jit_and_checkpoint_are_eager(case):
    arrays, delta = case.arrays(), delta_like(case, case.arrays())
    eager = value_and_pullback(case, arrays, delta)
    for fun in (case, jax.checkpoint(case)):
        assert_same(jax.jit(lambda a, d, fun=fun: value_and_pullback(fun, a, d))(arrays, delta), eager)


def test_scan_is_a_loop():
    params, x = drawn()

    def scanned(params, x):
        return jnp.sum(jax.lax.scan(lambda h, _: (network(params, h), None), x, length=3)[0] ** 2)

    def looped(params, x):
        for _ in range(3):
            x = network(params, x)
        return jnp.sum(x**2)

    gradients = [jax.jit(jax.value_and_grad(f, argnums=(0, 1)))(params, x) for f in (scanned, looped)]
    assert_same(*gradients)


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint])
def test_one_trace_for_every_asker(wrap):
    """Inside scan a jitted rule is differentiated twice: first the input is fixed, then it is not."""
    params, x = drawn()

    def deep(step):
        return lambda params, x: jnp.sum(jnp.sin(jax.lax.scan(lambda h, _: (step(params, h), None), x, length=2)[0]))

    with jaxcnnbp.mode("autodiff"):
        wanted = jax.jit(jax.grad(deep(network), (0, 1)))(params, x)
    wrapped = deep(wrap(network))
    for argument in (0, 1):
        assert_same(jax.grad(wrapped, argument)(params, x), wanted[argument])
    assert_same(jax.grad(wrapped, (0, 1))(params, x), wanted)


def test_cond():
    params, x = drawn()

    def either(flag, params):
        return jnp.sum(jax.lax.cond(flag, network, lambda params, x: x * params["bias"].sum(), params, x))

    gradient = jax.jit(jax.grad(either, argnums=1))
    assert_same(gradient(True, params), jax.grad(lambda params: jnp.sum(network(params, x)))(params))
    np.testing.assert_allclose(gradient(False, params)["bias"], jnp.full(2, x.sum()))


@pytest.mark.parametrize("case", SOME, ids=str)
def test_shapes_without_arrays(case):
    abstract = [jax.ShapeDtypeStruct(shape, jnp.float64) for shape in case.shapes]
    assert jax.eval_shape(case, *abstract).shape == case(*case.arrays()).shape


@pytest.mark.parametrize("case", SOME[:2], ids=str)
def test_numpy_arrays_and_lists(case):
    arrays = case.arrays()
    assert_same(case(*map(np.asarray, arrays)), case(*arrays))
    assert_same(case(*(a.tolist() for a in arrays)), case(*arrays))


def test_one_array_in_both_places():
    """The same array as input and kernel takes both gradients."""
    x = jax.device_put(np.random.default_rng(0).normal(size=(3, 3, 3)))
    both = jax.grad(lambda x: jnp.sum(jaxcnnbp.correlate(x, x) ** 2))(x)
    apart = jax.grad(lambda x, k: jnp.sum(jaxcnnbp.correlate(x, k) ** 2), argnums=(0, 1))(x, x)
    assert_same(both, sum(apart))


def test_only_the_pass_that_is_wanted_is_traced():
    """Under a gradient `fwd` serves, and the function itself is not traced for nothing."""
    passes = []

    @hand_written
    @jax.custom_vjp
    def square(x):
        passes.append("function")
        return x * x

    def fwd(x):
        passes.append("forward")
        return x * x, x

    def bwd(x, delta):
        passes.append("backward")
        return (2 * x * delta,)

    square.defvjp(fwd, bwd)
    jax.jit(jax.value_and_grad(square)).lower(3.0)
    assert passes == ["forward", "backward"]
    jax.jit(square).lower(3.0)
    assert passes == ["forward", "backward", "function"]
