"""What `manual_backward` must not change: results that are no arrays, types, names, effects, what was compiled."""

from __future__ import annotations

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxcnnbp.transform import manual_backward

pytestmark = pytest.mark.usefixtures("x64")

X = np.random.default_rng(0).normal(size=(2, 5, 5, 2))
K = np.random.default_rng(1).normal(size=(3, 3, 2, 2))
# Sums of a few dozen float64 terms in another order.
CLOSE = dict(rtol=1e-11, atol=1e-11)


def layer(x, k):
    y = lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    # SAME over an even window: the rule needs a constant mask, which must travel through every wrapper.
    return lax.reduce_window(y, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "SAME")


def _loss(held):
    return lambda x, k: jnp.sin(held(x, k)).sum()


def test_what_is_no_array_is_left_alone():
    def function(x, scale: float, kind: str, *, train: bool, extra=None):
        if train and scale > 1 and kind == "layer":
            x = layer(x["image"], x["kernel"])
        return {"y": x * scale, "kind": kind, "steps": 3, "none": extra}

    found = manual_backward(function)({"image": jnp.asarray(X), "kernel": jnp.asarray(K)}, 2.0, "layer", train=True)
    np.testing.assert_allclose(found.pop("y"), 2 * layer(X, K), **CLOSE)
    assert found == {"kind": "layer", "steps": 3, "none": None}


def test_static_and_donated_arguments_of_an_outer_and_of_an_inner_jit():
    def step(k, x, kind):
        return layer(x, k) if kind == "layer" else x

    compiled = jax.jit(manual_backward(step), static_argnames="kind", donate_argnames="x")
    np.testing.assert_allclose(compiled(jnp.array(K), jnp.array(X), kind="layer"), layer(X, K), **CLOSE)
    inner = jax.jit(lambda x, k: (layer(x, k), x + 1), donate_argnums=0)
    donated = jnp.array(X)
    manual_backward(inner)(donated, K)
    assert donated.is_deleted()


def test_weak_types_stay_weak():
    def function(scale):
        weak = jnp.broadcast_to(scale, (4,))
        return lax.reduce_window(weak, -jnp.inf, lax.max, (2,), (1,), "VALID")

    expected = jax.eval_shape(function, 2.0)
    assert jax.eval_shape(manual_backward(function), 2.0) == expected
    assert jax.eval_shape(manual_backward(jax.jit(function)), 2.0) == expected
    assert jax.make_jaxpr(manual_backward(function))(2.0).out_avals[0].weak_type == expected.weak_type


def test_names_and_source_lines_are_kept():
    named = jax.named_scope("stem")(layer)
    jaxpr = jax.make_jaxpr(manual_backward(jax.jit(named)))(X, K)
    (jitted,) = [eqn for eqn in jaxpr.eqns if eqn.params.get("name") == "layer"]
    stacks = {str(eqn.source_info.name_stack) for eqn in jitted.params["jaxpr"].jaxpr.eqns}
    assert all(stack.startswith("stem") for stack in stacks)
    with pytest.raises(ValueError, match="feature dimension"):
        manual_backward(layer)(jnp.asarray(X), jnp.ones((3, 3, 5, 2)))


def test_effects_happen_once_and_in_order():
    seen = []

    def function(x):
        jax.debug.callback(lambda y: seen.append(int(y)), x.size, ordered=True)
        y = layer(x, K)
        jax.debug.callback(lambda y: seen.append(int(y)), y.size + 1, ordered=True)
        return y.sum()

    jax.jit(manual_backward(function))(X)
    jax.effects_barrier()
    assert seen == [X.size, X.size + 1]


def test_mutable_references_are_read_and_written():
    def function(x):
        ref = jax.new_ref(jnp.zeros(()))
        ref[...] += layer(x, K).sum()
        return ref[...]

    np.testing.assert_allclose(manual_backward(function)(X), layer(X, K).sum(), **CLOSE)
    np.testing.assert_allclose(jax.grad(manual_backward(function))(X), jax.grad(function)(X), **CLOSE)


