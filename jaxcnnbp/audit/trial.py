"""The two gradients in the dtype of the function: by its own rules, and by JAX's autodiff."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnnbp.audit.cost import Cost, cost_of
from jaxcnnbp.audit.oracle.rule import widened
from jaxcnnbp.audit.own_rules import REFUSALS, Noted, Written, first_that_works, noting, without_rules
from jaxcnnbp.audit.passes import Evaluated, cotangents_of, pull, stripped
from jaxcnnbp.audit.problem import Problem, named

Given = tuple[Any, Any, Any]


@dataclass(frozen=True)
class Trial:
    """What the two gradients gave."""

    manual: Evaluated  # outputs and gradients by the function's own rules
    autodiff: Evaluated | None  # those of JAX; None where it has none
    no_autodiff: str  # why it has none, in JAX's words
    eager: str  # why the function runs only outside of `jax.jit`, in JAX's words; "" if it can be compiled
    cotangents: dict[str, np.ndarray]  # what outputs are contracted with
    cost: Cost | None  # time and memory
    dtypes: tuple[np.dtype, ...]  # of the inputs
    rules: tuple[str, ...]  # names of the functions with a rule that were called
    kinds: tuple[type, ...]  # of these rules, those that are taken away for the oracle and autodiff
    foreign: bool  # whether one of them is not of this package
    again: Callable[[dict[str, np.ndarray]], Evaluated]  # the manual gradients of other cotangents
    # For each rule by its name the gradients with it and without all others, to be called.
    alone: dict[str, Callable[[], Evaluated]]


def trial_of(
    problem: Problem, fun: Callable, reference: Callable | None, cotangents: Any, seed: int, timing: bool
) -> Trial:
    """Both gradients of `fun`.

    Raises:
      TypeError: if `fun` returns nothing to differentiate, or JAX cannot take its gradient at all.
      ValueError: if `reference` has other outputs.
    """
    own, other = problem.outputs_of(fun), problem.outputs_of(reference or fun)
    shapes = _shapes(own, problem)
    _require_same(shapes, shapes if reference is None else _shapes(other, problem))
    contracted = cotangents_of(shapes, seed) if cotangents is None else _given(cotangents, shapes)
    given = (problem.inputs, problem.others, contracted)
    with noting() as rules:
        by_rules, eager, first = _manual(pull(own), given)
    kinds = rules.kinds if reference is None else ()
    by_autodiff, without = _or_reason(other, given, kinds)
    autodiff = None if by_autodiff is None else _pass(by_autodiff(*given))
    timed = timing and by_autodiff is not None and not eager
    cost = cost_of(by_rules, by_autodiff, given) if timed else None
    dtypes = tuple(a.dtype for a in problem.inputs)

    def again(cotangents: dict[str, np.ndarray]) -> Evaluated:
        return _pass(by_rules(problem.inputs, problem.others, cotangents))

    def by_one(rule: Written) -> Evaluated:
        with without_rules(but=rule):
            return _pass(_compiled(pull(own), given)(*given))

    told_apart = _told_apart(rules)
    names, alone = tuple(told_apart), {name: partial(by_one, rule) for name, rule in told_apart.items()}
    return Trial(first, autodiff, without, eager, contracted, cost, dtypes, names, kinds, rules.foreign, again, alone)


def _told_apart(rules: Noted) -> dict[str, Written]:
    """Rules by name, and those without one of their own by where they were written as well."""
    names = ["<lambda>", "<lambda>", *rules.values()]
    lines = {rule: f" ({Path(rule[-1].co_filename).name}:{rule[-1].co_firstlineno})" if rule else "" for rule in rules}
    return {name + (lines[rule] if names.count(name) > 1 else ""): rule for rule, name in rules.items()}


def _given(cotangents: Any, shapes: dict[str, Any]) -> dict[str, np.ndarray]:
    """The user's cotangents by output."""
    arrays = {name: np.asarray(a) for name, a in named(cotangents).items()}
    found, wanted = ({name: a.shape for name, a in part.items()} for part in (arrays, shapes))
    if found != wanted:
        raise ValueError(f"`cotangents` (of shapes {found}) must be shaped like the outputs of `fun` ({wanted}).")
    return {name: a.astype(shapes[name].dtype) for name, a in arrays.items()}


def first_line(error: BaseException) -> str:
    """What an error says, up to where it begins to explain."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _shapes(flat: Callable, problem: Problem) -> dict[str, Any]:
    try:
        return jax.eval_shape(flat, problem.inputs, problem.others)
    except REFUSALS:  # what cannot be traced may yet run
        return flat(problem.inputs, problem.others)


def _manual(function: Callable, given: Given) -> tuple[Callable, str, Evaluated]:
    """`function` compiled, "", and what it gives; where it runs only eagerly, as it is and the reason."""
    try:
        compiled = _compiled(function, given)
    except REFUSALS as refused:
        try:
            return function, first_line(refused), _pass(function(*given))
        except REFUSALS as error:
            raise _without_gradient(error) from error
    return compiled, "", _pass(compiled(*given))


def _without_gradient(error: Exception) -> Exception:
    text = str(error)
    if isinstance(error, jax.errors.UnexpectedTracerError) and "nondiff_argnums" in text:
        return TypeError(
            "`fun` passes one of its differentiated arguments to a `jax.custom_vjp` as one of `nondiff_argnums`; name"
            f" the others in `argnums`. JAX says: {first_line(error)}"
        )
    own = any(word in text for word in ("differentiation", "JVP", "jvp", "gradients are only", "transpose"))
    if not own or not isinstance(error, (ValueError, NotImplementedError, TypeError)):
        return error
    kind = NotImplementedError if isinstance(error, NotImplementedError) else ValueError
    return kind(
        f"`fun` has no gradient to judge; give it a rule (`jax.custom_vjp`) or leave the argument out of `argnums`."
        f" JAX says: {first_line(error)}"
    )


def _compiled(function: Callable, given: Given) -> Any:
    return jax.jit(function).lower(*given).compile()


def _or_reason(function: Callable, given: Given, kinds: tuple[type, ...]) -> tuple[Any, str]:
    """JAX's own gradient of `function`, compiled, and ""; or None and the reason where an operation has none."""
    try:
        return first_that_works(lambda kinds: _compiled(pull(stripped(function, kinds)), given), kinds), ""
    except REFUSALS as error:
        return None, first_line(error)


def _pass(result: Any) -> Evaluated:
    outputs, gradients = result
    return Evaluated({name: widened(a) for name, a in outputs.items()}, tuple(map(widened, gradients)))


def _require_same(own: dict[str, Any], other: dict[str, Any]) -> None:
    if not own:
        raise TypeError("`fun` returns no float or complex array; a gradient needs one.")
    shapes = [{name: (a.shape, jnp.dtype(a.dtype).name) for name, a in outputs.items()} for outputs in (own, other)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"`reference` (outputs {shapes[1]}) must return what `fun` does (outputs {shapes[0]}).")
