"""A function of pytrees as a function of a flat list of named arrays."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import tree_util

from jaxcnnbp.audit.oracle.rule import widened

Arrays = list[Any]


@dataclass(frozen=True)
class Problem:
    """What a function is to be differentiated at."""

    names: tuple[str, ...]  # one readable name a differentiable leaf
    inputs: tuple[Any, ...]  # those leaves
    others: tuple[Any, ...]  # the array leaves that no gradient is taken of, such as labels
    # Puts inputs and others back into the arguments of the function.
    assemble: Callable[[Sequence[Any], Sequence[Any]], tuple[Any, ...]]
    has_aux: bool = False  # whether the function returns `(outputs, auxiliary data)`

    def outputs_of(self, fun: Callable[..., Any]) -> Callable[[Sequence[Any], Sequence[Any]], dict[str, Any]]:
        """`fun` as a function of inputs and others, to the float and complex leaves of its output."""

        def flat(inputs: Sequence[Any], others: Sequence[Any]) -> dict[str, Any]:
            result = fun(*self.assemble(inputs, others))
            return named(result[0] if self.has_aux else result)

        return flat


def named(outputs: Any) -> dict[str, Any]:
    """The float and complex leaves of the output of a function, by path."""
    leaves = tree_util.tree_leaves_with_path(outputs)
    arrays = [(_joined("output", path), jnp.asarray(leaf)) for path, leaf in leaves]
    return {name: leaf for name, leaf in arrays if jnp.issubdtype(leaf.dtype, jnp.inexact)}


def is_at(name: str, path: str) -> bool:
    """Whether the leaf `name` is the one at `path`, or within it."""
    return name == path or (name.startswith(path) and name[len(path)] in ".[")


def widened_problem(problem: Problem) -> Problem:
    """`problem` with every float array in float64, those that are not differentiated too."""
    inputs, others = (tuple(map(_wide, arrays)) for arrays in (problem.inputs, problem.others))
    return replace(problem, inputs=inputs, others=others)


def _wide(array: Any) -> Any:
    return widened(array) if jnp.issubdtype(array.dtype, jnp.inexact) else array


def problem_of(
    fun: Callable[..., Any],
    args: Sequence[Any],
    argnums: int | str | Sequence[int | str] | None,
    names: Sequence[str] | None,
    has_aux: bool,
) -> Problem:
    """The `Problem` of `fun` at `args`; see `compare_gradients`."""
    labels = _labels(fun, args, names)
    leaves, tree = tree_util.tree_flatten_with_path(tuple(args))
    chosen = _chosen(argnums, [path for path, _ in leaves], labels)
    roles = [_role(leaf, c) for (_, leaf), c in zip(leaves, chosen, strict=True)]
    if argnums is None and "input" not in roles:  # numbers of Python alone
        roles = [_role(leaf, True) for _, leaf in leaves]
    _require_inputs(argnums, leaves, roles)
    values = [leaf for _, leaf in leaves]
    paths = [path for (path, _), role in zip(leaves, roles, strict=True) if role == "input"]

    def assemble(inputs: Sequence[Any], others: Sequence[Any]) -> tuple[Any, ...]:
        source = {"input": iter(inputs), "other": iter(others), "static": None}
        merged = [v if role == "static" else next(source[role]) for v, role in zip(values, roles, strict=True)]
        return tree_util.tree_unflatten(tree, merged)

    inputs = tuple(jnp.asarray(v) for v, role in zip(values, roles, strict=True) if role == "input")
    others = tuple(jnp.asarray(v) for v, role in zip(values, roles, strict=True) if role == "other")
    _require_types(inputs)
    return Problem(_distinct(paths, labels, names is not None), inputs, others, assemble, has_aux)


def _chosen(argnums: Any, paths: Sequence[Any], labels: list[str]) -> list[bool | None]:
    """For each leaf whether it is named by `argnums`; None if nothing is."""
    if argnums is None:
        return [None] * len(paths)
    many = (argnums,) if isinstance(argnums, (int, str)) else tuple(argnums)
    count = len(labels)
    if any(isinstance(number, int) and not -count <= number < count for number in many):
        raise ValueError(f"`argnums` (={argnums!r}) must count arguments from 0 to {count - 1}.")
    numbers = {number % count for number in many if isinstance(number, int)}
    words = [word for word in many if isinstance(word, str)]
    full = [_joined(labels[int(path[0].idx)], path[1:]) for path in paths]
    short = [_joined("", path[1:]) for path in paths]
    for word in words:
        if not any(is_at(name, word) for name in (*full, *short) if name):
            raise ValueError(f"`argnums` (={argnums!r}): no leaf is at {word!r}; the leaves are {', '.join(full)}.")
    return [
        int(path[0].idx) in numbers or any(is_at(name, w) for w in words for name in (f, s) if name)
        for path, f, s in zip(paths, full, short, strict=True)
    ]


def _role(leaf: Any, chosen: bool | None) -> str:
    """Whether a leaf is differentiated ("input"), passed as an array ("other") or kept ("static")."""
    if isinstance(leaf, (float, complex)) and not isinstance(leaf, np.generic):
        return "input" if chosen else "static"
    if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
        return "static"
    return "input" if jnp.issubdtype(leaf.dtype, jnp.inexact) and chosen is not False else "other"


def _require_inputs(argnums: Any, leaves: Sequence[Any], roles: Sequence[str]) -> None:
    if "input" not in roles:
        dtypes = sorted({str(getattr(leaf, "dtype", type(leaf).__name__)) for _, leaf in leaves})
        raise TypeError(
            f"`args` (=leaves of {', '.join(dtypes) or 'nothing'}), `argnums` (={argnums!r}): no float or"
            " complex array to differentiate; pass one, or name another argument."
        )


def _require_types(inputs: Sequence[Any]) -> None:
    wide = {str(a.dtype) for a in inputs} & {"float64", "complex128"}
    if wide and jnp.zeros(0, float).dtype != jnp.float64:
        raise TypeError(
            f"`args` (=leaves of {', '.join(sorted(wide))}) are of a type that JAX refuses while `jax_enable_x64` is"
            " off; turn it on, or pass another type."
        )


def _labels(fun: Callable[..., Any], args: Sequence[Any], names: Sequence[str] | None) -> list[str]:
    """One name an argument: the user's, else the parameter's, else its place."""
    if names is not None:
        if len(names) != len(args):
            raise ValueError(f"`names` (={names!r}) has {len(names)} entries; give {len(args)}, one an argument.")
        return list(names)
    try:
        parameters = list(inspect.signature(fun).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    simple = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [simple[i] if i < len(simple) else f"args[{i}]" for i in range(len(args))]


def _distinct(paths: Sequence[Any], labels: list[str], in_full: bool) -> tuple[str, ...]:
    """`conv1.kernel` for a leaf of a pytree, the argument's name for an array; both where names collide."""
    arguments = [labels[int(path[0].idx)] for path in paths]
    short = [_joined("", path[1:]) or argument for path, argument in zip(paths, arguments, strict=True)]
    full = [_joined(argument, path[1:]) for path, argument in zip(paths, arguments, strict=True)]
    return tuple(f if in_full or short.count(s) > 1 else s for s, f in zip(short, full, strict=True))


def _joined(root: str, path: Sequence[Any]) -> str:
    """`root.conv1.kernel`, with places in sequences in brackets."""
    text = root
    for key in path:
        part = tree_util.keystr((key,), simple=True)
        bracket = isinstance(key, (tree_util.SequenceKey, tree_util.FlattenedIndexKey))
        text += f"[{part}]" if bracket else f".{part}" if text else part
    return text
