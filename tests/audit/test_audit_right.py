"""Right rules are not flagged, whatever the dtype and the seed; awkward arrays are handled."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from marks import slow_but

import jaxcnnbp
from jaxcnnbp.audit import compare_gradients
from jaxcnnbp.audit.problem import problem_of
from jaxcnnbp.audit.table import excess

QUIET = dict(timing=False, finite_differences=False)


def draw(seed, dtype, *shapes):
    generator = np.random.default_rng(seed)
    return [jnp.asarray(generator.normal(size=shape), dtype) for shape in shapes]


def layers(x, kernel, bias, weights):
    """Every kind of rounding and of kink in one function."""
    h = jaxcnnbp.relu(jaxcnnbp.add_bias(jaxcnnbp.correlate(x, kernel, padding="SAME"), bias))
    h = jaxcnnbp.max_pool(h, (2, 2), (2, 2))
    h = jaxcnnbp.avg_pool(jaxcnnbp.tanh(h), (2, 2), (1, 1))
    return jaxcnnbp.dense(h.reshape(h.shape[0], -1), weights)


SHAPES = (2, 6, 6, 2), (3, 3, 2, 4), (4,), (16, 3)


@pytest.mark.parametrize("dtype", slow_but(["bfloat16"], ["float32", "bfloat16", "float16"]))
@pytest.mark.parametrize("seed", slow_but([0], range(3)))
def test_right_rules_pass(dtype, seed):
    report = compare_gradients(layers, *draw(seed, dtype, *SHAPES), seed=seed, **QUIET)
    report.assert_close()
    assert [row.name for row in report.rows] == ["x", "kernel", "bias", "weights"]
    assert {row.dtype for row in report.rows} == {dtype}


def test_float64_passes_and_leaves_x64_on():
    with jax.enable_x64(True):
        report = compare_gradients(layers, *draw(0, "float64", *SHAPES), **QUIET)
        assert jnp.zeros(()).dtype == jnp.float64
    report.assert_close()
    assert max(row.manual.max_rel for row in report.rows) < 1e-9


def test_x64_stays_off():
    compare_gradients(jnp.sin, jnp.ones(3), **QUIET)
    assert jnp.zeros(()).dtype == jnp.float32


def test_tolerance_leaves_room_but_not_much():
    report = compare_gradients(layers, *draw(1, "float32", *SHAPES), **QUIET)
    for row in report.rows:
        assert excess(row) < 0.5
        assert row.maps.allowed.max() < 1e-5 * np.abs(row.maps.oracle).max()


def test_ties_and_kinks_are_counted():
    x = jnp.asarray([[1.0, 1.0, 0.0, -1.0, 2.0, 2.0]]).reshape(1, 6, 1)
    report = compare_gradients(lambda x: jaxcnnbp.max_pool(jaxcnnbp.relu(x), (2,), (2,)), x, timing=False)
    assert report.ties == {"relu: inputs at exactly 0": 1, "max_pool: windows with a tie": 3}
    assert report["x"].slope.agrees is None


def test_ties_of_lax_are_counted():
    report = compare_gradients(lambda x: jnp.maximum(x, 0).max(), jnp.asarray([1.0, 1.0, 0.0]), **QUIET)
    assert report.ties == {"max: equal operands": 1, "reduce_max: ties": 1}
    x = jnp.asarray([3.0, 1.0, 3.0, 2.0, 2.0])
    chosen = compare_gradients(lambda x: jnp.sort(x)[0] + jax.lax.top_k(x, 3)[0][2] + x[jnp.argmax(x)], x, **QUIET)
    assert chosen.ties == {"sort: equal neighbours": 2, "top_k: equal neighbours": 2, "argmax: ties": 1}


@pytest.mark.parametrize(
    ("fun", "args"),
    [
        (lambda x: jnp.sum(x * x), (jnp.zeros((0, 3)),)),
        (lambda x: 0.0 * x, (jnp.ones(3),)),
        (lambda x: x * jnp.nan, (jnp.ones(3),)),
        (jnp.log, (jnp.zeros(2),)),
        (lambda x: 3 * x, (jnp.float32(2),)),
        (lambda x: jnp.abs(x) ** 2 + x.real, (jnp.asarray([1 + 2j, -3j], jnp.complex64),)),
        (lambda x, n: x * n, (jnp.ones(3), 2)),
        (lambda x, labels: x[labels], (jnp.ones(3), np.asarray([0, 2]))),
        (lambda x, mode: x if mode == "same" else -x, (jnp.ones(3), "same")),
        (lambda tree: tree["a"] * tree["b"][0], ({"a": jnp.ones(3), "b": (jnp.ones(3), None)},)),
        (lambda x, key: x * jax.random.normal(key, (3,)), (jnp.ones(3), jax.random.key(0))),
    ],
    ids="empty zero nan infinite scalar complex python-int labels static tree key".split(),
)
def test_awkward_arguments(fun, args):
    report = compare_gradients(fun, *args, timing=False)
    report.assert_close()
    assert report.to_json()
    assert str(report)


def test_names():
    x = jnp.ones(2)

    def names(fun, *args, given=None):
        return problem_of(fun, args, None, given, False).names

    assert names(lambda params, x: x, {"conv1": {"kernel": x}, "list": [x]}, x) == ("conv1.kernel", "list[0]", "x")
    assert names(lambda *args: args[0], x, x) == ("args[0]", "args[1]")
    assert names(lambda a, b: a, {"k": x}, {"k": x}) == ("a.k", "b.k")
    assert names(lambda a, b: a, x, x, given=("left", "right")) == ("left", "right")


def test_argnums_and_aux():
    report = compare_gradients(lambda x, y: (x * y, "aux"), 2.0, jnp.ones(2), argnums=0, has_aux=True, **QUIET)
    assert [(row.name, row.shape) for row in report.rows] == [("x", ())]


def test_without_oracle_autodiff_judges():
    report = compare_gradients(layers, *draw(0, "float32", *SHAPES), oracle=False, timing=False)
    report.assert_close()
    assert "autodiff" in str(report).splitlines()[0]
    assert report["x"].slope is None


def test_operations_without_autodiff_are_judged_by_the_oracle():
    fun = lambda x: jaxcnnbp.max_pool(x, (2,), (2,), ties="all")  # noqa: E731
    report = compare_gradients(fun, jnp.asarray([1.0, 1.0, 3.0, 2.0]).reshape(1, 4, 1), timing=False)
    report.assert_close()
    assert report.no_autodiff
    assert report["x"].autodiff is None
    assert str(report)


def test_functions_that_differentiate_themselves():
    slope = jax.grad(lambda v: jnp.sum(jaxcnnbp.tanh(v) ** 2))
    compare_gradients(slope, jnp.asarray([0.3, -1.0]), timing=False).assert_close()


def test_user_tolerance():
    @jax.custom_vjp
    def square(x):
        return x * x

    square.defvjp(lambda x: (x * x, x), lambda x, delta: (2.002 * x * delta,))
    assert not compare_gradients(square, jnp.ones(3), **QUIET).ok
    assert compare_gradients(square, jnp.ones(3), tolerance=1e-2, **QUIET).ok


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        (dict(argnums=3), ValueError, "`argnums` (=3)"),
        (dict(names=("a", "b")), ValueError, "`names` (=('a', 'b'))"),
        (dict(reference=lambda x: x[:1]), ValueError, "`reference`"),
    ],
)
def test_refusals(kwargs, error, text):
    with pytest.raises(error) as caught:
        compare_gradients(jnp.sin, jnp.ones(3), **kwargs)
    assert text in str(caught.value)


def test_nothing_to_differentiate():
    with pytest.raises(TypeError, match="no float"):
        compare_gradients(lambda n: n * 2, np.arange(3))
    with pytest.raises(TypeError, match="`fun` returns no float"):
        compare_gradients(lambda x: x > 0, jnp.ones(3))


def test_float64_while_jax_refuses_it():
    with jax.enable_x64(True):
        x = jnp.arange(3, dtype=jnp.float64)
    with pytest.raises(TypeError, match="`args` .=leaves of float64. .* `jax_enable_x64` is off"):
        compare_gradients(jnp.sin, x)


def with_wrong_rule():
    @jax.custom_vjp
    def double(x):
        return 2 * x

    double.defvjp(lambda x: (2 * x, None), lambda _, delta: (3 * delta,))
    return double


def scanned(f):
    return lambda x: lax.scan(lambda c, v: (c + jnp.sum(f(v)), f(v)), jnp.float32(0), x)


@pytest.mark.parametrize(
    "wrap",
    [
        jax.jit,
        jax.checkpoint,
        jax.vmap,
        pytest.param(scanned, marks=pytest.mark.slow),
        lambda f: lambda x: lax.cond(x[0] > 0, f, jnp.sin, x),
        pytest.param(lambda f: lambda x: lax.fori_loop(0, 2, lambda i, v: f(v), x), marks=pytest.mark.slow),
        lambda f: lambda x: f(jax.nn.relu(x)),
        lambda f: lambda x: f(x).astype(jnp.bfloat16).astype(jnp.float32),
    ],
    ids="jit checkpoint vmap scan cond fori relu cast".split(),
)
def test_foreign_rules_are_found_inside(wrap):
    report = compare_gradients(wrap(with_wrong_rule()), jnp.asarray([1.0, 2.0, 3.0]), **QUIET)
    assert not report["x"].ok
    assert "times the right gradient" in report["x"].hint
    assert report["x"].autodiff.max_rel < 1e-2


def test_the_oracle_does_not_round_where_the_function_does():
    def narrow(x):
        return jnp.sum((x.astype(jnp.bfloat16) * jnp.bfloat16(3)).astype(jnp.float32) ** 2)

    report = compare_gradients(narrow, jnp.asarray([1.2345678]), **QUIET)
    assert report["x"].maps.oracle[0] == pytest.approx(18 * 1.2345678, rel=1e-7)
