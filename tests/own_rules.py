"""Rules to plant mistakes in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def rule(fun: Callable, backward: Callable) -> Callable:
    """`fun` of one array with the gradient `backward(x, delta)`."""
    return rule_of_many(fun, lambda args, delta: (backward(*args, delta),))


def rule_of_many(fun: Callable, backward: Callable) -> Callable:
    """`fun` with the gradients `backward(args, delta)`."""

    @jax.custom_vjp
    def ruled(*args: Any) -> Any:
        return fun(*args)

    ruled.defvjp(lambda *args: (fun(*args), args), backward)
    return ruled


def changed(fun: Callable, change: Callable) -> Callable:
    """`fun` with its right gradients after `change`."""
    return rule_of_many(fun, lambda args, delta: tuple(change(*jax.vjp(fun, *args)[1](delta))))
