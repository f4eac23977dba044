"""The patterns of JAX's own tests of convolution and `reduce_window`, with this package's functions in their place."""

from __future__ import annotations

import itertools
import os
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads
from marks import first_are_quick, slow_but

import jaxcnnbp
from jaxcnnbp.ops.conv.lax_api import conv_general_dilated, conv_transpose
from jaxcnnbp.ops.pool.reduce_window import reduce_window

pytestmark = pytest.mark.usefixtures("quick", "x64")

# Sums of a few dozen float64 terms in another order.
CLOSE = dict(rtol=1e-11, atol=1e-11)


def _sample(cases: list, count: int) -> list:
    """`count` of the cases, the same in every run and every worker; all of them if asked for."""
    return cases if os.environ.get("JAXCNNBP_EXHAUSTIVE") else random.Random(0).sample(cases, count)


def _draw(seed: int, *shape: int) -> jax.Array:
    return jax.device_put(np.random.default_rng(seed).normal(size=shape))


def _same_with_gradients(function, reference, *arguments) -> None:
    wanted = tuple(range(len(arguments)))

    def both(of):
        def loss(*arguments):
            y = of(*arguments)
            return (jnp.cos(y) * y).sum(), y

        return jax.jit(jax.grad(loss, wanted, has_aux=True))(*arguments)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), both(function), both(reference))


CONVOLUTIONS = [
    case
    for case in itertools.product(
        [(1, 1), (1, 2), (2, 1)],  # strides
        ["SAME", "VALID", [(0, 0), (0, 0)], [(1, 2), (2, 0)], [(-1, 0), (0, -1)]],
        [(1, 1), (2, 1)],  # lhs dilation
        [(1, 1), (1, 2)],  # rhs dilation
        [("NCHW", "OIHW", "NCHW"), ("NHWC", "HWIO", "NHWC"), ("NCHW", "HWIO", "NHWC")],
        [(1, 1), (2, 1), (1, 2)],  # feature groups, batch groups
    )
    if case[2] == (1, 1)
    or not isinstance(case[1], str)  # lax takes no word for a dilated input; `tests/cases` has some
]


@pytest.mark.parametrize("strides, padding, lhs, rhs, numbers, groups", first_are_quick(6, _sample(CONVOLUTIONS, 14)))
def test_conv_general_dilated(strides, padding, lhs, rhs, numbers, groups):
    features, batches = groups
    x = _draw(0, 4, 4, 6, 5)
    kernel = _draw(1, 6, 4 // features, 3, 2)
    if numbers[0] == "NHWC":
        x = x.transpose(0, 2, 3, 1)
    if numbers[1] == "HWIO":
        kernel = kernel.transpose(2, 3, 1, 0)
    arguments = strides, padding, lhs, rhs, numbers, features, batches
    _same_with_gradients(
        lambda x, k: conv_general_dilated(x, k, *arguments),
        lambda x, k: lax.conv_general_dilated(x, k, *arguments),
        x,
        kernel,
    )


@pytest.mark.parametrize("rank", [0, 1, 3, 4])
def test_conv_general_dilated_in_any_number_of_dimensions(rank: int):
    x, kernel = _draw(0, 2, 3, *(4,) * rank), _draw(1, 2, 3, *(2,) * rank)
    arguments = (1,) * rank, [(1, 0)] * rank
    _same_with_gradients(
        lambda x, k: conv_general_dilated(x, k, *arguments),
        lambda x, k: lax.conv_general_dilated(x, k, *arguments),
        x,
        kernel,
    )


TRANSPOSED = list(
    itertools.product(
        [(1, 1), (2, 3)], ["SAME", "VALID", [(1, 0), (2, 1)]], [(1, 1), (1, 2)], [False, True], [False, True]
    )
)


@pytest.mark.parametrize(
    "strides, padding, dilation, transposed, consistent", first_are_quick(3, _sample(TRANSPOSED, 6))
)
def test_conv_transpose(strides, padding, dilation, transposed, consistent):
    options = dict(rhs_dilation=dilation, transpose_kernel=transposed, use_consistent_padding=consistent)
    _same_with_gradients(
        lambda x, k: conv_transpose(x, k, strides, padding, **options),
        lambda x, k: lax.conv_transpose(x, k, strides, padding, **options),
        _draw(0, 2, 4, 5, 3),
        _draw(1, 3, 2, 3, 3),
    )


WINDOWS = list(
    itertools.product(
        [(-np.inf, lax.max), (np.inf, lax.min), (0.0, lax.add)],
        [((4, 6), (2, 1), (1, 2)), ((3, 2, 4, 6), (1, 1, 2, 1), (2, 1, 2, 1)), ((5, 3, 4), (2, 2, 2), (1, 2, 1))],
        ["VALID", "SAME", (1, 1), (0, 1)],
        [1, 2],  # base dilation
        [1, 2],  # window dilation
    )
)


@pytest.mark.parametrize("monoid, shapes, padding, base, dilation", first_are_quick(4, _sample(WINDOWS, 14)))
def test_reduce_window(monoid, shapes, padding, base, dilation):
    (init, reducer), (shape, size, strides) = monoid, shapes
    rank = len(shape)
    # An axis with one tap is not dilated, or its outermost padding would be out of the input's reach in lax.
    options = dict(base_dilation=(base,) * rank, window_dilation=tuple(dilation if k > 1 else 1 for k in size))
    padding = padding if isinstance(padding, str) else [padding] * rank
    arguments = init, reducer, size, strides, padding
    x = _draw(0, *shape)
    found = reduce_window(x, *arguments, **options)
    np.testing.assert_allclose(found, lax.reduce_window(x, *arguments, **options), **CLOSE)

    def weighed(x):
        y = reduce_window(x, *arguments, **options)
        return jnp.where(jnp.isfinite(y), y * jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape), 0.0)

    check_grads(jax.jit(weighed), (x,), order=1, modes=["rev"])


