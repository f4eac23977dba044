"""Functions that change Flax NNX modules in place: running statistics, counters of random streams, caches.

A trace sees values, not objects. So the modules among the arguments are split into what they are and what they hold;
the trace works on copies, what the copies hold in the end is a further result, and with it the modules are updated, at
the level where they were made. `nnx.jit` and `nnx.grad` do the same.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxcnnbp._compat import without_compiler_options


def lifted(fun: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    """`fun(*args, **kwargs)` as a function of nothing that changes nothing, and how its result becomes the caller's."""
    fun, _ = without_compiler_options(fun)
    nnx = sys.modules.get("flax.nnx")  # without it there are no such modules
    owner = fun.__self__ if inspect.ismethod(fun) else fun
    call = (fun.__func__ if inspect.ismethod(fun) else None, owner, args, kwargs)
    is_node = _node_test(nnx)
    leaves, tree = jax.tree.flatten(call, is_leaf=lambda a: is_node(a) or a is owner)
    nodes = [leaf for leaf in leaves if is_node(leaf)]
    if nnx is None or not nodes:
        return lambda: _advised(fun, args, kwargs), lambda result: result
    structure, state = nnx.split(nodes)

    def pure() -> Any:
        copies = nnx.merge(structure, state, copy=True)
        result = _call(*tree.unflatten(_exchanged(leaves, copies, is_node)))
        return result, _changes(nnx, copies, structure, state)

    def update(result_and_changes: Any) -> Any:
        result, changes = result_and_changes
        if changes:
            nnx.update(nodes, nnx.from_flat_state(changes))
        return result

    return pure, update


def _advised(fun: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """`fun(*args, **kwargs)`; if it changes a module that is not among the arguments, Flax's error says what to do."""
    flax = sys.modules.get("flax.errors")
    refused = () if flax is None else (flax.TraceContextError,)
    try:
        return fun(*args, **kwargs)
    except refused as error:
        error.add_note(
            "Under `manual_backward`, pass the NNX module to `fun` as an argument instead of closing over it."
        )
        raise


def _node_test(nnx: Any) -> Callable[[Any], bool]:
    if nnx is None:
        return lambda _: False
    return lambda value: isinstance(value, nnx.Pytree | nnx.Variable)


def _call(method: Callable[..., Any] | None, owner: Any, args: Any, kwargs: Any) -> Any:
    return owner(*args, **kwargs) if method is None else method(owner, *args, **kwargs)


def _exchanged(leaves: Sequence[Any], copies: Sequence[Any], is_node: Callable[[Any], bool]) -> list[Any]:
    rest = iter(copies)
    return [next(rest) if is_node(leaf) else leaf for leaf in leaves]


def _changes(nnx: Any, copies: Sequence[Any], structure: Any, state: Any) -> dict[Any, Any]:
    """The variables that `fun` set, by path: Flax refuses to set one of an outer trace, even to what it holds."""
    new_structure, new_state = nnx.split(copies)
    if new_structure != structure:
        raise ValueError(
            "`fun` changes which variables an NNX module has, not only what they hold; make them before"
            " `manual_backward`, for example by one call of the module."
        )
    before = dict(nnx.to_flat_state(state))
    return {path: new for path, new in nnx.to_flat_state(new_state) if not _same_arrays(new, before[path])}


def _same_arrays(new: Any, old: Any) -> bool:
    return all(a is b for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=True))
