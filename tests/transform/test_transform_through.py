"""`manual_backward` through everything that may hold a function, and everything that may hold it."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from marks import one_in, slow_but

import jaxcnnbp
from jaxcnnbp.audit import compare_gradients
from jaxcnnbp.modes import mode
from jaxcnnbp.transform import explain_swaps, manual_backward

pytestmark = pytest.mark.usefixtures("quick", "x64")

X = np.random.default_rng(0).normal(size=(2, 5, 5, 2))
K = np.random.default_rng(1).normal(size=(3, 3, 2, 2))
# Sums of a few dozen float64 terms in another order.
CLOSE = dict(rtol=1e-11, atol=1e-11)


def _correlated(x, k):
    return lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def layer(x, k):
    y = _correlated(x, k)
    # SAME over an even window: the rule needs a constant mask, which must travel through every wrapper.
    return lax.reduce_window(y, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "SAME")


def _custom_jvp(x, k):
    @jax.custom_jvp
    def act(x):
        return jnp.sin(x)

    act.defjvp(lambda p, t: (act(p[0]), 3 * jnp.cos(p[0]) * t[0]))
    return act(layer(x, k))


def _custom_jvp_around(x, k):
    doubled = jax.custom_jvp(layer)
    doubled.defjvp(lambda p, t: (layer(*p), 2 * jax.jvp(layer, p, t)[1]))
    return doubled(x, k)


def _custom_vjp_around(x, k):
    clipped = jax.custom_vjp(layer)
    clipped.defvjp(lambda x, k: (layer(x, k), (x, k)), lambda kept, d: jax.vjp(layer, *kept)[1](jnp.clip(d, -0.5, 0.5)))
    return clipped(x, k)


def _custom_vjp_with_symbolic_zeros(x, k):
    function = jax.custom_vjp(layer)
    function.defvjp(
        lambda x, k: (layer(x.value, k.value), (x.value, k.value)),
        lambda kept, d: jax.vjp(layer, *kept)[1](d),
        symbolic_zeros=True,
    )
    return function(x, k)


def _custom_vjp_with_a_penalty_inside(x, k):
    """Its bwd takes a convolution of its own, which has a derivative again."""
    function = jax.custom_vjp(lambda x, k: layer(x, k) + jnp.asarray(x).sum())
    function.defvjp(
        lambda x, k: (layer(x, k) + x.sum(), (x, k)), lambda kept, d: (layer(d, kept[1]) * kept[0], kept[1] * d.sum())
    )
    return function(x, k)


def _while(x, k):
    return layer(x, k) + lax.stop_gradient(lax.while_loop(lambda y: y.sum() < -1e9, lambda y: layer(y, k), x))


def _policy(x, k):
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return jax.checkpoint(layer, policy=policy, prevent_cse=False)(x, k)


def _linear_solve(x, k):
    """v + k * v = layer(x)."""
    k = k + jnp.flip(k, (0, 1)).swapaxes(2, 3)
    return jax.scipy.sparse.linalg.cg(lambda v: v + _correlated(v, k), layer(x, k), maxiter=3)[0]


def _root(x, k):
    """y = tanh(k * y) + x, by a few steps."""

    def steps(f, y):
        return lax.fori_loop(0, 3, lambda _, y: y - f(y), y)

    return lax.custom_root(
        lambda y: y - jnp.tanh(_correlated(y, k)) - x,
        jnp.zeros_like(x),
        steps,
        lambda g, y: steps(lambda z: g(z) - y, y),
    )


WRAPPERS = {
    "plain": layer,
    "jit": jax.jit(layer),
    "jit of jit": jax.jit(lambda x, k: jax.jit(layer)(x, k) * 2),
    "scan": lambda x, k: lax.scan(lambda y, _: (layer(y, k), y.sum()), x, None, length=2)[0],
    "scan over kernels": lambda x, k: lax.scan(lambda y, w: (layer(y, w), None), x, jnp.stack([k, k]), unroll=2)[0],
    "while": _while,
    "cond": lambda x, k: lax.cond(x.sum() > 0, layer, lambda x, k: x, x, k),
    "switch": lambda x, k: lax.switch(1, [lambda x: x, lambda x: layer(x, k), lambda x: 2 * layer(x, k)], x),
    "checkpoint": jax.checkpoint(layer),
    "checkpoint policy": _policy,
    "vmap": lambda x, k: jax.vmap(lambda one: layer(one[None], k)[0], out_axes=1)(x).swapaxes(0, 1),
    "custom_jvp inside": _custom_jvp,
    "custom_jvp around": _custom_jvp_around,
    "custom_vjp around": _custom_vjp_around,
    "custom_vjp with symbolic zeros": _custom_vjp_with_symbolic_zeros,
    "custom_vjp with a convolution in bwd": _custom_vjp_with_a_penalty_inside,
    "custom_vjp in scan": lambda x, k: lax.scan(lambda y, _: (_custom_vjp_around(y, k), None), x, None, length=2)[0],
    "custom_jvp in scan": lambda x, k: lax.scan(lambda y, _: (_custom_jvp_around(y, k), None), x, None, length=2)[0],
    "custom_vjp in checkpoint": jax.checkpoint(_custom_vjp_around),
    "gradient inside": lambda x, k: jax.grad(lambda x: (layer(x, k) ** 2).sum())(x),
    "named_scope": jax.named_scope("block")(layer),
    "linear solve": lambda x, k: _linear_solve(x, k / 20),
    "root": lambda x, k: _root(x, k / 20),
}


def _loss(held):
    return lambda x, k: jnp.sin(held(x, k)).sum()


@pytest.mark.parametrize("name", one_in(2, WRAPPERS))
def test_value_and_gradients_through(name: str):
    loss = _loss(WRAPPERS[name])
    expected = jax.value_and_grad(loss, (0, 1))(X, K)
    found = jax.value_and_grad(manual_backward(loss), (0, 1))(X, K)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), found, expected)


@pytest.mark.parametrize("name", slow_but(["jit"], ["jit", "scan"]))
def test_every_way_to_map_and_compile(name: str):
    loss = _loss(WRAPPERS[name])
    manual = manual_backward(loss)
    xs, ks = jnp.stack([X, 2 * X], 1), jnp.stack([K, -K])
    for in_axes, arguments in (((1, None), (xs, K)), ((None, 0), (X, ks)), ((1, 0), (xs, ks))):
        expected = jax.jit(jax.vmap(jax.grad(loss, (0, 1)), in_axes))(*arguments)
        found = jax.jit(jax.vmap(jax.grad(jax.jit(manual), (0, 1)), in_axes))(*arguments)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), found, expected)


def test_a_function_that_maps_is_swapped_like_any_other():
    mapped = jax.vmap(_loss(layer), (None, 0))
    ks = jnp.stack([K, -K])
    expected = jax.jacrev(mapped, 1)(X, ks)
    np.testing.assert_allclose(jax.jacrev(manual_backward(mapped), 1)(X, ks), expected, **CLOSE)


def along(function):
    return lambda t: function(X * jnp.cos(t), K * jnp.sin(t))


@functools.cache
def second_derivative(name: str) -> jax.Array:
    """By plain autodiff, in whichever way JAX takes it."""
    return jax.jit(jax.hessian(along(_loss(WRAPPERS[name]))))(0.7)


TWICE = {
    "hessian": jax.hessian,
    "grad": lambda f: jax.grad(jax.grad(f)),
    "jacrev": lambda f: jax.jacrev(jax.jacrev(f)),
}


@pytest.mark.parametrize("second", slow_but(["hessian"], TWICE))
@pytest.mark.parametrize("name", ["plain", "scan", "custom_vjp with a convolution in bwd", "custom_vjp in scan"])
def test_second_derivatives(name: str, second: str):
    manual = along(manual_backward(jax.jit(_loss(WRAPPERS[name]))))
    np.testing.assert_allclose(jax.jit(TWICE[second](manual))(0.7), second_derivative(name), rtol=1e-9)


def test_a_rule_that_was_traced_once_serves_every_choice_of_arguments():
    loss = manual_backward(_loss(jax.jit(layer)))
    both = jax.grad(loss, (0, 1))(X, K)
    for wanted in (0, 1, (0, 1), 1, 0, (0, 1)):  # each leaves its mark on what JAX keeps of the trace
        found = jax.grad(loss, wanted)(X, K)
        expected = both if wanted == (0, 1) else both[wanted]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), found, expected)


def test_tracers_closed_over_have_their_gradient():
    def outer(k):
        return manual_backward(lambda x: layer(x, k).sum())(X)

    expected = jax.grad(lambda k: layer(X, k).sum())(K)
    np.testing.assert_allclose(jax.grad(outer)(K), expected, **CLOSE)
    np.testing.assert_allclose(jax.jit(jax.grad(outer))(K), expected, **CLOSE)
    mapped = jax.vmap(lambda k: layer(X, k).sum())
    np.testing.assert_allclose(jax.vmap(outer)(jnp.stack([K, -K])), mapped(jnp.stack([K, -K])), **CLOSE)


def test_export_and_ahead_of_time():
    manual = manual_backward(_loss(layer))
    shape = jax.ShapeDtypeStruct(X.shape, X.dtype)
    exported = jax.export.export(jax.jit(jax.grad(manual)))(shape, jax.ShapeDtypeStruct(K.shape, K.dtype))
    expected = jax.grad(_loss(layer))(X, K)
    np.testing.assert_allclose(exported.call(X, K), expected, **CLOSE)
    np.testing.assert_allclose(jax.jit(jax.grad(manual)).lower(X, K).compile()(X, K), expected, **CLOSE)
    assert jax.eval_shape(manual, X, K).shape == ()


def test_only_some_rules():
    assert {s.rule for s in explain_swaps(layer, only="conv")(X, K).swapped} == {"conv"}
    assert {s.rule for s in explain_swaps(layer, only=["max_pool"])(X, K).swapped} == {"max_pool"}
    assert "not in `only`" in str(explain_swaps(layer, only="conv")(X, K))
    with pytest.raises(ValueError, match=r"`only` \(='pool'\) names no rule 'pool'"):
        manual_backward(layer, only="pool")


def test_solvers_are_entered():
    paths = {"linear solve": "custom_linear_solve", "root": "custom_jvp_call"}
    if jax.__version_info__ >= (0, 12):  # there `custom_root` is a primitive without a trace to enter, and stays JAX's
        del paths["root"]
    for name, path in paths.items():
        held = [swap.path for swap in explain_swaps(WRAPPERS[name])(X, K).swapped]
        assert any(path in each for each in held), (name, held)


def test_rules_of_this_package_are_found_by_what_they_are():
    def ours(x, k):
        y = jaxcnnbp.conv_block(x, k, jnp.zeros(2))
        return jaxcnnbp.subsample(y, jnp.ones(2), jnp.ones(2), (3, 3))

    assert [swap.rule for swap in explain_swaps(ours)(X, K).left] == ["block", "subsample"]


def test_solvers_are_differentiated_twice_by_their_operator():
    """Forward over reverse: each derivative of a solution goes forward through the operator."""

    def loss(k):
        return jnp.sin(_linear_solve(X[:1, :3, :3], k / 20)).sum()

    found, expected = jax.hessian(manual_backward(loss))(K), jax.hessian(loss)(K)
    np.testing.assert_allclose(found, expected, **CLOSE)


def test_what_only_looks_at_a_function_takes_one_with_compiler_options():
    compiled = jax.jit(_loss(layer), compiler_options=dict(xla_cpu_enable_fast_math=False))
    assert len(explain_swaps(compiled)(X, K).swapped) == 2
    assert len(jaxcnnbp.explain_choice(manual_backward(compiled), X, K).rows) == 5
    assert compare_gradients(compiled, X, K, timing=False).ok


def test_compiler_options_are_kept():
    def compiled(**options):
        return manual_backward(jax.jit(_loss(layer), compiler_options=options))

    np.testing.assert_allclose(compiled(xla_cpu_enable_fast_math=False)(X, K), _loss(layer)(X, K), **CLOSE)
    with pytest.raises(jax.errors.JaxRuntimeError, match="no_such_option"):
        compiled(no_such_option=True)(X, K)


def test_conditions_deep_in_conditions():
    held = functools.partial(_correlated, k=K)
    for _ in range(50):  # each frame of the rewriting costs; JAX itself gives up at some 80
        held = functools.partial(lambda inner, x: lax.cond(x.sum() > 0, inner, lambda x: x, x), held)
    assert jax.make_jaxpr(manual_backward(held))(X)


def test_reasons():
    def reason(function, *args):
        return explain_swaps(function)(*args).left[0].reason

    assert "int32 has no gradient" in reason(
        lambda x: lax.reduce_window(x, jnp.int32(0), lax.add, (2,), (1,), "VALID"), jnp.ones(4, jnp.int32)
    )
    assert "that of the custom_vjp" in explain_swaps(_custom_vjp_around)(X, K).swapped[0].reason
    assert "that of the custom_jvp" in explain_swaps(_custom_jvp_around)(X, K).swapped[0].reason
    assert "rule of this package already" in reason(manual_backward(layer), X, K)
    inside = explain_swaps(WRAPPERS["gradient inside"])(X, K)
    assert any("wrap what jax.grad receives" in swap.reason for swap in inside)
    assert str(explain_swaps(jnp.sin)(X)) == "no convolution and no pooling found"
    (swap, *_) = explain_swaps(lambda x: lax.scan(lambda c, _: (layer(c, K), None), x, None, length=2)[0])(X)
    assert swap.path == "scan"
    assert "test_transform_through.py" in swap.where


def test_what_a_gradient_did_before_has_gradients_too():
    def penalty(k):
        return (jax.grad(lambda x: jnp.sin(layer(x, k)).sum())(X) ** 2).sum()

    np.testing.assert_allclose(jax.grad(manual_backward(penalty))(K), jax.grad(penalty)(K), rtol=1e-9)


@pytest.fixture
def both_ways():
    with mode("both_ways"):
        yield


def test_forward_mode(both_ways):
    manual, plain = manual_backward(_loss(jax.jit(layer))), _loss(layer)
    expected = jax.jvp(plain, (X, K), (X, K))
    for found in (
        jax.jvp(manual, (X, K), (X, K)),
        jax.jvp(jax.jit(manual), (X, K), (X, K)),
        jax.tree.map(lambda a: a[0], jax.jvp(jax.vmap(manual), (X[None], K[None]), (X[None], K[None]))),
    ):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), found, expected)
    reverse_over_forward = jax.grad(lambda k: jax.jvp(lambda x: manual(x, k), (X,), (X,))[1])(K)
    expected = jax.grad(lambda k: jax.jvp(lambda x: plain(x, k), (X,), (X,))[1])(K)
    np.testing.assert_allclose(reverse_over_forward, expected, **CLOSE)


def test_reducers_that_jax_cannot_differentiate():
    def product(x):
        return lax.reduce_window(x, 1.0, lax.mul, (1, 2, 2, 1), (1, 1, 1, 1), "VALID").sum()

    with pytest.raises(ValueError, match="Linearization"):
        jax.grad(product)(X)
    shifted = [X[:, a : a + 4, b : b + 4] for a in (0, 1) for b in (0, 1)]
    dx = jax.grad(manual_backward(product))(X)
    np.testing.assert_allclose(dx[:, 0, 0], (shifted[1] * shifted[2] * shifted[3])[:, 0, 0], **CLOSE)


def test_a_batch_of_any_size():
    (batch,) = jax.export.symbolic_shape("b")
    shapes = jax.ShapeDtypeStruct((batch, *X.shape[1:]), X.dtype), jax.ShapeDtypeStruct(K.shape, K.dtype)
    exported = jax.export.export(jax.jit(jax.grad(manual_backward(_loss(layer)), 1)))(*shapes)
    np.testing.assert_allclose(exported.call(X, K), jax.grad(_loss(layer), 1)(X, K), **CLOSE)


def test_a_frozen_kernel_has_no_gradient_computed():
    def products(wanted):
        text = jax.jit(jax.grad(manual_backward(lambda x, k: _conv_only(x, k).sum()), wanted)).lower(X, K).as_text()
        return text.count("stablehlo.convolution") + text.count("stablehlo.dot_general")

    assert products(0) < products((0, 1))


def test_activations_with_a_custom_jvp_are_bound_as_they_were():
    x = jnp.asarray(X)
    trace = jax.make_jaxpr(manual_backward(lambda x: jax.nn.silu(jax.nn.relu(x))))(x)
    assert str(trace) == str(jax.make_jaxpr(lambda x: jax.nn.silu(jax.nn.relu(x)))(x))


def _conv_only(x, k):
    return jnp.sin(_correlated(x, k))