@pytest.mark.parametrize("reducer, init", [(lax.add, 0.0), (lax.max, -np.inf)], ids=["sum", "max"])
def test_windows_side_by_side_over_gaps(reducer, init):
    """The size is the stride, and yet no block is copied: there are gaps between the cells."""
    arguments = init, reducer, (2, 1), (2, 1), "VALID", (2, 3)

    def finite(x):
        y = reduce_window(x, *arguments)
        return jnp.where(jnp.isfinite(y), y, 0.0)

    check_grads(finite, (_draw(0, 4, 6),), order=1, modes=["rev"])


REDUCERS = {
    "mul": (1.0, lax.mul),
    "logaddexp": (-jnp.inf, jnp.logaddexp),
    "max from zero": (0.0, lax.max),
    "sum from two": (2.0, lax.add),
    "probabilistic or": (0.0, lambda a, b: a + b - a * b),
}


@pytest.mark.parametrize("name", REDUCERS)
def test_reducers_that_jax_does_not_differentiate(name: str):
    init, reducer = REDUCERS[name]
    x = _draw(0, 2, 5, 4, 2).at[0, 1, 1, 0].set(0.0)
    arguments = (1, 2, 3, 1), (1, 2, 1, 1), [(0, 0), (1, 0), (1, 1), (0, 0)]
    strides, padding = arguments[1:]
    expected = lax.reduce_window(x, init, reducer, arguments[0], strides, padding)
    np.testing.assert_allclose(reduce_window(x, init, reducer, *arguments), expected, **CLOSE)
    if np.isfinite(init):
        check_grads(jax.jit(lambda x, i: reduce_window(x, i, reducer, *arguments)), (x, jnp.asarray(init)), 1, ["rev"])
    else:
        check_grads(jax.jit(lambda x: reduce_window(x, init, reducer, *arguments)), (x,), 1, ["rev"])


def test_a_product_with_zeros_has_its_gradient():
    x = jnp.array([2.0, 0.0, 3.0, 0.0, 5.0])
    dx = jax.grad(lambda x: reduce_window(x, 1.0, lax.mul, (3,)).sum())(x)
    np.testing.assert_array_equal(dx, [0.0, 6.0, 0.0, 15.0, 0.0])


