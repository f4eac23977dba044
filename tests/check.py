"""The check that every rule has to pass: its value and its gradients against the float64 oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

import jaxcnnbp.audit.oracle  # noqa: F401 - fills mode("oracle")
from jaxcnnbp import mode

# Sums of at most a few hundred products of numbers near 1 in float64, in any order, differ by less.
ROUNDING = 1e-11


# Names what is planted in the rules: JAX keeps traces by shape and by this, so that no test meets those of another.
planted = jax.make_user_context("nothing")


def value_and_pullback(fun: Callable[..., Any], arrays: Sequence[Any], delta: Any) -> tuple[Any, tuple[Any, ...]]:
    """`fun(*arrays)` and the gradients of `sum(delta * fun)`."""
    value, pullback = jax.vjp(fun, *arrays)
    return value, pullback(delta)


def delta_like(fun: Callable[..., Any], arrays: Sequence[Any], seed: int = 1) -> jax.Array:
    """A random delta for the output of `fun`."""
    output = jax.eval_shape(fun, *arrays)
    return jax.device_put(np.random.default_rng(seed).normal(size=output.shape).astype(output.dtype))


def by_oracle(fun: Callable[..., Any], arrays: Sequence[Any], delta: Any) -> tuple[Any, tuple[Any, ...]]:
    """Value and gradients by index arithmetic in NumPy, which shares no code with the rules."""
    with mode("oracle"):
        return value_and_pullback(fun, arrays, delta)


def assert_rule(fun: Callable[..., Any], arrays: Sequence[Any], rounding: float = ROUNDING) -> None:
    """Raises AssertionError unless value and gradients of `fun` are the oracle's, element by element."""
    delta = delta_like(fun, arrays)
    found = jax.jit(lambda arrays, delta: value_and_pullback(fun, arrays, delta))(arrays, delta)
    assert_same(found, by_oracle(fun, arrays, delta), rounding)


def assert_same(found: Any, wanted: Any, rounding: float = ROUNDING) -> None:
    """Raises AssertionError unless the trees hold the same numbers, in the same shapes and dtypes."""
    pairs = list(zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True))
    for number, (a, b) in enumerate(pairs):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.shape, a.dtype) == (b.shape, b.dtype), f"leaf {number}"
        wide = np.complex128 if np.iscomplexobj(a) else np.float64
        np.testing.assert_allclose(a.astype(wide), b.astype(wide), rounding, rounding, err_msg=f"leaf {number}")
