"""A function of anything as a trace of its arrays, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr

_AN_ARRAY = object()


def trace(fun: Callable[[], Any], named_after: Any = None) -> tuple[ClosedJaxpr, Callable[[Sequence[Any]], Any]]:
    """What `fun` computes, and how its arrays go back into its result.

    Everything that `fun` needs is closed over, so that tracers of the caller are constants of the trace, and what is
    no array, in the arguments or in the result, is never touched.
    """
    tree: Any = None
    others: list[Any] = []  # the result's leaves, `_AN_ARRAY` where one was traced

    def arrays() -> list[jax.Array]:
        nonlocal tree
        leaves, tree = jax.tree.flatten(fun())
        others[:] = [_AN_ARRAY if isinstance(leaf, jax.Array) else leaf for leaf in leaves]
        return [leaf for leaf in leaves if isinstance(leaf, jax.Array)]

    if name := getattr(named_after, "__name__", None):
        arrays.__name__ = name
    closed = jax.make_jaxpr(arrays)()

    def rebuild(outputs: Sequence[Any]) -> Any:
        rest = iter(outputs)
        return tree.unflatten([next(rest) if leaf is _AN_ARRAY else leaf for leaf in others])

    return closed, rebuild
