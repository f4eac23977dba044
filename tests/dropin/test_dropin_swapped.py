"""The functions of this package in the very place of lax's, as somebody who patches a library puts them there."""

from __future__ import annotations

import functools
import inspect
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from marks import first_are_quick

import jaxcnnbp
from jaxcnnbp.ops import lax_itself

NAMES = ("conv_general_dilated", "conv", "conv_with_general_padding", "conv_transpose", "reduce_window")
NUMBERS = ("NHWC", "HWIO", "NHWC")
X = np.random.default_rng(0).normal(size=(2, 6, 5, 3)).astype(np.float32)
K = np.random.default_rng(1).normal(size=(3, 2, 3, 4)).astype(np.float32)


@pytest.fixture
def swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setattr(lax, name, getattr(jaxcnnbp, name))


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_those_of_lax(name: str):
    ours, theirs = (inspect.signature(getattr(of, name)).parameters for of in (jaxcnnbp, lax_itself))
    assert [(p.name, p.default, p.kind) for p in ours.values()] == [
        (p.name, p.default, p.kind) for p in theirs.values()
    ]


def network(x, k):
    y = jnp.tanh(lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=NUMBERS))
    y = lax.reduce_window(y, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "SAME")
    y = lax.conv_transpose(y, k, (2, 2), "SAME", transpose_kernel=True)
    return (
        lax.reduce_window(y, 0.0, lax.add, (1, 300, 2, 1), (1, 1, 1, 1), [(0, 0), (299, 0), (0, 0), (0, 0)]) ** 2
    ).sum()


@pytest.mark.parametrize("mode", ["manual", "autodiff"])
def test_nothing_calls_itself(mode: str, monkeypatch: pytest.MonkeyPatch):
    expected = jax.jit(jax.value_and_grad(network, (0, 1)))(X, K)
    for name in NAMES:
        monkeypatch.setattr(lax, name, getattr(jaxcnnbp, name))
    with jaxcnnbp.mode(mode):
        again = functools.partial(network)  # or the program of `expected` would be found again
        found = jax.jit(jax.value_and_grad(again, (0, 1)))(X, K)
    # Sums of a few thousand float32 terms in another order.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-3), found, expected)


@pytest.mark.usefixtures("swapped")
def test_the_judge_and_the_pools_still_know_lax():
    def loss(x, k):
        return jaxcnnbp.max_pool(jaxcnnbp.correlate(x, k), (2, 2)).sum()

    assert jaxcnnbp.compare_gradients(loss, jnp.asarray(X), jnp.asarray(K), timing=False).ok


def test_words_of_padding_over_a_dilated_base():
    """lax finds SAME from the operand without its gaps."""
    arguments = -np.inf, lax.max, (2, 3), (2, 1), "SAME"
    options = dict(base_dilation=(2, 3), window_dilation=(1, 2))
    x = jnp.asarray(X[0, :, :, 0])
    expected = lax.reduce_window(x, *arguments, **options)
    np.testing.assert_array_equal(jaxcnnbp.reduce_window(x, *arguments, **options), expected)


def test_a_maximum_of_integers_may_begin_at_minus_infinity():
    x = jnp.arange(6)
    np.testing.assert_array_equal(jaxcnnbp.reduce_window(x, -jnp.inf, lax.max, (2,)), [1, 2, 3, 4, 5])


def test_weak_types_and_dtypes_are_those_of_lax():
    weak = lax.broadcast(2.0, (1, 1, 3))
    for arguments in ((weak, weak, (1,), "VALID"), (weak, weak.astype(jnp.float32), (1,), "VALID")):
        ours, theirs = (
            jax.eval_shape(lambda a, b, f=f: f(a, b, (1,), "VALID"), *arguments[:2]) for f in BOTH_CONVOLUTIONS
        )
        assert (ours, ours.weak_type) == (theirs, theirs.weak_type)
    for init in (np.float32(0), 0.0):
        ours, theirs = (jax.eval_shape(lambda x, f=f, i=init: f(x, i, lax.add, (1, 1, 2)), weak) for f in BOTH_WINDOWS)
        assert (ours, ours.weak_type) == (theirs, theirs.weak_type)


