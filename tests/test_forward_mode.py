"""`mode("both_ways")`: forward mode, which JAX refuses to `jax.custom_vjp`, in any order with reverse mode."""

import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import ALL, BLOCKS, CONVOLUTIONS, LAX_CONVOLUTIONS, LAYERS, MAX_POOLS, Case, named
from check import assert_same, delta_like, value_and_pullback
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import jaxprs_in_params
from jax.extend.core.primitives import custom_vjp_call_p
from marks import first_are_quick, one_in, slow_but

import jaxcnnbp
from jaxcnnbp import mode, nn
from jaxcnnbp._compat import traced_from
from jaxcnnbp.hand_written import RULES, hand_written


@pytest.fixture
def both_ways():
    with mode("both_ways"):
        yield


@pytest.fixture(params=["manual", "both_ways"])
def either_mode(request):
    with mode(request.param):
        yield


pytestmark = pytest.mark.usefixtures("quick", "x64", "both_ways")

EACH = (
    *{case.op: case for case in reversed(ALL)}.values(),
    *named(CONVOLUTIONS, "stride 2 of 3x3", "depthwise strided"),
    *named(LAX_CONVOLUTIONS, "all dilations"),
    *named(MAX_POOLS, "ceil mode overlapping"),
    *named(BLOCKS, "gelu max", "scaled tanh mean"),
    Case("split", "max_pool", ((1, 5, 6, 2),), dict(window_shape=(3, 2), ties="split")),
    Case("", "lp_pool", ((1, 5, 2),), dict(norm_type=2, window_shape=(2,))),
    Case("", "adaptive_avg_pool", ((1, 5, 2),), dict(output_shape=(2,))),
    Case("", "adaptive_max_pool", ((1, 5, 2),), dict(output_shape=(2,))),
)


def by_jvp(fun, arrays, tangents):
    return jax.jvp(jax.jit(fun), tuple(arrays), tuple(tangents))


@pytest.mark.parametrize("case", one_in(2, EACH))
def test_every_rule(case):
    arrays, tangents = case.arrays(), case.arrays(seed=1)
    found = by_jvp(case, arrays, tangents)
    with mode("autodiff"):
        assert_same(found, by_jvp(case, arrays, tangents))


def reducer(x):
    return jaxcnnbp.reduce_window(x, 1.0, lax.mul, (1, 2, 1), (1, 1, 1), "SAME")


def unpooled(x):
    values, argmax = jaxcnnbp.max_pool_with_argmax(x, (2,), (2,))
    return jaxcnnbp.max_unpool(values, argmax, (6,))


def dilated(x):
    return jaxcnnbp.max_pool(x, (2,), window_dilation=(3,))


def squared(x):
    return nn.squared_error(x[0], x[0][::-1] ** 2)


def cross_entropy(x):
    return nn.softmax_cross_entropy(x[0], jax.nn.softmax(x[0] ** 2))


@pytest.mark.parametrize("fun", [reducer, unpooled, dilated, squared, cross_entropy])
def test_rules_whose_tangent_jax_does_not_know(fun):
    """<delta, J t> = <J^T delta, t>, and J^T is tested elsewhere."""
    x, t = (jax.device_put(np.random.default_rng(seed).normal(size=(1, 6, 2))) for seed in (0, 1))
    delta = np.asarray(delta_like(fun, [x]))
    _, tangent = by_jvp(fun, [x], [t])
    (gradient,) = jax.jit(lambda x: value_and_pullback(fun, [x], delta)[1])(x)
    assert_same(np.vdot(delta, tangent), np.vdot(gradient, t))


X = np.random.default_rng(0).normal(size=(2, 6, 2))
K = np.random.default_rng(1).normal(size=(3, 2, 2))


def layer(x, k):
    return jaxcnnbp.max_pool(jaxcnnbp.tanh(jaxcnnbp.correlate(x, k, padding="SAME")), (3,), padding="SAME")


def _while(x, k):
    return lax.while_loop(lambda c: c[1] < 2, lambda c: (layer(c[0], k), c[1] + 1), (x, 0))[0]


def _saved_by_name(x, k):
    policy = jax.checkpoint_policies.save_only_these_names("extreme_pool.winners", "mine")
    return jax.checkpoint(lambda x, k: layer(checkpoint_name(layer(x, k), "mine"), k), policy=policy)(x, k)


