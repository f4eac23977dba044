"""Random models through `manual_backward` against plain autodiff, in float64."""

from __future__ import annotations

import random
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxcnnbp.transform import explain_swaps, manual_backward

pytestmark = pytest.mark.usefixtures("x64")

CHANNELS = 3
# Sums of a few hundred float64 terms in another order.
CLOSE = dict(rtol=1e-9, atol=1e-9)

Layer = Callable[[jax.Array, jax.Array], jax.Array]


def _conv(draw: random.Random) -> Layer:
    stride, dilation = draw.choice([(1, 1), (2, 1)]), draw.choice([(1, 1), (1, 2)])
    groups, padding = draw.choice([1, CHANNELS]), draw.choice(["SAME", [(2, 1), (0, 2)]])
    numbers = draw.choice([("NHWC", "HWIO", "NHWC"), ("NHWC", "OIHW", "NHWC")])

    def layer(x: jax.Array, kernel: jax.Array) -> jax.Array:
        kernel = kernel[:, :, : CHANNELS // groups]
        kernel = kernel if numbers[1] == "HWIO" else kernel.transpose(3, 2, 0, 1)
        return jnp.tanh(
            lax.conv_general_dilated(x, kernel, stride, padding, None, dilation, numbers, feature_group_count=groups)
        )

    return layer


def _transposed(draw: random.Random) -> Layer:
    strides = draw.choice([(1, 1), (2, 1)])
    return lambda x, kernel: lax.conv_transpose(x, kernel, strides, "SAME")


def _pool(draw: random.Random) -> Layer:
    init, reducer = draw.choice([(-np.inf, lax.max), (np.inf, lax.min), (0.0, lax.add)])
    size, strides = draw.choice([(1, 2, 2, 1), (1, 3, 2, 1)]), draw.choice([(1, 2, 2, 1), (1, 1, 1, 1)])
    return lambda x, kernel: lax.reduce_window(x, init, reducer, size, strides, "SAME")


def _wrapped(draw: random.Random, layer: Layer) -> Layer:
    """The layer as a user might hold it."""
    kind = draw.choice(["plain", "jit", "checkpoint", "scan", "cond", "vmap", "fori"])
    if kind == "jit":
        return jax.jit(layer)
    if kind == "checkpoint":
        return jax.checkpoint(layer)
    if kind == "cond":
        return lambda x, k: lax.cond(k.sum() > 0, layer, lambda x, k: layer(x, 2 * k), x, k)
    if kind == "vmap":
        return lambda x, k: jax.vmap(lambda one: layer(one[None], k)[0])(x)
    if kind == "scan":
        return lambda x, k: lax.scan(lambda s, _: (s, layer(x, k)), x.sum(), None, length=2)[1].sum(0)
    if kind == "fori":
        return lambda x, k: lax.fori_loop(0, 1, lambda i, y: y + layer(x, k), jnp.zeros_like(layer(x, k)))
    return layer


def _model(seed: int) -> Callable[[jax.Array, jax.Array], jax.Array]:
    draw = random.Random(seed)
    layers = [_wrapped(draw, draw.choice([_conv, _conv, _transposed, _pool])(draw)) for _ in range(3)]

    def loss(x: jax.Array, kernels: jax.Array) -> jax.Array:
        for layer, kernel in zip(layers, kernels, strict=True):
            x = layer(x, kernel)
        return (x**2).mean()

    return loss


def _arguments(seed: int) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(seed)
    shapes = (2, 5, 6, CHANNELS), (3, 2, 3, CHANNELS, CHANNELS)
    return tuple(jnp.asarray(rng.normal(size=shape)) for shape in shapes)


@pytest.mark.parametrize("seed", range(12))
def test_a_random_model_has_the_same_value_and_gradients(seed: int):
    loss, arguments = _model(seed), _arguments(seed)
    expected = jax.jit(jax.value_and_grad(loss, (0, 1)))(*arguments)
    found = jax.jit(jax.value_and_grad(manual_backward(loss), (0, 1)))(*arguments)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), found, expected)
    assert not explain_swaps(loss)(*arguments).left


def test_the_random_models_meet_every_rule_and_every_wrapper():
    swaps = [swap for seed in range(12) for swap in explain_swaps(_model(seed))(*_arguments(seed))]
    assert {swap.rule for swap in swaps} == {"conv", "max_pool", "min_pool", "sum_pool"}
    held_by = {part.split("(")[0] for swap in swaps for part in swap.path.split("/")}
    assert held_by >= {"jit", "scan", "cond", "remat2"}
