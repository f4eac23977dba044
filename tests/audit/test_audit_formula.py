"""Mistakes that a narrow dtype, a wide range or a chaotic function hides: the formula is judged in float64."""

from __future__ import annotations

import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but
from own_rules import changed, rule, rule_of_many

from jaxcnnbp.audit import compare_gradients
from jaxcnnbp.audit.passes import Evaluated, furthest


def draw(*shape, dtype="float32", size=1.0):
    return jnp.asarray(size * np.random.default_rng(sum(shape)).normal(size=shape), dtype)


def product(x, w):
    return x @ w


def normalised(x, eps=1e-5):
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + eps)


def chaotic(x):
    return jax.lax.fori_loop(0, 40, lambda _, c: 3.9 * c * (1 - c), x)


def eigenvector(x):
    q = jnp.asarray(np.linalg.qr(np.random.default_rng(5).normal(size=(4, 4)))[0], x.dtype)
    near = q @ jnp.diag(jnp.asarray([1.0, 1.0001, 1.0002, 3.0], x.dtype)) @ q.T
    return jnp.linalg.eigh(near + x + x.T)[1][0] ** 2


def scaled(x):
    return (x * jnp.asarray([[1e3], [1.0], [1e-4]], x.dtype)) ** 2


def ordered(x):
    return jnp.sort(x * 0.1) * jnp.arange(x.size, dtype=x.dtype)


def narrow_within(x):
    y = x.astype(jnp.bfloat16)
    return (jnp.sin(y) * y).astype(x.dtype)


def same(*gradients):
    return gradients


def too_large(gradient):
    return (1.5 * gradient,)


NARROW = [
    (product, (draw(8, 16), draw(16, 8)), lambda dx, dw: (dx.at[0, 0].set(0), dw)),
    (product, (draw(64, 16), draw(16, 8)), lambda dx, dw: (dx, dw * 1.03)),
    (narrow_within, (draw(16),), lambda dx: (dx * 1.005,)),
]
HIDDEN = {
    "a row of a wide range": (scaled, (draw(3, 4),), lambda dx: (dx.at[2].set(0),)),
    "a row of a wider one": (
        product,
        (draw(5, 3) * jnp.asarray([[1e8, 1.0, 1e-12]]), draw(3, 2)),
        lambda dx, dw: (dx, dw.at[2].set(0)),
    ),
    "chaos": (chaotic, (jnp.asarray([0.2, 0.3, 0.4]),), too_large),
    "nearly equal eigenvalues": (eigenvector, (draw(4, 4, size=1e-5),), too_large),
    "ties": (ordered, (jnp.asarray(np.random.default_rng(0).integers(0, 30, 40), jnp.float32),), too_large),
}


@pytest.mark.parametrize("dtype", slow_but(["bfloat16"], ["bfloat16", "float16"]))
@pytest.mark.parametrize(("fun", "args", "mistake"), NARROW, ids="element kernel cast".split())
def test_of_narrow_arguments(fun, args, mistake, dtype):
    narrow = [a.astype(dtype) for a in args]
    compare_gradients(changed(fun, same), *narrow, timing=False).assert_close()
    assert not compare_gradients(changed(fun, mistake), *narrow, timing=False).ok


@pytest.mark.parametrize("name", slow_but(["a row of a wider one", "ties"], HIDDEN))
def test_of_functions_that_round_much(name):
    fun, args, mistake = HIDDEN[name]
    compare_gradients(changed(fun, same), *args, timing=False).assert_close()
    assert not compare_gradients(changed(fun, mistake), *args, timing=False).ok


def test_a_forgotten_constant_shows_in_bfloat16():
    x = draw(4, 16, dtype="bfloat16", size=0.05)
    forgotten = rule_of_many(normalised, lambda args, d: jax.vjp(lambda x: normalised(x, 0.0), *args)[1](d))
    compare_gradients(changed(normalised, same), x, timing=False).assert_close()
    verdict = compare_gradients(forgotten, x, timing=False).rows[0].verdict()
    assert "the formula is wrong: in float64 64 of 64 elements are off" in verdict
    twice = changed(normalised, lambda dx: (1.005 * dx,))
    assert "It looks like 1.005 times the right gradient" in compare_gradients(twice, x, timing=False).rows[0].verdict()


def test_a_right_formula_may_yet_lose_precision():
    lossy = changed(product, lambda dx, dw: (dx, dw.astype(jnp.bfloat16).astype(dw.dtype)))
    report = compare_gradients(lossy, draw(8, 16), draw(16, 8), timing=False)
    assert [row.ok for row in report.rows] == [True, False]


def test_roundings_of_a_right_rule_are_its_own():
    """The slope of a saturated tanh by its output is 0 in float32."""
    far = jnp.linspace(5.0, 8.0, 11)
    report = compare_gradients(rule(jnp.tanh, lambda x, d: d * (1 - jnp.tanh(x) ** 2)), far, timing=False)
    report.assert_close()
    assert "the formula is right in float64" in report.rows[0].excuse
    assert report.rows[0].wrong


def test_of_runs_with_noise_one_is_kept_at_a_time():
    alive = []

    def runs():
        for number in range(4):
            assert not any(one() is not None for one in alive)
            array = np.full(3, number + 1.0)
            alive.append(weakref.ref(array))
            made = Evaluated({"y": np.ones(2)}, (array,))
            del array
            yield made
            del made

    most = furthest(runs(), Evaluated({"y": np.ones(2)}, (np.ones(3),)))
    np.testing.assert_array_equal(most.gradients[0], 3.0)
    np.testing.assert_array_equal(most.outputs["y"], 0.0)
