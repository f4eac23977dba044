"""What an author may say besides the function and its arguments."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from own_rules import rule

from jaxcnnbp.audit import compare_gradients

X = jnp.linspace(0.5, 1.5, 6)
CLIPPED = rule(jnp.sin, lambda x, d: jnp.clip(d * jnp.cos(x), -0.1, 0.1))
SINE = rule(jnp.sin, lambda x, d: d * jnp.cos(x))
QUIET = dict(timing=False, checks=("value", "gradient"))


def loss(params, x):
    return jnp.sum((SINE(params["a"] * x) - params["b"]) ** 2)


PARAMS = {"a": X, "b": X + 1}


def test_a_reference_may_have_a_rule_of_its_own():
    meant = rule(jnp.sin, lambda x, d: jnp.maximum(jnp.minimum(d * jnp.cos(x), 0.1), -0.1))
    assert compare_gradients(CLIPPED, X, reference=meant, timing=False).ok
    assert not compare_gradients(CLIPPED, X, timing=False).ok
    assert not compare_gradients(SINE, X, reference=meant, timing=False).ok


def test_expected_gradients_of_given_cotangents():
    ones = jnp.ones(6)
    expected = jnp.clip(jnp.cos(X), -0.1, 0.1)
    assert compare_gradients(CLIPPED, X, expected=expected, cotangents=ones, **QUIET).ok
    assert not compare_gradients(SINE, X, expected=expected, cotangents=ones, **QUIET).ok
    assert compare_gradients(SINE, X, cotangents=ones, **QUIET).rows[0].maps.manual[0] == pytest.approx(jnp.cos(X[0]))


def test_leaves_by_path():
    report = compare_gradients(loss, PARAMS, X, argnums="params.b", **QUIET)
    assert [row.name for row in report.rows] == ["b"]
    report = compare_gradients(loss, PARAMS, X, argnums=["a", 1], **QUIET)
    assert [row.name for row in report.rows] == ["a", "x"]
    wrong = lambda p: jnp.sum(rule(jnp.sin, lambda x, d: 1.01 * d * jnp.cos(x))(p["a"]) * p["b"])  # noqa: E731
    assert compare_gradients(wrong, PARAMS, tolerance={"a": 0.1}, timing=False).ok
    assert not compare_gradients(wrong, PARAMS, tolerance={"b": 0.1}, timing=False).ok


def test_keyword_arguments_and_numbers_of_python():
    scaled = lambda x, factor=1.0: factor * SINE(x)  # noqa: E731
    assert compare_gradients(scaled, X, kwargs={"factor": 3.0}, **QUIET)["output"].maps.manual[0] > 1
    report = compare_gradients(lambda many: sum(jnp.sin(x) for x in many), [1.0, 2.0], **QUIET)
    assert [row.name for row in report.rows] == ["[0]", "[1]"]
    assert report.ok


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        (dict(argnums="params.c"), "no leaf is at 'params.c'"),
        (dict(expected=[X]), "`expected`"),
        (dict(cotangents=X), "`cotangents`"),
    ],
)
def test_refusals(kwargs, words):
    with pytest.raises(ValueError, match=words):
        compare_gradients(loss, PARAMS, X, **kwargs)


def test_a_rule_that_is_called_while_jax_compiles_nothing():
    with jax.disable_jit():
        assert compare_gradients(SINE, X, timing=False).ok


def test_a_name_that_is_not_there_is_the_authors():
    for mistake, kind in ((lambda x: jnp.sin(x) * lenght, NameError), (lambda x: -jnp.sine(x), AttributeError)):  # noqa: F821
        f = jax.custom_vjp(mistake)
        f.defvjp(lambda x: (jnp.sin(x), x), lambda x, d: (d * jnp.cos(x),))
        with pytest.raises(kind, match="lenght|sine"):
            compare_gradients(f, X, timing=False)
