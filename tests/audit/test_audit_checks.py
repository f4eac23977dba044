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


def test_random():
    assert not compare_gradients(random_rule(), X, timing=False, oracle=False, checks=("gradient", "repeat")).ok


@pytest.mark.parametrize("make", [lambda: rule(jnp.sin, lambda x, d: d * jnp.cos(x)), forward_only], ids=["vjp", "jvp"])
def test_right(make):
    compare_gradients(make(), X, timing=False, checks=tuple(CHECKS)).assert_close()


def test_unknown():
    with pytest.raises(ValueError, match=r"`checks` \(=\('values',\)\)"):
        compare_gradients(jnp.sin, X, checks=("values",))
