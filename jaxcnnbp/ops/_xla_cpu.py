"""What XLA's CPU backend is told: what stays a program of its own, and what is not worth a branch elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental.xla_metadata import set_xla_metadata

from jaxcnnbp.ops._sharding import may_be_partitioned


def apart(jitted: Callable[..., Any]) -> Callable[..., Any]:
    """A function of `jax.jit` whose call XLA does not inline, so that nothing is fused into it or out of it.

    Not for arrays that may be partitioned: devices wait for each other where one is inside a call and one outside.
    """
    return lambda *args: set_xla_metadata(jitted(*args), inlineable="false")


def compute_once(fun: Callable[..., Any], x: Array, *others: Array | np.generic) -> Any:
    """`fun(x, *others)`, on CPU `apart`.

    XLA's CPU backend fuses elementwise operations into every reader of their result and computes them there anew: a
    2x2 pool behind a depthwise convolution would run it four times. It drops `optimization_barrier` before it fuses.
    """
    if may_be_partitioned(x):
        return fun(x, *others)
    fun = jax.jit(fun)  # traced once for both branches: a form may write out a hundred taps
    return lax.platform_dependent(x, *others, cpu=apart(fun), default=fun)


def in_memory(x: Array) -> Array:
    """`x`, the same numbers for everybody who reads it.

    What XLA fuses into several readers each of them computes anew, and a sum of products rounds otherwise where they
    are one instruction: a maximum is then found in no cell. XLA's CPU backend drops `optimization_barrier`; there what
    comes out of a call that is `apart` has a place in memory, or out of a loop, which may be partitioned as well.
    """
    by_itself = _through_a_loop if may_be_partitioned(x) else apart(jax.jit(lax.optimization_barrier))
    return lax.platform_dependent(x, cpu=by_itself, default=lax.optimization_barrier)


def _through_a_loop(x: Array) -> Array:
    """Of two turns, for XLA would write a single one out. What a loop carries lies on the devices alike at each end."""
    nothing = jnp.zeros_like(x)
    return lax.fori_loop(0, 2, lambda turn, x: jnp.where(turn < 0, nothing, x), x)


def cond_on_cpu(needed: Array, fun: Callable[..., Array], otherwise: Callable[..., Array], *args: Array) -> Array:
    """`lax.cond(needed, fun, otherwise)` on CPU, `fun` elsewhere; both must agree when `needed` is False.

    On GPUs and TPUs a conditional makes the host wait for the device.
    """
    choice = partial(lax.cond, needed, fun, otherwise)
    return lax.platform_dependent(*args, cpu=choice, default=fun)
