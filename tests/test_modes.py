"""`mode` chooses which backward pass the same function has, also inside functions that are jitted already."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import (
    ACTIVATIONS,
    ALL,
    BLOCKS,
    CONVOLUTIONS,
    LAX_CONVOLUTIONS,
    LAYERS,
    MAX_POOLS,
    MEAN_OF_CELLS,
    MEAN_POOLS,
    MIN_POOLS,
    Case,
    named,
)
from check import assert_same, delta_like, value_and_pullback
from jax.experimental import jet, sparse
from jax.extend.core import jaxprs_in_params
from marks import one_in

import jaxcnnbp
from jaxcnnbp import mode
from jaxcnnbp.modes import alternatives
from jaxcnnbp.transform.custom import is_of_this_package

SOME = (
    *CONVOLUTIONS[::4],
    *LAX_CONVOLUTIONS[::3],
    *[case for case in MAX_POOLS[::5] if "alone" not in case.name],
    *named(MAX_POOLS, "dilated"),
    *MIN_POOLS[:1],
    *MEAN_POOLS[::6],
    *MEAN_OF_CELLS[:1],
    Case("split", "max_pool", ((2, 5, 6, 1),), dict(window_shape=(2, 2), ties="split"), "rounded"),
    *ACTIVATIONS,
    *LAYERS,
    *named(BLOCKS, "max", "gelu mean", "overlapping"),
    Case("cropped border", "convolve", ((1, 6, 2), (2, 2, 1)), dict(padding=[(-1, 5)], padding_mode="reflect")),
    Case("border", "conv_block", ((1, 6, 2), (2, 2, 1)), dict(padding=2, pool=2, padding_mode="replicate")),
)


@pytest.mark.usefixtures("quick", "x64")
@pytest.mark.parametrize("case", one_in(4, SOME))
def test_autodiff_agrees(case):
    arrays, delta = case.arrays(), delta_like(case, case.arrays())

    @jax.jit
    def both(arrays, delta):
        return value_and_pullback(case, arrays, delta)

    manual = both(arrays, delta)
    with mode("autodiff"):
        assert_same(manual, both(arrays, delta))


def test_every_operation_has_its_alternatives():
    import jaxcnnbp.audit.oracle

    operations = {name for name in vars(jaxcnnbp) if hasattr(getattr(jaxcnnbp, name), "__wrapped__")}
    tried = {case.op for case in ALL}
    assert tried <= operations <= alternatives["autodiff"].keys()
    assert tried <= alternatives["oracle"].keys()


def test_jitted_functions_are_traced_again():
    modes = []

    @jax.jit
    def traced(x):
        modes.append(mode.value)
        return jax.grad(lambda x: jaxcnnbp.max_pool(x, (2,)).sum())(x)

    x = jnp.asarray([1.0, 2.0, 2.0]).reshape(1, 3, 1)
    traced(x)
    with mode("autodiff"):
        traced(x)
    traced(x)
    assert modes == ["manual", "autodiff"]


def rules_in(jaxpr):
    for eqn in jaxpr.eqns:
        if is_of_this_package(eqn):
            yield eqn
        for inner in jaxprs_in_params(eqn.params):
            yield from rules_in(inner)


def test_no_rule_of_the_package_is_in_the_other_program():
    def count():
        program = jax.make_jaxpr(lambda x, k: jaxcnnbp.relu(jaxcnnbp.correlate(x, k)))
        return len(list(rules_in(program(jnp.ones((1, 5, 1)), jnp.ones((2, 1, 1))).jaxpr)))

    assert count() == 2
    with mode("autodiff"):
        assert count() == 0


def test_modes_nest_and_end():
    with mode("autodiff"):
        with mode("manual"):
            assert mode.value == "manual"
        assert mode.value == "autodiff"
    assert mode.value == "manual"


def test_mode_ends_with_an_error():
    def fail():
        with mode("autodiff"):
            jaxcnnbp.relu(jnp.ones(2, int))

    with pytest.raises(TypeError):
        jax.grad(lambda x: fail())(1)
    assert mode.value == "manual"


def test_what_has_no_counterpart_is_refused():
    with mode("autodiff"), pytest.raises(NotImplementedError, match="ties"):
        jaxcnnbp.max_pool(jnp.ones((1, 4, 1)), (2,), ties="all")


def test_numbers_do_not_depend_on_the_mode():
    x = jax.device_put(np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(jnp.float32))
    values = []
    for name in ("manual", "autodiff", "oracle"):
        with mode(name):
            values.append(jaxcnnbp.avg_pool(jaxcnnbp.max_pool(x, (3, 3), (2, 2)), (2, 2)))
    np.testing.assert_allclose(values[0], values[1], 1e-6)
    np.testing.assert_allclose(values[0], values[2], 1e-6)


@pytest.mark.parametrize(
    "fun",
    [
        lambda x: jaxcnnbp.relu(jaxcnnbp.correlate(x, jnp.ones((2, 2, 3)))),
        lambda x: jaxcnnbp.tanh(jaxcnnbp.avg_pool(x, (2,))),
        lambda x: jaxcnnbp.conv_input_grad(x, jnp.ones((5, 3, 1)), (1, 3, 2)),
        lambda x: jaxcnnbp.conv_kernel_grad(jnp.ones((1, 3, 4)), x, (5, 3, 3), (2,), padding="SAME"),
    ],
)
def test_interpreters_that_know_lax_alone(fun):
    x = jnp.arange(10.0).reshape(1, 5, 2) / 7 - 0.5
    with mode("autodiff"):
        _, (slope, _) = jet.jet(fun, (x,), ((jnp.ones_like(x), jnp.zeros_like(x)),))
        np.testing.assert_allclose(slope, jax.jvp(fun, (x,), (jnp.ones_like(x),))[1], 1e-5, 1e-5)
        dense = sparse.sparsify(lambda m: jaxcnnbp.dense(m, jnp.ones((2, 3))))
        assert dense(sparse.BCOO.fromdense(x[0])).shape == (5, 3)