def test_a_reducer_of_pairs_and_of_tracers_closed_over():
    x = _draw(0, 3, 6)
    index = jnp.broadcast_to(jnp.arange(6), x.shape)

    def winner(left, right):
        keep = left[0] >= right[0]
        return jnp.where(keep, left[0], right[0]), jnp.where(keep, left[1], right[1])

    init, arguments = (-jnp.inf, jnp.asarray(-1, index.dtype)), ((1, 3), (1, 2))
    values, places = reduce_window((x, index), init, winner, *arguments)
    np.testing.assert_array_equal(jnp.take_along_axis(x, places, 1), values)
    expected = lax.reduce_window(x, -jnp.inf, lax.max, *arguments, "VALID")
    np.testing.assert_array_equal(values, expected)
    dx = jax.grad(lambda x: reduce_window((x, index), init, winner, *arguments)[0].sum())(x)
    np.testing.assert_array_equal(
        dx, jax.grad(lambda x: lax.reduce_window(x, -jnp.inf, lax.max, *arguments, "VALID").sum())(x)
    )

    def weighed(weight):
        return reduce_window(x, 0.0, lambda a, b: a + weight * b, *arguments).sum()

    np.testing.assert_allclose(jax.grad(weighed)(2.0), reduce_window(x, 0.0, lax.add, *arguments).sum(), **CLOSE)


@pytest.mark.slow
def test_reduce_window_under_transformations():
    x = _draw(0, 2, 6)
    for reducer, init in ((lax.mul, 1.0), (lax.max, -jnp.inf), (lax.add, 0.0)):
        function = lambda x, r=reducer, i=init: jnp.sin(reduce_window(x, i, r, (2,))).sum()  # noqa: E731
        rows = jnp.stack([jax.grad(function)(row) for row in x])
        np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(function)))(x), rows, **CLOSE)
        check_grads(function, (x[0],), order=2, modes=["rev"])


def test_integers_and_empty_operands_are_laxs():
    x = jnp.arange(6)
    np.testing.assert_array_equal(reduce_window(x, 0, lax.add, (2,)), [1, 3, 5, 7, 9])
    assert reduce_window(jnp.zeros((0, 4)), 0.0, lax.add, (1, 2)).shape == (0, 3)


@pytest.mark.parametrize("name", ["mul", "logaddexp", "max from zero", "sum from two"])
def test_windows_that_fit_nowhere_are_none(name: str):
    """Also those that are longer than the input by more than a stride."""
    init, reducer = REDUCERS[name]
    x, arguments = _draw(0, 2, 1, 3), (init, reducer, (1, 3, 5), (1, 2, 1), "VALID", (1, 1, 2))
    y, pull = jax.vjp(lambda x: reduce_window(x, *arguments), x)
    assert jax.typeof(y) == jax.typeof(lax.reduce_window(x, *arguments))
    np.testing.assert_array_equal(pull(y)[0], np.zeros_like(x))


@pytest.mark.parametrize(
    "dtype", slow_but(["float8_e4m3fn"], ["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float16"])
)
def test_padding_never_wins_where_a_type_has_no_infinity(dtype: str):
    x = jax.device_put(np.array([1, 2, -3, -4]).astype(dtype))
    for init, reducer in ((-jnp.inf, lax.max), (jnp.inf, lax.min)):
        arguments = init, reducer, (2,), (1,), [(1, 1)]
        expected = np.asarray(lax.reduce_window(x, *arguments), np.float64)
        np.testing.assert_array_equal(np.asarray(reduce_window(x, *arguments), np.float64), expected)
        loss = lambda x, a=arguments: lax.reduce_window(x, *a).astype(jnp.float32).sum()  # noqa: E731
        wanted, found = jax.grad(loss)(x), jax.grad(jaxcnnbp.manual_backward(loss))(x)
        np.testing.assert_array_equal(np.asarray(found, np.float64), np.asarray(wanted, np.float64))


def test_a_maximum_of_complex_numbers_is_laxs():
    x = lax.complex(_draw(0, 5), _draw(1, 5))
    arguments = -jnp.inf, lax.max, (2,)
    np.testing.assert_array_equal(reduce_window(x, *arguments), lax.reduce_window(x, *arguments))
    (swap,) = jaxcnnbp.explain_swaps(lambda x: lax.reduce_window(x, *arguments))(x)
    assert "no order" in swap.reason
    assert jaxcnnbp.manual_backward(lambda x: lax.reduce_window(x, *arguments))(x).dtype == x.dtype


