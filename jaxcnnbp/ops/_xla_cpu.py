"""Stops XLA:CPU from recomputing a producer inside each consumer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxcnnbp.ops._sharding import may_be_partitioned, zeros_varying_like


def fusion_barrier(fun: Callable[..., Any], *args: Array, guard: Array) -> Any:
    """`fun(*args)`, not fused into its readers on CPU.

    XLA's CPU backend fuses elementwise operations into every reader of their result and computes them there anew: a
    2x2 pool behind a depthwise convolution would run it four times. It drops `optimization_barrier` before it fuses,
    but it never fuses through a conditional, so this is one whose condition only the running program knows to hold.

    Args:
      fun: gives an array, or a tree of them.
      args: its arguments.
      guard: any array that is at hand on every device, such as a kernel: its first element is looked at. Integers
        cannot serve.
    """
    fun = jax.jit(fun)  # traced once, for the shapes and for both branches: a form may write out a hundred taps
    shapes = jax.eval_shape(fun, *args)

    def guarded(first: Array, *args: Array) -> Any:
        impossible = jnp.isnan(first) & jnp.isfinite(first)
        return lax.cond(impossible, lambda *a: jax.tree.map(lambda s: zeros_varying_like(s, *a), shapes), fun, *args)

    if not jnp.issubdtype(guard.dtype, jnp.inexact):
        return fun(*args)
    # On GPUs and TPUs a conditional makes the host wait for the device, and fusion recomputes less.
    first = guard[(0,) * guard.ndim]
    return lax.platform_dependent(first, *args, cpu=guarded, default=lambda _, *args: fun(*args))


def compute_once(fun: Callable[..., Array], x: Array, *others: Array) -> Array:
    """`fun(x, *others)` behind a `fusion_barrier` guarded by `x`, unless `x` is empty or may be partitioned.

    Computed again in a backward pass, it would also keep its arguments alive until then.
    """
    if x.size == 0 or may_be_partitioned(x):
        return fun(x, *others)
    return fusion_barrier(fun, x, *others, guard=x)


def cond_on_cpu(needed: Array, fun: Callable[..., Array], otherwise: Callable[..., Array], *args: Array) -> Array:
    """`lax.cond(needed, fun, otherwise)` on CPU, `fun` elsewhere; both must agree when `needed` is False.

    On GPUs and TPUs a conditional makes the host wait for the device.
    """
    choice = partial(lax.cond, needed, fun, otherwise)
    return lax.platform_dependent(*args, cpu=choice, default=fun)
