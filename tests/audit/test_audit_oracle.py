"""The oracle is right by itself: against lax, against formulas, against answers worked out by hand."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxcnnbp
from jaxcnnbp.audit.oracle.axes import Axis
from jaxcnnbp.modes import alternatives, mode

ORACLE = alternatives["oracle"]
LAST = ("NHWC", "HWIO", "NHWC")


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


def draw(*shapes):
    generator = np.random.default_rng(0)
    return [jnp.asarray(generator.normal(size=shape)) for shape in shapes]


def assert_same(fun, reference, *args):
    """Values and gradients of both."""
    value, back = jax.vjp(fun, *args)
    expected, back_of_reference = jax.vjp(reference, *args)
    np.testing.assert_allclose(value, expected, atol=1e-12)
    (delta,) = draw(value.shape)
    for gradient, wanted in zip(back(delta), back_of_reference(delta), strict=True):
        np.testing.assert_allclose(gradient, wanted, atol=1e-12)


# Judged by their lax form, carried through in float64: a reducer is the caller's own function, and the others are sums
# and maxima of the operations that have an oracle.
WITHOUT_ORACLE = {"reduce_window", "lp_pool", "adaptive_avg_pool", "adaptive_max_pool"}


def test_every_public_operation_has_an_oracle():
    assert set(alternatives["autodiff"]) - set(ORACLE) == WITHOUT_ORACLE
    assert all(hasattr(jaxcnnbp, name) for name in ORACLE)


@pytest.mark.parametrize(
    "options",
    [
        dict(window_strides=(1, 1), padding="VALID"),
        dict(window_strides=(2, 1), padding="SAME"),
        dict(window_strides=(2, 3), padding=((2, 0), (-1, 3)), rhs_dilation=(2, 1)),
        dict(window_strides=(1, 2), padding=((1, 1), (0, 2)), lhs_dilation=(2, 3), feature_group_count=2),
        dict(window_strides=(1, 1), padding="SAME", batch_group_count=2),
    ],
    ids="plain same dilated groups batch-groups".split(),
)
def test_convolution_against_lax(options):
    x, kernel = draw((4, 4, 6, 7), (4, 4 // options.get("feature_group_count", 1), 3, 2))
    assert_same(
        lambda x, kernel: ORACLE["conv_general_dilated"](x, kernel, **options),
        lambda x, kernel: lax.conv_general_dilated(x, kernel, **options),
        x,
        kernel,
    )


@pytest.mark.parametrize(
    "options",
    [
        dict(window_strides=(2, 1), padding="SAME", rhs_dilation=(2, 1), feature_group_count=2),
        dict(padding=((1, 1), (0, 2)), lhs_dilation=(2, 3), batch_group_count=2),
    ],
    ids=["groups", "batch groups"],
)
def test_gradients_of_a_convolution_against_autodiff(options):
    """As maps of their own, which have values and gradients."""
    x, kernel = draw((4, 4, 6, 7), (4, 4 // options.get("feature_group_count", 1), 3, 2))
    (delta,) = draw(ORACLE["conv_general_dilated"](x, kernel, **options).shape)

    def input_grad(way, delta, kernel):
        return way["conv_input_grad"](delta, kernel, x.shape, **options)

    def kernel_grad(way, x, delta):
        return way["conv_kernel_grad"](x, delta, kernel.shape, **options)

    for fun, *operands in ((input_grad, delta, kernel), (kernel_grad, x, delta)):
        assert_same(partial(fun, ORACLE), partial(fun, alternatives["autodiff"]), *operands)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 0), (2, 1))])
@pytest.mark.parametrize("flip", [False, True])
def test_transposed_convolution_against_lax(stride, padding, flip):
    x, kernel = draw((2, 4, 5, 3), (3, 2, 4, 3) if flip else (3, 2, 3, 4))
    options = dict(strides=(stride, stride), padding=padding, transpose_kernel=flip)
    assert_same(
        lambda x, kernel: ORACLE["conv_transpose"](x, kernel, **options),
        lambda x, kernel: lax.conv_transpose(x, kernel, **options),
        x,
        kernel,
    )


def full(x, kernel):
    return lax.conv_general_dilated(x, kernel[::-1, ::-1], (1, 1), ((2, 2), (2, 2)), dimension_numbers=LAST)


@pytest.mark.parametrize("wrap", ["eager", "jit", "vmap"])
def test_true_convolution_eager_jitted_and_mapped(wrap):
    wrapped = {"eager": lambda f: f, "jit": jax.jit, "vmap": lambda f: jax.vmap(f, (0, None))}[wrap]
    x, kernel = draw((2, 1, 4, 4, 2) if wrap == "vmap" else (2, 4, 4, 2), (3, 3, 2, 2))
    assert_same(wrapped(lambda x, k: ORACLE["convolve"](x, k, padding="FULL")), wrapped(full), x, kernel)


def blocks(x):
    return x.reshape(2, 3, 2, 2, 2, 3).sum((2, 4))


def correlated(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=LAST)


def combined(x, kernel, logits, bias):
    return correlated(x, (kernel * jax.nn.softmax(logits, axis=0)[None, None])[::-1, ::-1]) + bias[None, None, None]


def entropy(logits):
    return -jnp.sum(jax.nn.softmax(logits, axis=0) * jax.nn.log_softmax(logits, axis=0))


X, KERNEL = (2, 6, 4, 3), (3, 2, 3, 4)
FORMULAS = {
    "logistic": (jax.nn.sigmoid, [X]),
    "tanh": (jnp.tanh, [X]),
    "scaled_tanh": (lambda x: 1.7159 * jnp.tanh(2 * x / 3), [X]),
    "relu": (jax.nn.relu, [X]),
    "leaky_relu": (jax.nn.leaky_relu, [X]),
    "gelu": (jax.nn.gelu, [X]),
    "silu": (jax.nn.silu, [X]),
    "identity": (lambda x: x, [X]),
    "dense": (lambda x, w, b: x @ w + b[None, None], [(2, 3, 4), (4, 5), (5,)]),
    "add_bias": (lambda y, b: y + b[None, None, None], [X, (3,)]),
    "combine_maps": (combined, [X, KERNEL, (3, 4), (4,)]),
    "combination_entropy": (entropy, [(3, 4)]),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_against_formula(name):
    formula, shapes = FORMULAS[name]
    assert_same(ORACLE[name], formula, *draw(*shapes))


def test_exact_gelu_against_jax():
    assert_same(lambda x: ORACLE["gelu"](x, False), lambda x: jax.nn.gelu(x, approximate=False), *draw(X))


def test_subsample_and_upsample():
    subsample = lambda x, b, c: blocks(x) * b[None, None, None] + c[None, None, None]  # noqa: E731
    assert_same(lambda x, b, c: ORACLE["subsample"](x, b, c, (2, 2)), subsample, *draw(X, (3,), (3,)))
    assert_same(lambda d: ORACLE["upsample"](d, (2, 3)), lambda d: jnp.kron(d, jnp.ones((1, 2, 3, 1))), *draw(X))


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 0), (0, 1))])
def test_pooling_against_lax(padding):
    pairs = padding if isinstance(padding, str) else ((0, 0), *padding, (0, 0))

    def pooled(x, start, combine):
        return lax.reduce_window(x, np.float64(start), combine, (1, 3, 2, 1), (1, 2, 2, 1), pairs)

    args, (x,) = ((3, 2), (2, 2), padding), draw(X)
    assert_same(lambda x: ORACLE["max_pool"](x, *args), lambda x: pooled(x, -np.inf, lax.max), x)
    assert_same(lambda x: ORACLE["min_pool"](x, *args), lambda x: pooled(x, np.inf, lax.min), x)
    assert_same(lambda x: ORACLE["avg_pool"](x, *args), lambda x: pooled(x, 0, lax.add) / 6, x)
    cells = pooled(jnp.ones_like(x), 0, lax.add)
    assert_same(lambda x: ORACLE["avg_pool"](x, *args, False), lambda x: pooled(x, 0, lax.add) / cells, x)


def line(*values):
    return jnp.asarray(values).reshape(1, -1, 1)


def gradient(fun, x):
    return np.ravel(
        jax.grad(lambda x: jnp.sum(fun(x) * jnp.arange(1.0, fun(x).size + 1).reshape(1, -1, 1)))(x)
    ).tolist()


@pytest.mark.parametrize(
    ("ties", "wanted"), [("first", [1, 0, 2, 0, 3]), ("all", [1, 1, 2, 0, 3]), ("split", [0.5, 0.5, 2, 0, 3])]
)
def test_ties_and_the_last_partial_window_by_hand(ties, wanted):
    x = line(4.0, 4.0, 3.0, 1.0, 7.0)
    pool = lambda x: ORACLE["max_pool"](x, (2,), (2,), ceil_mode=True, ties=ties)  # noqa: E731
    assert np.ravel(pool(x)).tolist() == [4, 3, 7]
    assert gradient(pool, x) == wanted


def test_means_of_partial_windows_by_hand():
    x = line(1.0, 3.0, 5.0)
    pool = lambda x: ORACLE["avg_pool"](x, (2,), (2,), ceil_mode=True)  # noqa: E731
    assert np.ravel(pool(x)).tolist() == [2, 5]
    assert gradient(pool, x) == [0.5, 0.5, 2]


def test_nan_wins_and_the_last_of_several():
    x = line(1.0, np.nan, np.nan, 5.0)
    pool = lambda x: ORACLE["max_pool"](x, (4,))  # noqa: E731
    assert np.isnan(pool(x)).all()
    assert gradient(pool, x) == [0, 0, 1, 0]


def test_padding_never_wins_and_nothing_is_nowhere():
    x = line(-np.inf, -1.0)
    values, places = ORACLE["max_pool_with_argmax"](x, (1,), (1,), ((1, 0),))
    assert np.ravel(values).tolist() == [-np.inf, -np.inf, -1]
    assert np.ravel(places).tolist() == [-1, 0, 1]
    assert np.ravel(ORACLE["max_unpool"](values, places, (3,))).tolist() == [-np.inf, -1, 0]


@pytest.mark.parametrize(("size", "wanted"), [(5, 3), (6, 3), (7, 4)])
def test_windows_are_counted_as_in_pytorch(size, wanted):
    assert Axis(size, taps=3, stride=2, low=1, high=1, ceil=False).windows == (size - 1) // 2 + 1
    assert Axis(size, taps=2, stride=2, ceil=True).windows == wanted


def test_mode_takes_the_oracle_everywhere():
    (x,) = draw(X)
    with mode("oracle"):
        text = str(jax.make_jaxpr(lambda x: jaxcnnbp.relu(jaxcnnbp.max_pool(x, (2, 2))))(x))
        jitted = jax.jit(jaxcnnbp.tanh)(x)
    assert text.count("numpy_oracle[") == 2
    np.testing.assert_allclose(jitted, np.tanh(x), rtol=1e-15)
