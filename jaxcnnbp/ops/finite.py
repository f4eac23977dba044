"""Forms that are right where every number is finite, beside those that are always right.

Zero times a NaN or an infinity is a NaN, so a form that uses zeros as structure (taps that are not there, maps that
are not connected) carries them to where no window brings them.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap
from jax.export import is_symbolic_dim

from jaxcnnbp.modes import mode

Computation = Callable[[Array, Array], Array]


def where_finite(fast: Computation, exact: Computation, a: Array, b: Array, outputs: int) -> Array:
    """`fast(a, b)`, or `exact(a, b)` where that could differ: where a NaN or an infinity goes in or comes out.

    `outputs` is the number of results: the operands or the results are looked through, whichever are fewer.
    """
    if mode.value == "both_ways":
        # `jax.linear_transpose` goes back through this function itself, and a choice by what is transposed has no
        # transpose.
        return exact(a, b)
    counts = outputs, a.size + b.size
    if not any(map(is_symbolic_dim, counts)) and counts[0] < counts[1]:
        y = fast(a, b)
        return lax.cond(all_finite(y), lambda y, a, b: y, lambda y, a, b: exact(a, b), y, a, b)
    return lax.cond(all_finite(a) & all_finite(b), fast, exact, a, b)


def all_finite(x: Array) -> Array:
    """Whether every number is finite; one answer for all that `vmap` maps over, so that a choice by it stays one."""
    # A sum, which XLA has in vectors on CPUs: `isfinite(x).all()` takes twice as long.
    return ~_any_nan(lax.stop_gradient(x) - lax.stop_gradient(x))


@custom_vmap
def _any_nan(x: Array) -> Array:
    return jnp.isnan(jnp.sum(x))


@_any_nan.def_vmap
def _(_size: int, _batched: list[bool], x: Array) -> tuple[Array, bool]:
    return _any_nan(x), False
