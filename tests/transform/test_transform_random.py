"""Random models through `manual_backward` against plain autodiff, in float64.

The suite tries a sample; `JAXCNNBP_EXHAUSTIVE=1` tries hundreds.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from marks import slow_but

from jaxcnnbp.transform import explain_swaps, manual_backward

pytestmark = pytest.mark.usefixtures("x64")

CHANNELS = 3
# Sums of a few hundred float64 terms in another order.
CLOSE = dict(rtol=1e-9, atol=1e-9)

SEEDS = range(300) if os.environ.get("JAXCNNBP_EXHAUSTIVE") else range(12)
SECOND = list(SEEDS)[::4]

Layer = Callable[[jax.Array, jax.Array], jax.Array]


def _conv(draw: random.Random) -> Layer:
    stride, dilation = draw.choice([(1, 1), (2, 1)]), draw.choice([(1, 1), (1, 2)])
    groups, images = draw.choice([(1, 1), (CHANNELS, 1), (1, 2)])
    padding, gaps = draw.choice([("SAME", (1, 1)), ([(2, 1), (0, 2)], (1, 1)), ([(-1, 2), (1, 1)], (2, 1))])
    numbers = draw.choice([("NHWC", "HWIO", "NHWC"), ("NHWC", "OIHW", "NHWC"), ("NCHW", "HWIO", "NHWC")])

    def layer(x: jax.Array, kernel: jax.Array) -> jax.Array:
        kernel = kernel[:, :, : CHANNELS // groups]
        kernel = jnp.concatenate([kernel] * images, -1)
        kernel = kernel if numbers[1] == "HWIO" else kernel.transpose(3, 2, 0, 1)
        x = x if numbers[0] == "NHWC" else x.transpose(0, 3, 1, 2)
        y = lax.conv_general_dilated(x, kernel, stride, padding, gaps, dilation, numbers, groups, images)
        return jnp.tanh(jnp.concatenate(jnp.split(y, images, -1)))  # each group of images meets half of the kernels

    return layer


def _transposed(draw: random.Random) -> Layer:
    strides = draw.choice([(1, 1), (2, 1)])
    return lambda x, kernel: lax.conv_transpose(x, kernel, strides, "SAME")


def _pool(draw: random.Random) -> Layer:
    init, reducer = draw.choice([(-np.inf, lax.max), (np.inf, lax.min), (0.0, lax.add)])
    size, strides = draw.choice([(1, 2, 2, 1), (1, 3, 2, 1)]), draw.choice([(1, 2, 2, 1), (1, 1, 1, 1)])
    dilation = draw.choice([(1, 1, 1, 1), (1, 1, 2, 1)]) if reducer is lax.add else None  # JAX has no other gradient
    return lambda x, kernel: lax.reduce_window(x, init, reducer, size, strides, "SAME", None, dilation)


def _custom_jvp(layer: Layer) -> Layer:
    held = jax.custom_jvp(layer)
    held.defjvp(lambda primals, tangents: jax.jvp(layer, primals, tangents))
    return held


WRAPPERS: dict[str, Callable[[Layer], Layer]] = {
    "plain": lambda layer: layer,
    "jit": jax.jit,
    "checkpoint": jax.checkpoint,
    "custom_jvp": _custom_jvp,
    "scan": lambda layer: lambda x, k: lax.scan(lambda s, _: (s, layer(x, k)), x.sum(), None, length=2)[1].sum(0),
    "scan over kernels": lambda layer: (
        lambda x, k: lax.scan(lambda s, w: (s + w.sum(), layer(x, w * s)), 1.0, jnp.stack([k, -k]))[1].sum(0)
    ),
    "cond": lambda layer: lambda x, k: lax.cond(k.sum() > 0, layer, lambda x, k: layer(x, 2 * k), x, k),
    "switch": lambda layer: (
        lambda x, k: lax.switch((k.sum() > 0).astype(int), [lambda x, k: layer(-x, k), layer], x, k)
    ),
    "vmap": lambda layer: lambda x, k: jax.vmap(lambda w: layer(x, w), -1, 1)(jnp.stack([k, 2 * k], -1)).sum(1),
    "vmap over both": lambda layer: (
        lambda x, k: jax.vmap(layer, (2, 1), 3)(jnp.stack([x, jnp.sin(x)], 2), jnp.stack([k, -k], 1)).sum(3)
    ),
    "fori": lambda layer: lambda x, k: lax.fori_loop(0, 1, lambda i, y: y + layer(x, k), jnp.zeros_like(layer(x, k))),
    "closure": lambda layer: lambda x, k: jax.jit(lambda x: layer(x, jnp.cos(k)))(x),
    "checkpointed scan": lambda layer: (
        lambda x, k: lax.scan(jax.checkpoint(lambda s, w: (s, layer(x, w))), x.sum(), jnp.stack([k, -k]))[1].sum(0)
    ),
}


def _wrapped(draw: random.Random, layer: Layer) -> Layer:
    """The layer as a user might hold it, now and then in two things."""
    for _ in range(draw.choice([1, 1, 2])):
        layer = WRAPPERS[draw.choice(list(WRAPPERS))](layer)
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
    return tuple(jax.device_put(rng.normal(size=shape)) for shape in shapes)


@pytest.mark.parametrize("seed", slow_but(SEEDS[:2], SEEDS))
def test_a_random_model_has_the_same_value_and_gradients(seed: int):
    loss, arguments = _model(seed), _arguments(seed)
    expected = jax.jit(jax.value_and_grad(loss, (0, 1)))(*arguments)
    found = jax.jit(jax.value_and_grad(manual_backward(loss), (0, 1)))(*arguments)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), found, expected)
    assert not explain_swaps(loss)(*arguments).left


@pytest.mark.parametrize("seed", slow_but((), SECOND))
def test_a_random_model_has_the_same_second_derivatives(seed: int):
    x, kernels = _arguments(seed)

    def along(loss):
        return lambda t: loss(x + t * jnp.cos(x), kernels + t * jnp.sin(kernels))

    expected = jax.jit(jax.hessian(along(_model(seed))))(0.3)
    second = jax.hessian if seed % 8 else lambda f: jax.grad(jax.grad(f))
    np.testing.assert_allclose(jax.jit(second(along(manual_backward(_model(seed)))))(0.3), expected, **CLOSE)


def test_the_random_models_meet_every_rule_and_every_wrapper():
    swaps = [swap for seed in SEEDS for swap in explain_swaps(_model(seed))(*_arguments(seed))]
    assert {swap.rule for swap in swaps} == {"conv", "max_pool", "min_pool", "sum_pool"}
    held_by = {part.split("(")[0] for swap in swaps for part in swap.path.split("/")}
    assert held_by >= {"jit", "scan", "cond", "remat2", "custom_jvp_call"}
