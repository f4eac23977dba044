"""Which backward pass a public function uses: the hand-written rules, JAX's autodiff, or an oracle.

    manual       a `jax.custom_vjp`; JAX refuses pure forward mode (`jvp`, `jacfwd`, `linearize`) through it
    both_ways    the same rules, for forward mode as well
    autodiff     lax and jnp primitives alone
    oracle       NumPy in float64

The choice is a JAX user context, so it is part of the key under which `jax.jit` caches a traced function: code that
was compiled with the manual rules is traced again when it runs under another mode, and nothing is ever mixed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar, cast

import jax

from jaxcnnbp.recording import next_call, recording

Op = TypeVar("Op", bound=Callable[..., Any])

mode = jax.make_user_context("manual")

# Which implementation of a convolution was asked for by `implementation`, None for the one that was measured.
chosen_implementation = jax.make_user_context(None)

# The `Tuning` that a `with` statement has put in force, None for that which is installed.
tuning_in_force = jax.make_user_context(None)

# Modes in which a public function is itself: its rule as a `jax.custom_vjp`, or read in both directions.
BY_RULE = ("manual", "both_ways")

# mode -> name of a public function -> a function of the same parameters. The modules that hold them fill it when they
# are imported.
alternatives: dict[str, dict[str, Callable[..., Any]]] = {"autodiff": {}, "oracle": {}}
# mode -> what imports such a module when somebody asks for the mode; nobody else pays for the import.
_importers: dict[str, Callable[[], Any]] = {}


def import_for(name: str, importer: Callable[[], Any]) -> None:
    """Under `mode(name)`, `importer()` runs before `alternatives[name]` is read.

    It is told from outside, by whoever may import everything: the modules that fill `alternatives` import this one.
    """
    _importers[name] = importer


def switchable(op: Op) -> Op:
    """`op`, except that under `mode(name)` its raw arguments go to `alternatives[name][op.__name__]`."""

    @functools.wraps(op)
    def call(*args: Any, **kwargs: Any) -> Any:
        chosen = cast(str, mode.value)
        if chosen in BY_RULE:
            with nullcontext() if recording.value is None else next_call():
                return op(*args, **kwargs)
        return alternative(chosen, op.__name__)(*args, **kwargs)

    return cast(Op, call)


def alternative(chosen: str, name: str) -> Callable[..., Any]:
    """The function that stands in for the public function `name` under mode `chosen`."""
    if chosen not in alternatives:
        known = ", ".join(repr(m) for m in (*BY_RULE, *alternatives))
        raise ValueError(f"`mode` (={chosen!r}) is unknown; use one of {known}.")
    if chosen in _importers:
        _importers[chosen]()
    if name not in alternatives[chosen]:
        raise NotImplementedError(f"`{name}` has no form for `mode` (={chosen!r}); call it outside of that mode.")
    return alternatives[chosen][name]