def test_a_compiled_inner_function_is_not_compiled_again():
    manual = manual_backward(jax.jit(lambda x: layer(x, K)))
    x = jnp.asarray(X)
    manual(x)
    with jax.log_compiles(True), _no_log("jax"):
        manual(x)


class _no_log:
    """Fails if a logger speaks."""

    def __init__(self, name: str):
        self.logger, self.level = logging.getLogger(name), logging.WARNING
        self.handler = logging.Handler()
        self.handler.emit = self._refuse

    @staticmethod
    def _refuse(record):
        if "ompiling" in record.getMessage():
            raise AssertionError(record.getMessage())

    def __enter__(self):
        self.logger.addHandler(self.handler)

    def __exit__(self, *_):
        self.logger.removeHandler(self.handler)


def test_manual_of_manual_and_of_a_method():
    class Model:
        scale = 2.0

        def __call__(self, x):
            return self.scale * layer(x, K)

    twice = manual_backward(manual_backward(Model()))
    np.testing.assert_allclose(twice(X), 2 * layer(X, K), **CLOSE)
    partial = manual_backward(functools.partial(layer, k=K))
    expected = jax.grad(lambda x: layer(x, K).sum())(X)
    np.testing.assert_allclose(jax.grad(lambda x: partial(x).sum())(X), expected, **CLOSE)


def test_no_tracer_leaks_and_no_nan_arises():
    gradient = jax.grad(manual_backward(_loss(jax.jit(layer))), 1)
    with jax.checking_leaks():
        jax.jit(gradient)(X, K)
    with jax.debug_nans(True):
        gradient(X, K)


def test_a_module_that_is_closed_over_and_changed_is_refused_with_advice():
    nnx, errors = pytest.importorskip("flax.nnx"), pytest.importorskip("flax.errors")
    norm = nnx.BatchNorm(2, rngs=nnx.Rngs(0))
    with pytest.raises(errors.TraceContextError) as caught:
        manual_backward(lambda x: norm(2 * x))(jnp.asarray(X, jnp.float32))
    assert "pass the NNX module to `fun` as an argument" in caught.value.__notes__[0]


def test_pickled_by_value_it_swaps_the_same():
    cloudpickle = pytest.importorskip("cloudpickle")
    x = jnp.asarray([3.0, 1.0, 2.0, 5.0])

    def pooled(x):  # lax has no gradient of dilated windows
        return lax.reduce_window(x, -jnp.inf, lax.max, (2,), (1,), "VALID", window_dilation=(2,)).sum()

    for made in (manual_backward(pooled), jax.jit(manual_backward(pooled, only="max_pool"))):
        found = jax.grad(cloudpickle.loads(cloudpickle.dumps(made)))(x)
        np.testing.assert_array_equal(found, [1.0, 0.0, 0.0, 1.0])


def test_wide_types_within_the_function_alone():
    """A trace does not tell that `jax.enable_x64` was on for a part of it, but its types do."""

    def function(x, k):
        with jax.enable_x64(True):
            y = layer(x.astype(jnp.float64), k.astype(jnp.float64))
            return jnp.sin(y).sum().astype(jnp.float32)

    with jax.enable_x64(False):
        x, k = jnp.asarray(X, jnp.float32), jnp.asarray(K, jnp.float32)
        for inside in (function, jax.jit(function), jax.checkpoint(function)):
            found = jax.value_and_grad(manual_backward(inside), (0, 1))(x, k)
    wide = jax.device_put(np.asarray(x).astype(jnp.float64)), jax.device_put(np.asarray(k).astype(jnp.float64))
    expected = jax.value_and_grad(_loss(layer), (0, 1))(*wide)
    # Rounded to float32 once, at the end.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 3e-7, 3e-7), found, expected)
