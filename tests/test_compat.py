"""Every function of `_compat` on the JAX that is installed: what moves in a release shows here first."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.dtypes import float0
from jax.extend.core import JaxprEqn, Primitive, jaxpr_as_fun
from jax.sharding import PartitionSpec

from jaxcnnbp import _compat

SOME = jnp.asarray([1.0, 2.0])


def first_equation(fun, *args) -> JaxprEqn:
    return jax.make_jaxpr(fun)(*args).jaxpr.eqns[0]


def one_device_of(fun):
    """`fun` of nothing, under a `shard_map` over one device."""
    mesh = jax.make_mesh((1,), ("d",), devices=jax.devices()[:1])
    return jax.shard_map(fun, mesh=mesh, in_specs=(), out_specs=PartitionSpec("d"))


def test_varying_axes():
    seen = []

    def inside():
        x = lax.pcast(jnp.ones(2), ("d",), to="varying")
        seen.extend([_compat.varying_axes(x), _compat.varying_axes(_compat.zeros_of_type(jax.typeof(x)))])
        return x

    jax.eval_shape(one_device_of(inside))
    assert seen == [{"d"}, {"d"}]
    assert _compat.varying_axes(SOME) == set()


def test_with_weak_type():
    weak, strong = jax.typeof(jnp.asarray(1.0)), jax.typeof(jnp.float32(1))
    assert (weak.weak_type, strong.weak_type) == (True, False)
    assert jax.typeof(_compat.with_weak_type(jnp.float32(2), weak)) == weak
    assert jax.typeof(_compat.with_weak_type(jnp.asarray(2.0), strong)) == strong


def test_types():
    assert _compat.tangent_type(SOME) == jax.typeof(SOME)
    assert _compat.tangent_type(jnp.arange(2)).dtype == float0
    assert _compat.type_in_words(jax.typeof(SOME)) == "float32[2]"


def test_a_primitive_with_rules():
    """Three times a linear argument, times another one."""
    triple_p = Primitive("triple")
    triple_p.multiple_results = True
    told = []

    def triple(x, y):
        return [3 * x * y]

    def jvp(primals, tangents):
        (x, y), (dx, dy) = primals, tangents
        told.append((_compat.is_zero(dx), _compat.is_zero(dy)))
        along = triple_p.bind(_compat.tangent_array(dx), y)[0]
        nothing = _compat.zero_of_type(_compat.tangent_type(along))
        return triple_p.bind(x, y), [_compat.sum_of_tangents(nothing, along)]

    def transpose(deltas, x, y):
        told.append((_compat.is_linear(x), _compat.is_linear(y)))
        return [triple_p.bind(_compat.tangent_array(deltas[0]), y)[0], None]

    def batch(over, args, axes):
        x, y = (_compat.in_front(over, a, axis) for a, axis in zip(args, axes, strict=True))
        found = _compat.vmap_over(over, triple, (0, 0))(x, y)
        assert [_compat.mapped_type(over, jax.typeof(a[0])) for a in found] == [jax.typeof(a) for a in found]
        return found, [0]

    triple_p.def_impl(triple)
    triple_p.def_abstract_eval(lambda x, y: [x])
    _compat.jvp_by(triple_p, jvp)
    _compat.transpose_by(triple_p, transpose)
    _compat.batch_by(triple_p, batch)
    _compat.lower_as(triple_p, triple)

    def fun(x):
        return triple_p.bind(x, jnp.float32(2))[0]

    np.testing.assert_array_equal(jax.jit(fun)(SOME), 6 * SOME)
    np.testing.assert_array_equal(jax.jit(jax.vmap(fun))(SOME), 6 * SOME)
    np.testing.assert_array_equal(jax.grad(lambda x: fun(x).sum())(SOME), [6, 6])
    assert told == [(False, True), (True, False)]


def test_what_equations_hold():
    def named(x):
        return x + 1

    called = first_equation(jax.jit(named), SOME)
    jaxpr = called.params["jaxpr"].jaxpr
    with _compat.context_of(called):
        assert _compat.name_of(jaxpr) == "named"
    assert _compat.traced_from(jaxpr).startswith(f"named at {__file__}:")


def test_scan_counts():
    def fun(x):
        return lax.scan(lambda carry, row: (carry + row * x.sum(), row), jnp.float32(0), x)

    scan = next(eqn for eqn in jax.make_jaxpr(fun)(SOME).jaxpr.eqns if eqn.primitive.name == "scan")
    assert _compat.scan_counts(scan) == (1, 1)


def test_manual_axes():
    eqn = first_equation(one_device_of(lambda: jnp.ones(2)))
    assert _compat.manual_axes(eqn) == {"d"}


def test_jvp_of():
    double = jax.custom_jvp(lambda x: 2 * x)
    double.defjvp(lambda primals, tangents: (2 * primals[0], 2 * tangents[0]))
    derivative, are_zero = _compat.jvp_of(first_equation(double, SOME), [False])
    y, dy = jaxpr_as_fun(derivative)(SOME, 3 * SOME)
    np.testing.assert_array_equal((y, dy), (2 * SOME, 6 * SOME))
    assert are_zero == [False]


def test_compiler_options():
    options = {"xla_backend_optimization_level": 0}
    fun = jax.jit(lambda x: 2 * x, compiler_options=options)
    bare, found = _compat.without_compiler_options(fun)
    assert found == tuple(options.items())
    again = _compat.with_compiler_options(first_equation(bare, SOME), found)
    (y,) = again.primitive.bind(SOME, **again.params)
    np.testing.assert_array_equal(y, 2 * SOME)
    assert _compat.without_compiler_options(bare) == (bare, ())


def test_each_is_called_here():
    functions = {name for name, fun in vars(_compat).items() if getattr(fun, "__module__", "") == _compat.__name__}
    here = Path(__file__).read_text()
    assert {name for name in functions if f"_compat.{name}(" not in here} == set()
