"""`vmap` over inputs, over parameters and over both is a loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import BLOCKS, CONVOLUTIONS, LAX_CONVOLUTIONS, LAYERS, MAX_POOLS, MEAN_OF_CELLS, TIE_POOLS, Case, named
from check import assert_same, delta_like, value_and_pullback
from marks import slow_but

import jaxcnnbp

pytestmark = pytest.mark.usefixtures("quick", "x64")

COPIES = 3
ONE_ARRAY = (
    *named(MAX_POOLS, "overlapping", "two batch"),
    *named(TIE_POOLS, "overlapping")[-1:],
    *named(MEAN_OF_CELLS, "ceil mode overlapping"),
    *[case for case in LAYERS if case.op in ("upsample", "combination_entropy")][:2],
    Case("", "gelu", ((3, 4),)),
)
TWO_ARRAYS = (
    *named(CONVOLUTIONS, "stride 2 of 3x3", "depthwise strided", "2 groups", "pointwise strided", "connections"),
    *named(LAX_CONVOLUTIONS, "batch groups", "odd layouts"),
    Case("", "dense", ((3, 4), (4, 2))),
)
MORE_ARRAYS = (
    *[case for case in LAYERS if case.op in ("subsample", "combine_maps") and not case.name],
    *named(BLOCKS, "tanh", "silu min"),
)


def assert_loop(case: Case, in_axes: tuple[int | None, ...]) -> None:
    """Values and gradients under vmap are those of one element after the other."""
    stacks = [case.arrays(seed=seed) for seed in range(COPIES)]
    arrays = [np.stack(a) if axis == 0 else a[0] for a, axis in zip(zip(*stacks, strict=True), in_axes, strict=True)]
    elements = [[a[i] if axis == 0 else a for a, axis in zip(arrays, in_axes, strict=True)] for i in range(COPIES)]
    deltas = np.stack([delta_like(case, stacks[0], seed=seed) for seed in range(COPIES)])
    one = jax.jit(functools.partial(value_and_pullback, case))
    looped = [one(element, delta) for element, delta in zip(elements, deltas, strict=True)]
    at_once = jax.jit(jax.vmap(functools.partial(value_and_pullback, case), in_axes=(list(in_axes), 0)))
    assert_same(at_once(arrays, deltas), jax.tree.map(lambda *leaves: np.stack(leaves), *looped))


@pytest.mark.parametrize("case", ONE_ARRAY, ids=str)
def test_over_inputs(case):
    assert_loop(case, (0,))


@pytest.mark.parametrize("case", slow_but([TWO_ARRAYS[0], *TWO_ARRAYS[-3:]], TWO_ARRAYS))
@pytest.mark.parametrize("in_axes", [(0, None), (None, 0), (0, 0)], ids=["inputs", "kernels", "both"])
def test_over_either_operand(case, in_axes):
    assert_loop(case, in_axes)


@pytest.mark.parametrize("case", slow_but(MORE_ARRAYS[::3], MORE_ARRAYS))
@pytest.mark.parametrize("parameters", [None, 0], ids=["inputs", "all"])
def test_over_layers(case, parameters):
    assert_loop(case, (0, *(parameters,) * (len(case.shapes) - 1)))


def test_over_another_axis():
    case = Case("", "max_pool", ((2, 5, 1),), dict(window_shape=(2,)))
    stacked = jnp.stack(case.arrays(seed=0) + case.arrays(seed=1), axis=2)
    found = jax.vmap(case, in_axes=2, out_axes=1)(stacked)
    assert_same(found, jnp.stack([case(stacked[:, :, 0]), case(stacked[:, :, 1])], axis=1))


@pytest.mark.parametrize("case", [*ONE_ARRAY, *named(BLOCKS, "max")[:1]], ids=str)
@pytest.mark.parametrize(
    "wrap", [pytest.param(lambda fun: fun, id="eager", marks=pytest.mark.slow), pytest.param(jax.jit, id="jit")]
)
def test_gradients_of_a_map_over_any_axis(case, wrap):
    """The rule's forward pass need not leave the axis where the function without a gradient leaves it."""
    elements = [case.arrays(seed=seed) for seed in range(2)]
    axes = tuple(len(shape) // 2 for shape in case.shapes)
    stacks = [np.stack(arrays, axis) for *arrays, axis in zip(*elements, axes, strict=True)]
    deltas = [delta_like(case, elements[0], seed) for seed in range(2)]
    value, gradients = value_and_pullback(jax.vmap(wrap(case), axes, -1), stacks, np.stack(deltas, -1))
    value, gradients = jax.tree.map(np.asarray, (value, gradients))
    one = jax.jit(functools.partial(value_and_pullback, case))
    for i in range(2):
        found = value[..., i], tuple(np.take(g, i, axis) for g, axis in zip(gradients, axes, strict=True))
        assert_same(found, one(elements[i], deltas[i]))


def test_argmax_and_unpool():
    x = jax.device_put(np.random.default_rng(0).normal(size=(COPIES, 2, 5, 6, 1)))

    def there_and_back(x):
        values, argmax = jaxcnnbp.max_pool_with_argmax(x, (2, 3), (2, 3))
        return jaxcnnbp.max_unpool(values, argmax, (5, 6)), argmax

    assert_same(jax.vmap(there_and_back)(x), jax.tree.map(lambda *a: np.stack(a), *map(there_and_back, x)))


def test_gradient_of_each_image():
    """The usual trick: one gradient of the kernel an image."""
    case = named(CONVOLUTIONS, "stride 2 of 3x3")[0]
    x, kernel = case.arrays()

    def loss(kernel, image):
        return jnp.sum(case(image[None], kernel) ** 2)

    each = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0)))(kernel, x)
    whole = jax.grad(lambda kernel: jnp.sum(case(x, kernel) ** 2))(kernel)
    assert_same(each.sum(0), whole)
