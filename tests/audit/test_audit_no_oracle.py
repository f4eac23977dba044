"""Functions that JAX cannot differentiate, trace or carry in float64: each gets a verdict all the same."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.custom_batching import custom_vmap
from jax.custom_derivatives import linear_call
from jax.experimental import pallas as pl
from jax.experimental.ode import odeint
from jax.sharding import Mesh, PartitionSpec
from marks import slow_but

from jaxcnnbp.audit import compare_gradients
from jaxcnnbp.audit.table import title

X = jnp.linspace(0.5, 1.5, 6)
MESH = Mesh(np.array(jax.devices("cpu")[:1]), ("i",))


def ruled(fun, backward):
    """A rule, `factor` times too large."""

    def of(factor):
        @jax.custom_vjp
        def f(x):
            return fun(x)

        f.defvjp(lambda x: (fun(x), x), lambda x, delta: (factor * backward(x, delta),))
        return f

    return of


def sine(fun):
    return ruled(fun, lambda x, delta: delta * jnp.cos(x))


def sharded(fun):
    return jax.shard_map(fun, mesh=MESH, in_specs=PartitionSpec("i"), out_specs=PartitionSpec())


def looped(x):
    return lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * jnp.sin(x)), (0, x))[1]


def solved(x):
    return odeint(lambda y, t: -y * y, x, jnp.array([0.0, 1.0]))[-1]


def kernel(x_ref, o_ref):
    o_ref[...] = jnp.sin(x_ref[...])


def in_pallas(x, dtype=None):
    return pl.pallas_call(kernel, out_shape=jax.ShapeDtypeStruct(x.shape, dtype or x.dtype), interpret=True)(x)


def called_back(x, dtype=None):
    shape = jax.ShapeDtypeStruct(x.shape, dtype or x.dtype)
    return jax.pure_callback(lambda v: np.sin(np.asarray(v)).astype(shape.dtype), shape, x)


def scattered(x):
    return jnp.ones(3, x.dtype).at[jnp.asarray([0, 0, 1, 1, 2, 2])].multiply(x)


@custom_vmap
def mapped(x):
    return jnp.sin(x)


@mapped.def_vmap
def _(size, batched, x):
    return jnp.sin(x), batched[0]


def in_reference(x):
    ref = jax.new_ref(x)
    ref[...] = jnp.sin(ref[...])
    return ref[...]


def linear(factor):
    call = partial(linear_call, lambda _, v: 2.0 * v, lambda _, delta: factor * 2.0 * delta, ())
    return lambda x: call(jnp.sin(x))


def masked(factor):
    inner = sine(jnp.sin)(factor)
    return lambda x: inner(x[x > 0.8]).sum()


def not_differentiated(factor):
    @partial(jax.custom_vjp, nondiff_argnums=(0,))
    def f(n, x):
        return n * jnp.sin(x)

    f.defvjp(lambda n, x: (f(n, x), x), lambda n, x, delta: (factor * n * delta * jnp.cos(x),))
    return f


def cut(x):
    return lax.stop_gradient(x) * called_back(x)


def in_loop(x):
    step = lambda c: (c[0] + 1, x + jnp.sin(lax.stop_gradient(c[1])))  # noqa: E731
    return lax.while_loop(lambda c: c[0] < 3, step, (0, x))[1]


CASES = {
    "while_loop": ruled(looped, lambda x, d: d * (jnp.sin(x) ** 3 + 3 * x * jnp.sin(x) ** 2 * jnp.cos(x))),
    "pallas": sine(in_pallas),
    "pallas in float32": sine(partial(in_pallas, dtype=jnp.float32)),
    "pure_callback": sine(called_back),
    "pure_callback in float32": sine(partial(called_back, dtype=jnp.float32)),
    "scatter-multiply": ruled(scattered, lambda x, d: jnp.repeat(d, 2) * x.reshape(3, 2)[:, ::-1].reshape(-1)),
    "custom_vmap": sine(mapped),
    "composite": sine(lax.composite(jnp.sin, name="my.sine")),
    "reference to an array": sine(in_reference),
    "linear_call": linear,
    "shard_map": sine(sharded(lambda x: lax.psum(jnp.sin(x).sum(), "i"))),
    "rule in shard_map": lambda k: sharded(lambda x: lax.psum(sine(jnp.sin)(k)(x).sum(), "i")),
    "a cut": ruled(cut, lambda x, d: d * x * jnp.cos(x)),
    "a cut inside jit": ruled(jax.jit(cut), lambda x, d: d * x * jnp.cos(x)),
    "NumPy": sine(lambda x: jnp.asarray(np.sin(np.asarray(x)))),
    "mask": masked,
    "mask within": ruled(lambda x: jnp.sin(x)[x > 0.8].sum(), lambda x, d: d * jnp.where(x > 0.8, jnp.cos(x), 0)),
}


QUICK = ["a cut", "while_loop", "pure_callback", "scatter-multiply", "reference to an array", "shard_map", "NumPy"]


@pytest.mark.parametrize("name", slow_but(QUICK, CASES))
def test_has_a_verdict(name):
    compare_gradients(CASES[name](1.0), X, timing=False).assert_close()
    assert not compare_gradients(CASES[name](1.5), X, timing=False)["x"].ok


def test_outside_of_jit():
    with jax.disable_jit():
        assert compare_gradients(sine(jnp.sin)(1.0), X, timing=False).ok
        assert not compare_gradients(sine(jnp.sin)(1.5), X, timing=False).ok


@pytest.mark.parametrize(
    "stops",
    [lambda x: jnp.asarray(np.sin(np.asarray(lax.stop_gradient(x))) + np.asarray(x)), in_loop],
    ids=["NumPy", "loop"],
)
def test_a_cut_that_cannot_be_held_leaves_it_open(stops):
    report = compare_gradients(ruled(stops, lambda x, d: d)(1.0), X, timing=False)
    assert not report.ok
    assert "cannot tell" in report["x"].verdict()
    assert "test_audit_no_oracle.py:" in report["x"].doubt
    assert "pass `reference`" in report["x"].doubt
    assert "of 1 it cannot be told" in title(report)
    expected = report["x"].maps.manual
    assert compare_gradients(ruled(stops, lambda x, d: d)(1.0), X, expected=expected, timing=False).ok


def test_a_difference_that_does_not_see_a_cut_in_a_loop_decides_nothing():
    def counted(x):
        return lax.scan(lambda c, _: (x * x + 0 * c + lax.stop_gradient(jnp.sin(c)), None), x, length=2)[0]

    report = compare_gradients(ruled(counted, lambda x, d: 2 * x * d)(1.0), X, timing=False)
    report.assert_close()
    assert "which does not see that `fun` stops gradients (test_audit_no_oracle.py:" in report["x"].excuse


def test_the_report_says_that_differences_are_weaker():
    report = compare_gradients(CASES["while_loop"](1.0), X, timing=False)
    assert "finite differences" in title(report)
    assert "pass `reference`" not in title(report)
    assert "that is weaker" in str(report)
    assert "lax.while_loop" in report.no_oracle
    assert "finite differences in float64 of 6 of 6 elements" in report["x"].reason
    assert report.to_dict()["no_oracle"] == report.no_oracle


def test_a_large_array_is_judged_at_elements_and_along_directions():
    x, rule = jnp.linspace(0.5, 1.5, 500), sine(called_back)
    report = compare_gradients(rule(1.0), x, timing=False)
    assert report.ok
    assert "of 500 elements" in report["x"].reason
    assert not compare_gradients(rule(1.001), x, timing=False).ok


def test_an_argument_that_has_no_gradient_is_to_be_left_out():
    n = jnp.arange(6.0)
    with pytest.raises(TypeError, match="name the others in `argnums`"):
        compare_gradients(not_differentiated(1.0), n, X)
    assert compare_gradients(not_differentiated(1.0), n, X, argnums=1, timing=False).ok
    assert not compare_gradients(not_differentiated(1.5), n, X, argnums=1, timing=False).ok


def test_no_gradient_at_all():
    with pytest.raises(ValueError, match="`fun` has no gradient to judge; give it a rule"):
        compare_gradients(looped, X)


@pytest.mark.slow
def test_the_rules_of_jax_stay():
    """An ODE's adjoint is JAX's own rule."""
    report = compare_gradients(ruled(solved, lambda x, d: d / (1 + x) ** 2)(1.0), X, timing=False)
    report.assert_close()
    assert not report.no_oracle
    assert not compare_gradients(ruled(solved, lambda x, d: d / (1 + x) ** 2)(1.5), X, timing=False).ok


@pytest.mark.slow
def test_a_rough_rule_of_jax_decides_nothing():
    """The adjoint of a loose solution is no derivative of it, and differs from what is meant by as much."""

    def loose(x):
        return odeint(lambda y, t: -y * y, x, jnp.array([0.0, 1.0]), rtol=1e-3, atol=1e-3)[-1]

    of = ruled(loose, lambda x, d: d / (1 + x) ** 2)
    assert "`rtol`" in compare_gradients(of(1.0), X, timing=False)["x"].doubt
    assert "wrong" in compare_gradients(of(1.5), X, timing=False)["x"].verdict()


def test_primitives_that_bring_their_own_rule():
    hijax = pytest.importorskip("jax.experimental.hijax")

    class Sine(getattr(hijax, "HiPrim", None) or hijax.VJPHiPrimitive):  # by its name since JAX 0.12
        def __init__(self, aval, factor):
            self.in_avals, self.out_aval, self.params = (aval,), aval, {"factor": factor}
            super().__init__()

        def expand(self, x):
            return jnp.sin(x)

        def vjp_fwd(self, _, x):
            return self(x), x

        def vjp_bwd_retval(self, x, delta):
            return (self.factor * delta * jnp.cos(x),)

    def sine_of(factor):
        return lambda x: Sine(jax.typeof(x), factor)(x)

    assert compare_gradients(sine_of(1.0), X, timing=False).ok
    assert not compare_gradients(sine_of(1.5), X, timing=False).ok
    assert compare_gradients(sine(sine_of(1.0))(1.0), X, timing=False).ok
    assert not compare_gradients(sine(sine_of(1.0))(1.5), X, timing=False).ok
