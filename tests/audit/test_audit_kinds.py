"""Wrong rules that agree with the oracle at one place, or that it has as well; and right ones that look wrong."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but

import jaxcnnbp
from jaxcnnbp.audit import compare_gradients
from jaxcnnbp.audit.own_rules import noting, without_rules
from jaxcnnbp.audit.table import title

X = jnp.linspace(0.5, 1.5, 6)
POINTS = jnp.linspace(-1.0, 1.0, 5)
SQUARE = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)) + 3 * np.eye(3), jnp.float32)


def rule(backward, fun=lambda x: jnp.sum(x**2)):
    @jax.custom_vjp
    def ruled(x):
        return fun(x)

    ruled.defvjp(lambda x: (fun(x), x), lambda x, delta: (backward(x, delta),))
    return ruled


def jvp_rule(fun, tangent):
    @jax.custom_jvp
    def ruled(*args):
        return fun(*args)

    ruled.defjvp(lambda primals, tangents: (ruled(*primals), tangent(primals, tangents)))
    return ruled


def solver(transpose):
    def solve(a, b):
        def with_(matrix):
            return lambda _, right: jnp.linalg.solve(matrix(a), right)

        return jax.lax.custom_linear_solve(lambda v: a @ v, b, with_(lambda a: a), with_(transpose))

    return solve


TOO_LARGE = rule(lambda x, delta: 1.5 * delta * jnp.cos(x), jnp.sin)
TWO = rule(lambda x, delta: 1000 * delta[0], lambda x: (1000 * x, 1e-7 * x**2))
SIGN = jvp_rule(jnp.cos, lambda p, t: jnp.sin(p[0]) * t[0])
FORGOTTEN = jvp_rule(lambda a, b: a * jnp.exp(b), lambda p, t: t[0] * jnp.exp(p[1]))
ONE_AT_0 = rule(lambda x, delta: delta * (x >= 0).astype(x.dtype), lambda x: jnp.maximum(x, 0))
COMPLEX = jnp.asarray(0.3 + 0.4j, jnp.complex64)
DIRECTION = lambda z: z / jnp.abs(z).astype(z.dtype)  # noqa: E731
WRONG = {
    "tangent with the wrong sign": (SIGN, POINTS),
    "forgotten tangent": (FORGOTTEN, X, X),
    "in a gradient penalty": (lambda w, x: (jax.grad(lambda x: TOO_LARGE(w * x).sum())(x) ** 2).sum(), X, X),
    "in vmap of grad": (jax.vmap(jax.grad(TOO_LARGE)), POINTS),
    "in a product with the Hessian": (lambda x: jax.jvp(jax.grad(lambda x: SIGN(x).sum()), (x,), (x,))[1], X),
    "in jit in grad": (jax.grad(lambda x: jax.jit(TOO_LARGE)(x).sum()), X),
    "cotangent ignored": (rule(lambda x, delta: 2 * x), X),
    "cotangent squared": (rule(lambda x, delta: 2 * x * delta * delta), X),
    "magnitude of the cotangent": (rule(lambda x, delta: 2 * x * abs(delta)), X),
    "conjugate of the cotangent": (rule(lambda x, delta: 2 * x * jnp.conj(delta), lambda x: x**2), COMPLEX),
    "a small output forgotten": (TWO, X),
    "a solver that is not transposed": (solver(lambda a: a), SQUARE, X[:3]),
    "the same beside a cut": (lambda a, b: solver(lambda a: a)(a, b) * jax.lax.stop_gradient(b), SQUARE, X[:3]),
}
RIGHT = {
    "square": (rule(lambda x, delta: 2 * x * delta), X),
    "complex": (rule(lambda x, delta: 2 * x * delta, lambda x: x**2), COMPLEX),
    "real parts on the way": (rule(lambda z, delta: jax.vjp(DIRECTION, z)[1](delta)[0], DIRECTION), COMPLEX),
    "two outputs": (rule(lambda x, d: 1000 * d[0] + 2e-3 * x * d[1], lambda x: (1000 * x, 1e-3 * x**2)), X),
    "tangent": (jvp_rule(jnp.cos, lambda p, t: -jnp.sin(p[0]) * t[0]), POINTS),
    "at a kink beside a cut": (lambda x: ONE_AT_0(x) * jax.lax.stop_gradient(x + 1), POINTS),
    "stopped on purpose": (lambda x: x + jax.lax.stop_gradient(jnp.sin(x) - x), POINTS),
    "a solver that is transposed": (solver(lambda a: a.T), SQUARE, X[:3]),
    "JAX's own rules": (lambda x: (jax.nn.relu(x) + jax.nn.silu(x) + jax.scipy.special.expn(2, x + 2)).sum(), POINTS),
    "a draw": (lambda a: jax.random.gamma(jax.random.key(0), a).sum(), X),
    "at a kink": (lambda x: jax.nn.relu(x).sum(), jnp.zeros(3)),
    "a rule that JAX needs": (
        jvp_rule(
            lambda x: jax.lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, 2 * c[1]), (0, x))[1],
            lambda p, t: 4 * t[0],
        ),
        X,
    ),
}


@pytest.mark.parametrize(("fun", "args"), [(f, a) for f, *a in WRONG.values()], ids=WRONG)
def test_wrong(fun, args):
    assert not compare_gradients(fun, *args, timing=False).ok


@pytest.mark.parametrize("name", slow_but(set(RIGHT) - {"a draw", "JAX's own rules"}, RIGHT))
def test_right(name):
    fun, *args = RIGHT[name]
    compare_gradients(fun, *args, timing=False).assert_close()


def test_the_verdict_says_why():
    report = compare_gradients(WRONG["cotangent ignored"][0], X, timing=False)
    verdict = report["x"].verdict()
    assert "not linear in the cotangent: of one -0.75 times as large it makes 1 instead of -0.75" in verdict
    report = compare_gradients(solver(lambda a: a), SQUARE, X[:3], timing=False)
    assert "contradicted by a finite difference along a random direction" in report["b"].verdict()
    assert "for the output `output[1]` alone" in compare_gradients(TWO, X, timing=False)["x"].verdict()


def test_reference_is_what_is_meant():
    """A straight-through estimator is no derivative, whatever a difference says."""
    through = rule(lambda x, delta: delta, lambda x: jnp.sin(3 * x))
    assert not compare_gradients(through, X, timing=False).ok
    meant = lambda x: x + jax.lax.stop_gradient(jnp.sin(3 * x) - x)  # noqa: E731
    assert compare_gradients(through, X, reference=meant, timing=False).ok


def test_without_a_rule_it_is_autodiff_that_is_judged():
    report = compare_gradients(jnp.sin, X, timing=False)
    assert report.rules == ()
    assert title(report).startswith("No hand-written rule is called: autodiff against")
    ours = compare_gradients(lambda x: jaxcnnbp.max_pool(x, (2,)), X[None, :, None], timing=False)
    assert ours.rules
    assert title(ours).startswith("Gradients: 1 of 1 right, by the hand-written rules of `")


def test_rules_come_back():
    usual = jax.custom_vjp.__call__, jax.custom_jvp.__call__
    wrong = jax.jit(jax.grad(lambda x: TOO_LARGE(x).sum()))
    before = wrong(X)
    with noting() as names, without_rules():
        np.testing.assert_allclose(wrong(X), jnp.cos(X), 1e-6)
    np.testing.assert_array_equal(wrong(X), before)
    with noting() as names:
        jax.make_jaxpr(wrong)(X)
    assert list(names.values()) == ["ruled"]
    assert (jax.custom_vjp.__call__, jax.custom_jvp.__call__) == usual
