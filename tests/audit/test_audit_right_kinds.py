"""Right rules that look wrong: they round, or the point has no unique derivative, or the oracle has none there."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but
from own_rules import changed, rule, rule_of_many

from jaxcnnbp.audit import compare_gradients

X = jnp.linspace(-1.0, 1.0, 5)
FAR = jnp.linspace(5.0, 8.0, 11)
TIED = jnp.asarray([1.0, 2.0, 2.0, 0.0])
Q = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
ILL = jnp.asarray(Q @ np.diag([1, 0.1, 0.01, 1e-3, 1e-4]) @ Q.T, jnp.float32)


def draw(*shape, size=1.0):
    return jnp.asarray(size * np.random.default_rng(sum(shape)).normal(size=shape), jnp.float32)


def sigmoid_slope(x, d):
    y = jax.nn.sigmoid(x)
    return d * y * (1 - y)


def relu_with(value):
    return rule(lambda x: jnp.maximum(x, 0), lambda x, d: d * jnp.where(x == 0, value, (x > 0).astype(x.dtype)))


def greatest(share):
    return rule(jnp.max, lambda x, d: d * share(x).astype(x.dtype))


def last(x):
    return jnp.arange(x.size) == x.size - 1 - jnp.argmax(x[::-1])


def tied(x):
    return x == x.max()


def norm_with(at_zero):
    def slope(x, d):
        length = jnp.sqrt((x * x).sum())
        return d * jnp.where(length > 0, x / jnp.where(length > 0, length, 1), at_zero)

    return rule(lambda x: jnp.sqrt((x * x).sum()), slope)


def solved(a, b):
    return jnp.linalg.solve(a, b)


def solved_back(args, d):
    a, b = args
    back = jnp.linalg.solve(a.T, d)
    return -jnp.outer(back, jnp.linalg.solve(a, b)), back


def underflowing(x):
    return (jnp.square(x.astype(jnp.float16) * jnp.float16(1e-3)) * jnp.float16(0.01)).astype(jnp.float32).sum() * 1e7


def exponential(a):
    values, vectors = jnp.linalg.eigh((a + a.T) / 2)
    return jnp.trace(vectors @ jnp.diag(jnp.exp(values)) @ vectors.T)


def summed(x):
    return jax.lax.scan(lambda c, v: (jnp.logaddexp(c, v), jax.nn.relu(c * v)), x[0], x)


def drawn(draws):
    return lambda x: rule(jnp.tanh, lambda x, d: d * (1 - jnp.tanh(x) ** 2))(draws(jax.random.key(0), x)).sum()


def attention(q, k, v):
    return jax.nn.softmax(q @ k.T, -1) @ v


def flash_back(args, d):
    q, k, v = args
    p = jnp.exp(q @ k.T - jax.scipy.special.logsumexp(q @ k.T, -1, keepdims=True))
    ds = p * (d @ v.T - (d * (p @ v)).sum(-1, keepdims=True))
    return ds @ k, ds.T @ q, p.T @ d


def narrow_product(x, w):
    return jnp.dot(x, w, precision="BF16_BF16_F32")


def narrow_product_back(args, d):
    x, w = args
    return narrow_product(d, w.T), narrow_product(x.T, d)


def nearly_converged(x):
    """What the second element leaves is 7e-46."""
    return jax.lax.fori_loop(0, 150, lambda _, c: c * jnp.array([1.0, 0.5]), x)


RIGHT = {
    "rule of a limit": (rule(nearly_converged, lambda x, d: d * jnp.array([1.0, 0.0])), X[:2]),
    "jnp.tanh far out": (jnp.tanh, FAR),
    "sigmoid far out": (rule(jax.nn.sigmoid, sigmoid_slope), 2 * FAR),
    "relu, 1 at 0": (relu_with(1.0), X),
    "relu, 1/2 at 0": (relu_with(0.5), X),
    "abs, 1 at 0": (rule(jnp.abs, lambda x, d: d * jnp.where(x >= 0, 1.0, -1.0)), X),
    "maximum, the last": (greatest(last), TIED),
    "maximum, shared": (greatest(lambda x: tied(x).astype(x.dtype) / 2), TIED),
    "norm at 0": (norm_with(0.0), jnp.zeros(3)),
    "solve": (solved, ILL, draw(5)),
    "solve by its rule": (rule_of_many(solved, solved_back), ILL, draw(5)),
    "underflow": (changed(underflowing, lambda dx: (dx,)), draw(6)),
    "equal eigenvalues": (rule(exponential, lambda a, d: d * jax.scipy.linalg.expm((a + a.T) / 2)), jnp.eye(3)),
    "JAX's own rule in a loop": (
        rule(summed, lambda x, d: jax.vjp(summed, x)[1](d)[0]),
        X,
    ),
    "normal draws": (drawn(lambda key, x: x * jax.random.normal(key, (5,))), X + 2),
    "dropout": (drawn(lambda key, x: jnp.where(jax.random.bernoulli(key, 0.5, (5,)), x, 0.0)), X + 2),
    "flash attention": (rule_of_many(attention, flash_back), draw(8, 4, size=6), draw(4, 8).T * 6, draw(8, 4)),
    "products of bfloat16": (rule_of_many(narrow_product, narrow_product_back), draw(4, 8), draw(8, 4)),
}
WRONG = {
    "relu, 1.5 at 0": (relu_with(1.5), X),
    "abs, 1.2 at 0": (rule(jnp.abs, lambda x, d: d * jnp.where(x >= 0, 1.2, -1.0)), X),
    "maximum, each": (greatest(tied), TIED),
    "norm, 1 at 0": (norm_with(1.0), jnp.zeros(3)),
}
QUICK = ["jnp.tanh far out", "relu, 1/2 at 0", "maximum, shared", "norm at 0", "products of bfloat16"]


@pytest.mark.parametrize("name", slow_but(QUICK, RIGHT))
def test_right(name):
    fun, *args = RIGHT[name]
    compare_gradients(fun, *args, timing=False).assert_close()


@pytest.mark.parametrize("name", WRONG)
def test_wrong(name):
    fun, *args = WRONG[name]
    assert not compare_gradients(fun, *args, timing=False).ok
