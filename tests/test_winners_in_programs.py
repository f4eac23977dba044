"""A winner is found in whatever program: XLA computes what it fuses into several readers anew, and rounds otherwise.

A scale and a bias in front become one instruction in one reader and two in another; the deltas are then those of a
program that is not compiled as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array, lax
from running import environment, python

import jaxcnnbp

X = jax.random.normal(jax.random.key(0), (4, 16, 16, 8))
SCALE = jax.random.normal(jax.random.key(1), (1, 1, 1, 8))
KERNEL = jax.random.normal(jax.random.key(2), (3, 3, 1, 8))


def affine(x: Array) -> Array:
    """What a normalization ends in."""
    return x * SCALE + np.float32(0.3)


def normalized(x: Array) -> Array:
    """Over the channels."""
    centred = x - x.mean(-1, keepdims=True)
    return affine(centred * lax.rsqrt((centred * centred).mean(-1, keepdims=True) + np.float32(1e-5)))


def depthwise(x: Array) -> Array:
    """Which XLA would compute again for every tap of a pool."""
    return jaxcnnbp.correlate(x, KERNEL, padding="SAME", groups=8)


POOLS = {
    "max": lambda y: jaxcnnbp.max_pool(y, (3, 3), (2, 2)),
    "min": lambda y: jaxcnnbp.min_pool(y, (2, 2)),
    "split": lambda y: jaxcnnbp.max_pool(y, (2, 2), ties="split"),
    "all": lambda y: jaxcnnbp.max_pool(y, (3, 3), (2, 2), ties="all"),
    "split, many taps": lambda y: jaxcnnbp.max_pool(y, (13, 13), ties="split"),
    "adaptive": lambda y: jaxcnnbp.adaptive_max_pool(y, (4, 4)),
    "of each image": jax.vmap(lambda y: jaxcnnbp.max_pool(y[None], (2, 2))[0]),
    "recomputed": jax.checkpoint(lambda y: jaxcnnbp.max_pool(y, (3, 3), (2, 2))),
    "conv_block": lambda y: jaxcnnbp.conv_block(y, jnp.eye(8)[None, None], SCALE[0, 0, 0], pool=2, activation="silu"),
}


def differing(pool: Callable[[Array], Array], before: Callable[[Array], Array]) -> int:
    """Elements of the gradient whose delta went elsewhere because the program was compiled as a whole."""
    y, pull = jax.vjp(before, X)
    pooled, pull_pool = jax.vjp(pool, y)
    delta = jnp.broadcast_to(jnp.arange(1.0, 9.0), pooled.shape)
    (wanted,) = pull(*pull_pool(delta))
    found = jax.jit(jax.grad(lambda x: (pool(before(x)) * delta).sum()))(X)
    return int((abs(found - wanted) > 1e-3 * abs(wanted).max()).sum())


@pytest.mark.parametrize("before", [affine, normalized, depthwise], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", POOLS)
def test_every_delta_arrives(name: str, before: Callable[[Array], Array]) -> None:
    assert differing(POOLS[name], before) == 0


def test_positions_lie_in_the_input() -> None:
    _, found = jax.jit(lambda x: jaxcnnbp.adaptive_max_pool(affine(x), (1, 1), return_argmax=True))(X)
    _, wanted = jaxcnnbp.adaptive_max_pool(affine(X), (1, 1), return_argmax=True)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("batched", [False, True])
def test_positions_are_those_of_the_eager_call(batched: bool) -> None:
    def of_images(x: Array) -> Array:
        return jaxcnnbp.max_pool_with_argmax(affine(x), (3, 3))[1]

    f = jax.vmap(lambda x: of_images(x[None])[0]) if batched else of_images
    np.testing.assert_array_equal(jax.jit(f)(X), f(X))


PROGRAM = """
import jax
from test_winners_in_programs import POOLS, affine, depthwise, differing

assert len(jax.devices()) == 2
wrong = [(name, f.__name__) for name, pool in POOLS.items() for f in (affine, depthwise) if differing(pool, f)]
assert not wrong, wrong
print("all arrive")
"""


def test_every_delta_arrives_where_there_are_several_devices() -> None:
    """There a form that may be partitioned serves."""
    done = python("-c", PROGRAM, env=environment(Path(__file__).parent, devices=2))
    assert "all arrive" in done.stdout, done.stderr
