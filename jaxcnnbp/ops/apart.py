"""Arrays that are computed once, whoever reads them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxcnnbp.ops.devices import alike_zeros, may_be_partitioned


def computed_apart(fun: Callable[..., Any], *args: Array, guard: Array) -> Any:
    """`fun(*args)`, which no reader computes again.

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
        return lax.cond(impossible, lambda *a: jax.tree.map(lambda s: alike_zeros(s, *a), shapes), fun, *args)

    if not jnp.issubdtype(guard.dtype, jnp.inexact):
        return fun(*args)
    # Elsewhere a conditional makes the processor wait for the device, and fusion is better at it.
    first = guard[(0,) * guard.ndim]
    return lax.platform_dependent(first, *args, cpu=guarded, default=lambda _, *args: fun(*args))


def apart(fun: Callable[..., Array], x: Array, *others: Array) -> Array:
    """`computed_apart`, guarded by `x`, where there are cells to look at and the compiler need not partition it.

    Computed again in a backward pass, it would also keep its arguments alive until then.
    """
    if x.size == 0 or may_be_partitioned(x):
        return fun(x, *others)
    return computed_apart(fun, x, *others, guard=x)


def if_ever(needed: Array, fun: Callable[..., Array], otherwise: Callable[..., Array], *args: Array) -> Array:
    """`fun(*args)`, for which the cheaper `otherwise(*args)` will do unless `needed`.

    Where a conditional makes the processor wait for the device, it is `fun` always.
    """
    choice = partial(lax.cond, needed, fun, otherwise)
    return lax.platform_dependent(*args, cpu=choice, default=fun)