BOTH_CONVOLUTIONS = jaxcnnbp.conv_general_dilated, lax_itself.conv_general_dilated
BOTH_WINDOWS = jaxcnnbp.reduce_window, lax_itself.reduce_window
WRONG_CONVOLUTIONS = [
    dict(window_strides=(1,), padding="VALID"),
    dict(window_strides=(1, 1), padding="NEAR"),
    dict(window_strides=(1, 1), padding=[(0, 0)]),
    dict(window_strides=(1, 1), padding=[0, 0]),
    dict(window_strides=(1, 1), padding="VALID", feature_group_count=2),
    dict(window_strides=(1, 1), padding="VALID", feature_group_count=0),
    dict(window_strides=(1, 1), padding="VALID", batch_group_count=3),
    dict(window_strides=(1, 1), padding="VALID", dimension_numbers=("NHWC", "HWIO")),
    dict(window_strides=(1, 1), padding="VALID", preferred_element_type=jnp.int8),
]


@pytest.mark.parametrize("options", WRONG_CONVOLUTIONS, ids=str)
def test_errors_are_those_of_lax(options):
    def said(function):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what is compared
            function(X, K, **dict(dimension_numbers=NUMBERS) | options)
        return type(caught.value), str(caught.value)

    ours, theirs = map(said, BOTH_CONVOLUTIONS)
    assert ours == theirs


def test_what_was_compiled_for_a_reducer_is_found_again():
    """Also when it is called outside of `jit`; from JAX 0.11 on lax traces a reducer of one's own at every call."""

    def reducer(a, b):
        return a + b - a * b

    def call():
        if jax.__version_info__ < (0, 11):
            jax.grad(lambda x: jaxcnnbp.reduce_window(x, 0.0, reducer, (1, 2, 2, 1)).sum())(jnp.asarray(X))
        jax.grad(lambda x: jaxcnnbp.conv_general_dilated(x, K, (1, 1), "SAME", dimension_numbers=NUMBERS).sum())(X)

    call()
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("jax")
    logger.addHandler(handler)
    try:
        with jax.log_compiles(True):
            call()
    finally:
        logger.removeHandler(handler)
    assert not [text for text in said if "ompiling" in text]


@pytest.mark.parametrize("taps, reducer", first_are_quick(2, [(300, "max"), (300, "add"), (200, "max")]))
def test_windows_of_many_taps_have_their_rules(taps: int, reducer: str):
    x = jax.device_put(np.random.default_rng(0).permutation(700).astype(np.float32)).reshape(1, 700)
    init = -jnp.inf if reducer == "max" else 0.0

    def loss(x):
        return jnp.sin(lax.reduce_window(x, init, getattr(lax, reducer), (1, taps), (1, 7), "VALID")).sum()

    assert jaxcnnbp.explain_swaps(loss)(x).swapped
    np.testing.assert_allclose(jax.grad(jaxcnnbp.manual_backward(loss))(x), jax.grad(loss)(x), 1e-5, 1e-5)


def test_the_batch_may_be_symbolic_and_the_height():
    """lax has no gradient over a symbolic height."""
    batch, height = jax.export.symbolic_shape("b, h")

    def loss(x, k):
        y = jaxcnnbp.conv_general_dilated(x, k, (1, 1), "VALID", dimension_numbers=NUMBERS)
        return (jaxcnnbp.reduce_window(y, 0.0, lax.add, (1, 2, 2, 1)) ** 2).sum()

    def exported(function, *shape):
        types = jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct(K.shape, jnp.float32)
        return jax.export.export(jax.jit(function))(*types).call(X, K)

    expected = jax.grad(loss, (0, 1))(X, K)
    for shape in ((batch, *X.shape[1:]), (batch, height, *X.shape[2:])):
        found = exported(jax.grad(loss, (0, 1)), *shape)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-3), found, expected)


@pytest.mark.parametrize("channels, groups", first_are_quick(1, [((16, 8), 1), ((4, 4), 4)]))
def test_forms_that_count_images_serve_a_symbolic_batch_by_lax(channels, groups):
    (batch,) = jax.export.symbolic_shape("b")
    x = np.random.default_rng(0).normal(size=(3, 5, 5, channels[0])).astype(np.float32)
    k = np.random.default_rng(1).normal(size=(3, 3, channels[0] // groups, channels[1])).astype(np.float32)

    def loss(x, k):
        options = dict(dimension_numbers=NUMBERS, feature_group_count=groups)
        return jnp.sin(jaxcnnbp.conv_general_dilated(x, k, (1, 1), "SAME", **options)).sum()

    types = jax.ShapeDtypeStruct((batch, *x.shape[1:]), jnp.float32), jax.ShapeDtypeStruct(k.shape, jnp.float32)
    found = jax.export.export(jax.jit(jax.grad(loss, (0, 1))))(*types).call(x, k)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-4), found, jax.grad(loss, (0, 1))(x, k))