def test_reduce_window_refuses_what_does_not_fit():
    """With lax's own words."""

    def message(function, *arguments, **options):
        with pytest.raises((TypeError, ValueError)) as caught:
            function(*arguments, **options)
        return type(caught.value), str(caught.value)

    x = jnp.ones(4)
    for arguments, options in (
        ((x, jnp.ones(2), lax.mul, (2,)), {}),
        ((x, np.float32(0), lax.mul, (2,)), {}),
        ((x, (0.0,), lax.add, (2,)), {}),
        ((x, True, lax.add, (2,)), {}),
        ((jnp.ones((4, 4)), 0.0, lax.add, (2,)), {}),
        ((x, 0.0, lax.add, (0,)), {}),
        ((x, 0.0, lax.add, (2,), (0,)), {}),
        ((x, 0.0, lax.add, (2,)), dict(window_dilation=(1, 1))),
        ((x, 0.0, lambda a, b: [a + b], (2,)), {}),
    ):
        assert message(reduce_window, *arguments, **options) == message(lax.reduce_window, *arguments, **options)
    with pytest.raises(TypeError, match="`computation`"):  # lax leaves this one to its compiler
        reduce_window(x, 0.0, lambda a, b: a > b, (2,))
    with pytest.raises(TypeError, match="`computation`"):  # lax refuses every reducer that closes over a tracer
        jax.grad(lambda w: reduce_window(x, 0.0, lambda a, b: w * a > b, (2,)).sum())(2.0)


@pytest.mark.parametrize(
    "padding, strides, dtype",
    [
        ([(-2, 2)], (1,), "float32"),  # XLA reads beyond the input here, on CPUs
        ([(-1, 1)], (2,), "float16"),
        ([(5, 1)], (1,), "float32"),
        ([(-2, 2), (-1, 0)], (1, 1), "float32"),
        ([(0, 1), (-3, 9)], (2, 2), "float64"),
    ],
)
def test_a_convolution_cropped_at_its_beginning_and_padded_at_its_end(padding, strides, dtype: str):
    rank = len(padding)
    x, kernel = (a.astype(dtype) for a in (_draw(0, 2, 4, *(6, 5)[:rank]), _draw(1, 4, 4, *(2,) * rank)))

    def cropped_before(x, kernel):
        inside = lax.pad(x, jnp.zeros((), dtype), [(0, 0, 0), (0, 0, 0), *((*pair, 0) for pair in padding)])
        return lax.conv_general_dilated(inside, kernel, strides, "VALID")

    def gradients(convolution):
        loss = jax.value_and_grad(lambda x, k: jnp.sin(convolution(x, k).astype("float64")).sum(), (0, 1))
        return jax.jit(loss)(x, kernel)

    found = gradients(lambda x, k: conv_general_dilated(x, k, strides, padding))
    # Sums of a few dozen terms in another order.
    close = {"float16": 0.05, "float32": 1e-5, "float64": 1e-12}[dtype]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, close, close), found, gradients(cropped_before))


LARGE = {
    "few channels": ((1, 96, 160, 3), (3, 3, 3, 8), dict(padding=((1, 1), (1, 1)))),
    "cropped and uneven": ((1, 97, 161, 2), (3, 2, 2, 5), dict(padding=((-1, 2), (3, -2)), window_strides=(2, 1))),
    "both dilations": (
        (1, 96, 160, 2),
        (2, 3, 2, 4),
        dict(padding=((0, 1), (2, 0)), lhs_dilation=(1, 2), rhs_dilation=(2, 1)),
    ),
    "one axis": ((1, 4096, 4), (5, 4, 8), dict(padding="SAME")),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_inputs_alone_differentiated_and_in_nested_scans(name: str):
    """XLA's CPU backend runs other code on large arrays than on small ones, and inside loops."""
    x_shape, k_shape, options = LARGE[name]
    rng, rank = np.random.default_rng(0), len(x_shape) - 2
    x, k = (jax.device_put(rng.normal(size=shape).astype(jnp.float32)) for shape in (x_shape, k_shape))
    numbers = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC")}[rank]
    options = dict(window_strides=(1,) * rank, dimension_numbers=numbers) | options

    def ours(x):
        return jaxcnnbp.conv_general_dilated(x, k, **options)

    def scanned(x):
        rows = jnp.stack([x, -x])[:, None]
        return lax.scan(lambda c, row: (c, lax.scan(lambda c, x: (c, ours(x)), c, row)[1]), 0, rows)[1][:, 0]

    wanted = lax.conv_general_dilated(x, k, **options)
    found = [ours(x), jax.vjp(ours, x)[0], *jax.jit(lambda x: (ours(x), jax.vjp(ours, x)[0], scanned(x)[0]))(x)]
    for y in found:
        # Sums of at most 27 products of order one, in float32.
        np.testing.assert_allclose(y, wanted, 1e-4, 1e-5)
