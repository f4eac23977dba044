"""`layout`: the same numbers with the channels elsewhere, in values and gradients, for every function that takes it."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import Case
from check import assert_same, delta_like, value_and_pullback
from marks import first_are_quick

import jaxcnnbp
from jaxcnnbp import mode
from jaxcnnbp.modes import alternatives

pytestmark = pytest.mark.usefixtures("quick", "x64")

PLANE, KERNEL = (2, 5, 6, 3), (3, 2, 3, 4)
TWO = dict(window_shape=(2, 3), strides=2)
# The letters of a layout are one for each axis of the input.
CASES = (
    (Case("", "correlate", (PLANE, KERNEL), dict(stride=(1, 2), padding="SAME")), "NCHW"),
    (Case("", "convolve", ((2, 7, 3), (3, 3, 2)), {}), "NCW"),
    (Case("", "conv_block", (PLANE, KERNEL, (4,)), dict(pool=2, pool_strides=2)), "channels_first"),
    (Case("", "combine_maps", (PLANE, KERNEL, (3, 4), (4,))), "NCHW"),
    (Case("", "add_bias", (PLANE, (3,))), "channels_first"),
    (Case("", "max_pool", (PLANE,), TWO), "NCHW"),
    (Case("several batches", "max_pool", ((2, 1, 4, 5, 3),), TWO), "channels_first"),
    (Case("no batch", "max_pool", ((4, 5, 3),), TWO), "channels_first"),
    (Case("an int", "min_pool", (PLANE,), dict(window_shape=2)), "channels_first"),
    (Case("volumes", "avg_pool", ((1, 2, 3, 4, 2),), dict(window_shape=(2, 2, 2))), "ncdhw"),
    (Case("", "lp_pool", (PLANE,), dict(norm_type=2, window_shape=(2, 2))), "channels_first"),
    (Case("", "adaptive_avg_pool", (PLANE,), dict(output_shape=(2, None))), "channels_first"),
    (Case("", "adaptive_max_pool", (PLANE,), dict(output_shape=2)), "channels_first"),
    (Case("", "upsample", (PLANE,), dict(window_shape=(2, 1))), "channels_first"),
    (Case("", "subsample", ((2, 4, 6, 3), (3,), (3,)), dict(window_shape=(2, 2))), "channels_first"),
)


def first(array, rank):
    return jnp.moveaxis(array, -1, -1 - rank)


@pytest.mark.parametrize(("case", "layout"), first_are_quick(6, CASES))
def test_channels_first(case, layout):
    arrays, rank = case.arrays(), case.options.get("window_shape", case.options.get("output_shape"))
    rank = len(rank) if isinstance(rank, tuple) else len(case.shapes[0]) - 2

    def elsewhere(x, *others):
        return getattr(jaxcnnbp, case.op)(first(x, rank), *others, layout=layout, **case.options)

    # A layout is the same in all modes, and the oracle has nothing to compile.
    with mode("oracle" if case.op in alternatives["oracle"] else "autodiff"):
        delta = delta_like(case, arrays)
        wanted = value_and_pullback(lambda *a: first(case(*a), rank), arrays, first(delta, rank))
        assert_same(value_and_pullback(elsewhere, arrays, first(delta, rank)), wanted, 0)


def test_recorded_cells():
    x = jax.device_put(np.random.default_rng(0).normal(size=PLANE))
    values, argmax = jaxcnnbp.max_pool_with_argmax(x, **TWO)
    found = jaxcnnbp.max_pool_with_argmax(first(x, 2), **TWO, layout="NCHW")
    assert_same(found, (first(values, 2), first(argmax, 2)))
    unpooled = jaxcnnbp.max_unpool(*found, PLANE[1:3], layout="NCHW")
    assert_same(unpooled, first(jaxcnnbp.max_unpool(values, argmax, PLANE[1:3]), 2))
    both = jaxcnnbp.adaptive_max_pool(first(x, 2), (2, 2), True, layout="NCHW")
    assert_same(both, tuple(first(a, 2) for a in jaxcnnbp.adaptive_max_pool(x, (2, 2), True)))


@pytest.mark.parametrize("name", ["manual", "autodiff"])
def test_under_every_mode(name):
    x = jax.device_put(np.random.default_rng(0).normal(size=PLANE))
    loss = jax.jit(jax.grad(lambda x: (jaxcnnbp.avg_pool(x, (2, 2), layout="NCHW") ** 2).sum()))
    with mode("oracle"):
        wanted = jax.grad(lambda x: (jaxcnnbp.avg_pool(x, (2, 2)) ** 2).sum())(x)
    with mode(name):
        assert_same(loss(first(x, 2)), first(wanted, 2))


@pytest.mark.parametrize("layout", ["channels last", "NHCW", "CNHW", "NCH", "NCHH", "NC2W", "", None, 1, ("N", "C")])
def test_what_is_no_layout(layout):
    words = f"`layout` (={layout!r}) is unknown; use 'channels_last', 'channels_first', or letters, here 'NHWC' or"
    with pytest.raises(ValueError, match=re.escape(words)):
        jaxcnnbp.max_pool(jnp.ones(PLANE), (2, 2), layout=layout)


def test_errors_inside_name_the_layout():
    with pytest.raises(ValueError, match=re.escape("has 6 channels")) as caught:
        jaxcnnbp.correlate(jnp.ones((2, 6, 5, 3)), jnp.ones(KERNEL), layout="channels_first")
    assert caught.value.__notes__ == ["`layout` (='channels_first'): shapes are shown with the channels last."]


def test_every_function_that_takes_it_is_looked_at():
    takes = {name for name, f in vars(jaxcnnbp).items() if inspect.isfunction(f) and _takes_layout(f)}
    by_chance = {"fractional_max_pool", "stochastic_pool"}  # tests/test_chance.py
    assert takes == {case.op for case, _ in CASES} | {"max_pool_with_argmax", "max_unpool"} | by_chance


def _takes_layout(function):
    return "layout" in inspect.signature(function).parameters
