"""Runs a traced function again, equation by equation: what every reading of a trace shares.

A reading is one function, `equation(eqn, values) -> outputs`. `evaluate` feeds it the equations of a jaxpr in their
order; each sees the name stack, the source line and the context (mesh, metadata, 64-bit types) it was traced under, so
that profiles and errors still point at the user's code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

import jax
import numpy as np
from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from jaxcnnbp import _compat

WIDE = {np.dtype(name) for name in ("float64", "complex128", "int64", "uint64")}

Equation = Callable[[JaxprEqn, list[Any]], Sequence[Any]]


class Interpreter(Protocol):
    """A reading of a whole trace, as the functions that it reads on the way need it."""

    def equation(self, eqn: JaxprEqn, values: list[Any]) -> Sequence[Any]:
        """The outputs of one equation."""
        ...

    def rewritten(self, closed: ClosedJaxpr) -> ClosedJaxpr:
        """A trace with the rules in it."""
        ...


def evaluate(jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Any], equation: Equation) -> list[Any]:
    """The outputs of `jaxpr`, with `equation` in the place of its primitives."""
    values: dict[Var, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for eqn, finished in zip(jaxpr.eqns, _last_reads(jaxpr), strict=True):
        with _place(eqn), context_of(eqn):
            outputs = equation(eqn, [read(atom) for atom in eqn.invars])
        values.update(zip(eqn.outvars, outputs, strict=True))
        for var in finished:
            del values[var]
    return [read(atom) for atom in jaxpr.outvars]


def bind(eqn: JaxprEqn, values: Sequence[Any], params: dict[str, Any] | None = None) -> list[Any]:
    """The equation as it stands, or with other `params`."""
    bound = eqn.primitive.get_bind_params(eqn.params if params is None else params)
    outputs = eqn.primitive.bind(*values, **bound)
    return list(outputs) if eqn.primitive.multiple_results else [outputs]


def inner_traces(eqn: JaxprEqn) -> Iterator[ClosedJaxpr | Jaxpr]:
    """The traces that an equation holds as parameters, alone or in tuples."""
    for held in eqn.params.values():
        for one in held if isinstance(held, tuple) else (held,):
            if isinstance(one, ClosedJaxpr | Jaxpr):
                yield one


def opened(trace: ClosedJaxpr | Jaxpr) -> Jaxpr:
    """The trace without its constants."""
    return trace.jaxpr if isinstance(trace, ClosedJaxpr) else trace


@contextmanager
def context_of(eqn: JaxprEqn) -> Iterator[None]:
    """The mesh, the metadata and the types under which an equation was traced."""
    with _compat.context_of(eqn), _types(eqn):
        yield


def _place(eqn: JaxprEqn) -> Any:
    stack = source_info_util.current_name_stack() + eqn.source_info.name_stack
    return source_info_util.user_context(eqn.source_info.traceback, name_stack=stack)


def _types(eqn: JaxprEqn) -> Any:
    """64-bit types for an equation that has them: it may have been traced under `jax.enable_x64` within the function,
    which a trace does not tell.
    """
    has_wide = any(getattr(atom.aval, "dtype", None) in WIDE for atom in (*eqn.invars, *eqn.outvars))
    return jax.enable_x64(True) if has_wide else nullcontext()


def _last_reads(jaxpr: Jaxpr) -> list[list[Var]]:
    """For each equation the variables that nothing reads after it, so that their memory can go."""
    seen = {atom for atom in jaxpr.outvars if isinstance(atom, Var)}
    rows = []
    for eqn in reversed(jaxpr.eqns):
        last = {atom for atom in eqn.invars if isinstance(atom, Var)} - seen
        seen |= last
        rows.append(list(last))
    return rows[::-1]
