"""Second order by forward over reverse and by reverse over reverse, against autodiff of lax primitives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import (
    ACTIVATIONS,
    BLOCKS,
    CONVOLUTIONS,
    LAX_CONVOLUTIONS,
    LAYERS,
    MAX_POOLS,
    MEAN_OF_CELLS,
    MEAN_POOLS,
    Case,
    named,
)
from check import assert_same
from jax import lax
from marks import one_in, slow_but

import jaxcnnbp
from jaxcnnbp import manual_backward, mode, nn

pytestmark = pytest.mark.usefixtures("quick", "x64")

# Thousands of terms, three products deep.
ROUNDING = 1e-9

SOME = (
    *named(CONVOLUTIONS, "1d asymmetric", "stride 2 of 3x3", "2 groups", "depthwise strided", "pointwise strided"),
    *named(LAX_CONVOLUTIONS, "all dilations", "batch groups of"),
    *named(MAX_POOLS, "overlapping"),
    # A tie has no second derivative, so this one has none.
    Case("split", "max_pool", ((1, 5, 6, 2),), dict(window_shape=(3, 2), ties="split")),
    *named(MEAN_POOLS, "ceil mode overlapping"),
    *named(MEAN_OF_CELLS, "FULL"),
    Case("", "lp_pool", ((1, 5, 2),), dict(norm_type=2, window_shape=(2,))),
    *ACTIVATIONS,
    *[case for case in LAYERS if case.name in ("", "overlapping")],
    *named(BLOCKS, "tanh", "gelu max"),
)


def forward_over_reverse(loss, arrays, tangents):
    """The product of the Hessian and `tangents`."""
    gradient = jax.grad(loss, argnums=tuple(range(len(arrays))))
    return jax.jvp(gradient, tuple(arrays), tuple(tangents))[1]


def reverse_over_reverse(loss, arrays, tangents):
    """The same, as the gradient of the slope along `tangents`."""
    every = tuple(range(len(arrays)))

    def slope(*arrays):
        return sum(jnp.vdot(g, t) for g, t in zip(jax.grad(loss, argnums=every)(*arrays), tangents, strict=True))

    return jax.grad(slope, argnums=every)(*arrays)


@pytest.mark.parametrize("case", slow_but({case.op: case for case in SOME}.values(), SOME))
def test_product_with_the_hessian(case):
    arrays, tangents = case.arrays(seed=3), case.arrays(seed=4)

    def loss(*arrays):
        return jnp.sum(jnp.sin(case(*arrays)))

    with mode("autodiff"):
        wanted = jax.jit(lambda a, t: forward_over_reverse(loss, a, t))(arrays, tangents)
    assert_same(jax.jit(lambda a, t: forward_over_reverse(loss, a, t))(arrays, tangents), wanted, ROUNDING)
    assert_same(jax.jit(lambda a, t: reverse_over_reverse(loss, a, t))(arrays, tangents), wanted, ROUNDING)


def small_model():
    model = nn.Sequential((nn.Conv(2, 2), nn.ScaledTanh(), nn.MaxPool(2), nn.Flatten(), nn.Dense(2)))
    params = model.init(jax.random.key(0), (2, 5, 5, 1), jnp.float64)
    x = jax.device_put(np.random.default_rng(0).normal(size=(2, 5, 5, 1)))
    return lambda params: nn.softmax_cross_entropy(model.apply(params, x), jnp.array([0, 1])), params


def test_hessian_of_a_model():
    loss, params = small_model()
    found = jax.jit(jax.hessian(loss))(params)
    assert_same(jax.jit(jax.jacrev(jax.grad(loss)))(params), found, ROUNDING)
    with mode("autodiff"):
        assert_same(found, jax.jit(jax.hessian(loss))(params), ROUNDING)


THIRD = (
    *named(CONVOLUTIONS, "1d asymmetric"),
    *named(MAX_POOLS, "SAME_LOWER"),
    Case("", "adaptive_max_pool", ((1, 5, 1),), dict(output_shape=(2,))),
)


@pytest.mark.parametrize("case", slow_but(THIRD[::2], THIRD))
def test_third_order(case):
    arrays = case.arrays()

    def along(t):
        return jnp.sum(jnp.sin(case(*(jnp.sin(a * (1 + t)) for a in arrays))))

    third = jax.grad(jax.grad(jax.grad(along)))
    with mode("autodiff"):
        wanted = jax.jit(third)(0.5)
    assert_same(jax.jit(third)(0.5), wanted, 1e-8)


ONES = (1, 1)
OF_ONE_CELL = {
    "maximum": lambda x: jaxcnnbp.reduce_window(x, -jnp.inf, lax.max, ONES),
    "maximum from 0": lambda x: jaxcnnbp.reduce_window(x, 0.0, lax.max, ONES),
    "sum": lambda x: jaxcnnbp.reduce_window(x, 0.0, lax.add, ONES),
    "product": lambda x: jaxcnnbp.reduce_window(x, 1.0, lax.mul, ONES),
    "of a scalar": lambda x: jaxcnnbp.reduce_window(x.sum(), -jnp.inf, lax.max, ()),
    "swapped in": manual_backward(lambda x: lax.reduce_window(x, -jnp.inf, lax.max, ONES, ONES, "VALID")),
    "norm": lambda x: jaxcnnbp.lp_pool(x[None], 3, (1,)),
    "adaptive": lambda x: jaxcnnbp.adaptive_max_pool(x[None], (1,)),
}


@pytest.mark.parametrize("name", one_in(2, OF_ONE_CELL))
def test_windows_of_one_cell_to_the_third_order(name):
    """Nothing happens in them: the derivatives of y^4 are 4 x^3, 12 x^2 and 24 x."""
    derivative = lambda x: (OF_ONE_CELL[name](x) ** 4).sum()  # noqa: E731
    for factor, power in ((4, 3), (12, 2), (24, 1)):
        derivative = jax.grad(lambda x, last=derivative: last(x).sum())
        found = jax.jit(derivative)(np.full((1, 1), 0.7))
        np.testing.assert_allclose(found, [[factor * 0.7**power]], rtol=ROUNDING)