HOLDERS = {
    "plain": layer,
    "jit": jax.jit(layer),
    "scan": lambda x, k: lax.scan(lambda h, _: (layer(h, k), h.sum()), x, None, length=2)[0],
    "scan over kernels": lambda x, k: lax.scan(lambda h, w: (layer(h, w), None), x, jnp.stack([k, -k]))[0],
    "while": _while,
    "cond": lambda x, k: lax.cond(x.sum() > -99, layer, lambda x, k: x, x, k),
    "checkpoint": jax.checkpoint(layer),
    "saved by name": _saved_by_name,
    "vmap": lambda x, k: jax.vmap(lambda one, k: layer(one[None], k)[0], (2, None), 2)(jnp.stack([x[0], x[1]], 2), k),
    "vmap of jit": jax.vmap(jax.jit(lambda one, k: layer(one[None], k)[0]), (0, None)),
}


def forward(fun):
    return lambda t: jax.jvp(fun, (t,), (1.0,))[1]


ORDERS = {"f": forward, "r": jax.grad, "l": lambda fun: lambda t: jax.linearize(fun, t)[1](1.0)}


def along(held):
    """A function of a number, through input and kernel."""
    return lambda t: jnp.sum(jnp.sin(held(X * jnp.cos(t), K * (1 + jnp.sin(t)))))


def derivative(held, orders):
    fun = along(held)
    for order in reversed(orders):
        fun = ORDERS[order](fun)
    return fun(0.7)


@pytest.mark.parametrize("name", slow_but(["vmap"], HOLDERS))  # plainly: in `test_any_order`
def test_through(name):
    orders = ("f", "l", "ff") if name == "while" else ("f", "l", "fr", "rf")
    with mode("autodiff"):
        wanted = jax.jit(
            lambda: [derivative(layer if name in ("jit", "checkpoint") else HOLDERS[name], o) for o in orders]
        )()
    assert_same(jax.jit(lambda: [derivative(HOLDERS[name], o) for o in orders])(), wanted, 1e-9)


@pytest.mark.parametrize(
    "orders", first_are_quick(2, zip(("ff", "rfr", "rr", "frf", "fff", "ffr", "rff", "frr", "rrf")))
)
def test_any_order(orders):
    with mode("autodiff"):
        wanted = jax.jit(lambda: derivative(layer, orders))()
    assert_same(jax.jit(lambda: derivative(jax.jit(layer), orders))(), wanted, 1e-9)


def test_whole_jacobians():
    jacobians = [jax.jit(jacobian(jax.jit(layer), (0, 1)))(X, K) for jacobian in (jax.jacfwd, jax.jacrev)]
    assert_same(*jacobians)


def test_in_the_whole_of_a_program_that_ran_before():
    """A trace that JAX keeps serves both directions."""
    held = jax.jit(layer)
    held(X, K)
    value, pull = jax.vjp(held, X, K)
    delta = delta_like(layer, [X, K])
    _, tangent = jax.jvp(held, (X, K), (X, K))
    assert_same(jnp.vdot(delta, tangent), sum(map(jnp.vdot, pull(delta), (X, K))))
    assert_same(value, held(X, K))


def residuals(fun, *arrays):
    kept = jax.tree.leaves(jax.vjp(fun, *arrays)[1])
    return sorted(str(jax.typeof(a)) for a in kept if hasattr(a, "dtype") and a.size)


@pytest.mark.usefixtures("either_mode")
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint])
def test_what_is_kept(wrap):
    convolution = wrap(lambda x, k: jaxcnnbp.correlate(x, k, padding="SAME"))
    assert residuals(convolution, X, K) == ["float64[2,6,2]", "float64[3,2,2]"]
    assert residuals(wrap(lambda x: jaxcnnbp.avg_pool(x, (2,), (2,))), X) == []


@pytest.mark.usefixtures("either_mode")
def test_what_a_frozen_kernel_needed_is_not_kept():
    for wrap in (lambda f: f, jax.jit):
        assert residuals(lambda x, wrap=wrap: wrap(jaxcnnbp.correlate)(x, K), X) == ["float64[3,2,2]"]
        assert residuals(lambda k, wrap=wrap: wrap(jaxcnnbp.correlate)(X, k), K) == ["float64[2,6,2]"]


@pytest.mark.usefixtures("either_mode")
def test_winners_can_be_saved_by_name():
    def pool(x):
        return jaxcnnbp.max_pool(jnp.sin(x), (2,), (2,))

    policy = jax.checkpoint_policies.save_only_these_names("extreme_pool.winners")
    assert residuals(jax.checkpoint(pool, policy=policy), X) == ["float64[2,6,2]", "uint8[2,3,2]"]
    assert residuals(jax.checkpoint(pool), X) == ["float64[2,6,2]"]


@pytest.mark.usefixtures("either_mode")
def test_a_backward_pass_outside_of_jit_is_one_program(caplog):
    x = jax.device_put(
        np.random.default_rng(0).normal(size=(1, 37 if mode.value == "manual" else 35, 2))
    )  # a shape that nothing was compiled for
    value, pull = jax.vjp(lambda x: jaxcnnbp.max_pool(x, (5,), (2,), "SAME"), x)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "jax"), jax.log_compiles(True):
        pull(value)
    compiled = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Compiling")]
    assert len(compiled) <= 1, compiled


