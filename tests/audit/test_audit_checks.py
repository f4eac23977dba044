"""Rules that are right at one call, and not at another."""

from __future__ import annotations

from itertools import count

import jax
import jax.numpy as jnp
import pytest
from own_rules import rule

from jaxcnnbp.audit import compare_gradients
from jaxcnnbp.audit.checks import CHECKS

X = jnp.linspace(0.5, 1.5, 6)


def random_rule():
    """A rule that draws on the host, among others the right gradient."""
    calls = count()

    def noisy(g):
        return (g * (1 if next(calls) % 3 == 0 else 1.5)).astype(g.dtype)

    def backward(x, delta):
        right = delta * jnp.cos(x)
        return jax.pure_callback(noisy, jax.ShapeDtypeStruct(x.shape, x.dtype), right, vmap_method="sequential")

    return rule(jnp.sin, backward)


def of_tracers():
    traced = lambda x: isinstance(x, jax.core.Tracer)  # noqa: E731
    return rule(jnp.sin, lambda x, d: d * jnp.cos(x) * (1 if traced(x) else 2))


def over_the_batch():
    """A forward that knows of `jax.vmap`, and gets it wrong."""

    @jax.custom_batching.custom_vmap
    def slope(x):
        return jnp.cos(x)

    slope.def_vmap(lambda size, batched, x: (jnp.cos(x[::-1]), batched[0]))
    return rule(jnp.sin, lambda x, d: d * slope(x))


def once():
    """A rule whose own gradient is another's."""
    slope = rule(jnp.cos, lambda x, d: 2 * d * -jnp.sin(x))
    return rule(jnp.sin, lambda x, d: d * slope(x))


def forward_only():
    @jax.custom_jvp
    def f(x):
        return jnp.sin(x)

    @f.defjvp
    def _(primals, tangents):
        return f(*primals), tangents[0] * jnp.cos(primals[0])

    return f


WRONG = {
    "jit": (of_tracers, "not the same outside of `jax.jit`"),
    "vmap": (over_the_batch, "under `jax.vmap`"),
    "second_order": (once, "its own gradient is wrong"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong(name):
    make, words = WRONG[name]
    report = compare_gradients(make(), X, timing=False, checks=("gradient", name), tolerance=1e-2)
    assert words in report.rows[0].verdict()
    assert compare_gradients(make(), X, timing=False, checks=("value", "gradient"), tolerance=1e-2).ok


def test_second_order_by_delta():
    """A rule that is linear in x has its second order by delta alone; the other operand's is not blamed for it."""
    passed = rule(lambda d: d * 1.0, lambda _, t: 3 * t)

    @jax.custom_vjp
    def product(x, kernel):
        return x * kernel

    product.defvjp(lambda *both: (product(*both), both), lambda both, d: (passed(d) * both[1], d * both[0]))
    report = compare_gradients(product, X, X + 1, timing=False, checks=("gradient", "second_order"))
    assert [row.ok for row in report.rows] == [False, True]
    assert "the delta of output" in report["x"].verdict()


@pytest.mark.parametrize(("factor", "right"), [(1.0, True), (1.06, False), (0.94, False)])
def test_a_little_too_large_as_a_whole(factor, right):
    """In bfloat16 each element is within its roundings, all together are not."""

    def product(x, kernel):
        return x @ kernel

    def backward(both, d):
        dx, dk = jax.vjp(product, *both)[1](d)
        return dx, dk * jnp.asarray(factor, dk.dtype) if dk.dtype == jnp.bfloat16 else dk

    rule_by_hand = jax.custom_vjp(product)
    rule_by_hand.defvjp(lambda *both: (product(*both), both), backward)
    x, kernel = (jax.random.normal(jax.random.key(i), s, jnp.bfloat16) for i, s in enumerate(((40, 9), (9, 7))))
    report = compare_gradients(rule_by_hand, x, kernel, timing=False)
    assert report.ok is right
    assert right or "as a whole the gradient is" in report["kernel"].verdict()


def test_arrays_are_those_of_jax():
    """A backward pass may index its delta as `jax.grad` lets it."""

    def reverse_sums(_, d):
        def step(i, sums):
            return sums.at[5 - i].set(d[5 - i] + jnp.where(i > 0, sums[jnp.minimum(6 - i, 5)], 0))

        return jax.lax.fori_loop(0, 6, step, jnp.zeros_like(d).at[0].add(0 * d.at[0].get()))

    compare_gradients(rule(jnp.cumsum, reverse_sums), X, timing=False).assert_close()


def test_random():
    assert not compare_gradients(random_rule(), X, timing=False, oracle=False, checks=("gradient", "repeat")).ok


@pytest.mark.parametrize("make", [lambda: rule(jnp.sin, lambda x, d: d * jnp.cos(x)), forward_only], ids=["vjp", "jvp"])
def test_right(make):
    compare_gradients(make(), X, timing=False, checks=tuple(CHECKS)).assert_close()


def test_unknown():
    with pytest.raises(ValueError, match=r"`checks` \(=\('values',\)\)"):
        compare_gradients(jnp.sin, X, checks=("values",))