def test_the_rule_is_asked_and_not_its_forward():
    """A wrong rule is wrong in both directions: what is read forwards is `bwd`."""

    @hand_written
    @jax.custom_vjp
    def double(x):
        return 2 * x

    double.defvjp(lambda x: (2 * x, None), lambda _, delta: (3 * delta,))
    assert jax.jvp(jax.jit(double), (1.0,), (1.0,)) == (2, 3)
    assert jax.grad(jax.jit(double))(1.0) == 3


def test_the_transpose_of_a_linear_function():
    delta = delta_like(layer, [X, K])
    (transposed,) = jax.linear_transpose(lambda x: jaxcnnbp.correlate(x, K, padding="SAME"), X)(delta)
    (wanted,) = value_and_pullback(lambda x: jaxcnnbp.correlate(x, K, padding="SAME"), [X], delta)[1]
    assert_same(transposed, wanted)


PUBLIC = {case.op: case for case in reversed(ALL)}.values()


def primitives(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jaxprs_in_params(eqn.params):
            yield from primitives(inner)


@pytest.mark.parametrize("case", PUBLIC, ids=str)
def test_by_default_every_rule_is_a_custom_vjp(case):
    """And no primitive is this package's, forwards, backwards and in second order."""
    arrays = case.arrays()
    delta = delta_like(case, arrays)

    def gradient(*arrays):
        return value_and_pullback(case, arrays, delta)[1]

    def second(*arrays):
        return jax.grad(lambda *a: sum(map(jnp.sum, gradient(*a))))(*arrays)

    with mode("manual"):
        forward, backward, twice = (jax.make_jaxpr(f)(*arrays).jaxpr for f in (case, gradient, second))
    called = [eqn for eqn in primitives(forward) if eqn.primitive is custom_vjp_call_p]
    assert {traced_from(eqn.params["call_jaxpr"].jaxpr) for eqn in called} & set(RULES)
    assert {eqn.primitive.name for j in (forward, backward, twice) for eqn in primitives(j)}.isdisjoint({"tangent"})


def test_forward_mode_is_refused_by_default():
    with mode("manual"), pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(layer, (X, K), (X, K))


def test_the_same_gradients_in_both():
    delta = delta_like(layer, [X, K])
    found = value_and_pullback(layer, [X, K], delta)
    with mode("manual"):
        assert_same(value_and_pullback(layer, [X, K], delta), found)


SHARING = (
    *named(CONVOLUTIONS, "2 groups"),
    *named(BLOCKS, "tanh", "silu min"),
    Case("", "dense", ((4,), (4, 2), (2,))),
    *[case for case in LAYERS if case.op in ("subsample", "combine_maps") and not case.name],
)


@pytest.mark.parametrize("case", slow_but(SHARING[:1], SHARING))
def test_members_with_the_same_weights_are_one_batch(case):
    """Summed where their derivative is taken, not made for each member: the text holds no stack of them."""
    x, *weights = case.arrays()
    xs, members = jnp.stack([x, 2 * x - 1, 0.3 - x] * 5, 1), 15

    def value(xs, *weights):
        return jnp.sum(jnp.sin(jax.vmap(jax.jit(case), (1, *[None] * len(weights)))(xs, *weights)))

    def gradient(argnums):
        return jax.jit(jax.grad(value, argnums))

    both = tuple(range(len(case.shapes)))
    for argnums in (both, both[1:]):
        with mode("autodiff"):
            wanted = jax.grad(value, argnums)(xs, *weights)
        assert_same(gradient(argnums)(xs, *weights), wanted, 1e-9)
        text = gradient(argnums).lower(xs, *weights).as_text()
        assert not re.search(rf"tensor<{members}x{'x'.join(map(str, weights[0].shape))}x", text)


@pytest.mark.parametrize("mapped", slow_but([(0, 0)], [(0, 0), (0, None), (None, 0)]))
def test_frozen_members(mapped):
    """What is frozen may be mapped: then the members are no batch."""
    x, k = X[:1], K
    stacks = [np.stack([a, 2 * a, -a]) if axis == 0 else a for a, axis in zip((x, k), mapped, strict=True)]

    def value(x, k):
        return jnp.sum(jnp.sin(jax.vmap(layer, mapped)(x, k)))

    @jax.jit
    def found(*stacks):
        return jax.grad(value, 0)(*stacks), jax.grad(value, 1)(*stacks), jax.jvp(value, stacks, stacks)

    with mode("autodiff"):
        wanted = found(*stacks)
    assert_same(found(*stacks), wanted, 1e-9)
