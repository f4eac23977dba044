"""The rules inside functions that bring their own derivative: `jax.custom_vjp` and `jax.custom_jvp`.

A custom derivative stands: it is what its author wants instead of the derivative. What it is made of is read like any
other code, so its convolutions and pools, and their own derivatives where somebody takes a second one, are this
package's:

    custom_vjp     the function, its fwd and its bwd
    custom_jvp     the function, and in its jvp whatever does not depend on a tangent; what does is linear, JAX
                   transposes it for the backward pass, and a `jax.custom_vjp` cannot be transposed

The calls are bound as they were, the three functions exchanged: their residuals, their symbolic zeros and the structure
of their arguments stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.extend import linear_util
from jax.extend.core import Jaxpr, JaxprEqn, Var
from jax.extend.core.primitives import custom_jvp_call_p, custom_vjp_call_p

from jaxcnnbp.transform.interpreter import Reading, bind, evaluate
from jaxcnnbp.transform.trace import trace

PACKAGE = str(Path(__file__).resolve().parents[1] / "_")[:-1]
CUSTOM = (custom_vjp_call_p, custom_jvp_call_p)


def custom_vjp(reading: Reading, eqn: JaxprEqn, values: list[Any]) -> Sequence[Any]:
    """`jax.custom_vjp`: the function, fwd and bwd are read; fwd is traced anew for every choice of arguments."""
    fwd, bwd = eqn.params["fwd_jaxpr_thunk"], eqn.params["bwd"]

    def fwd_read(*nonzeros: bool) -> tuple[Any, ...]:
        jaxpr, consts = fwd.call_wrapped(*nonzeros)
        return _retraced(jaxpr, consts, reading.equation)

    def bwd_read(*residuals_and_deltas: Any) -> Any:
        closed, rebuild = trace(lambda: bwd.call_wrapped(*residuals_and_deltas))
        return rebuild(evaluate(closed.jaxpr, closed.consts, (), reading.equation))

    functions = dict(fwd_jaxpr_thunk=_wrapped(fwd_read, fwd), bwd=_wrapped(bwd_read, bwd))
    return bind(eqn, values, eqn.params | functions | _function(reading, eqn))


def custom_jvp(reading: Reading, eqn: JaxprEqn, values: list[Any]) -> Sequence[Any]:
    """`jax.custom_jvp`: the function is read, and in its jvp what does not depend on a tangent."""
    jvp = eqn.params["jvp_jaxpr_fun"]
    primals = len(eqn.invars) - eqn.params["num_consts"]

    def jvp_read(*zeros: bool) -> tuple[Any, ...]:
        jaxpr, consts, out_zeros = jvp.call_wrapped(*zeros)
        linear = _equations_that_read(jaxpr, jaxpr.invars[primals:])

        def equation(inner: JaxprEqn, values: list[Any]) -> Sequence[Any]:
            return bind(inner, values) if id(inner) in linear else reading.equation(inner, values)

        return (*_retraced(jaxpr, consts, equation), out_zeros)

    return bind(eqn, values, eqn.params | dict(jvp_jaxpr_fun=_wrapped(jvp_read, jvp)) | _function(reading, eqn))


def is_of_this_package(eqn: JaxprEqn) -> bool:
    """Whether a custom derivative is one of this package's rules, which are what they should be."""
    return eqn.primitive in CUSTOM and PACKAGE in source(eqn)


def source(eqn: JaxprEqn) -> str:
    """`name at file:line` of a function with a custom derivative."""
    return str(eqn.params["call_jaxpr"].jaxpr.debug_info.func_src_info)


def _function(reading: Reading, eqn: JaxprEqn) -> dict[str, Any]:
    return dict(call_jaxpr=reading.rewritten(eqn.params["call_jaxpr"]))


def _retraced(jaxpr: Jaxpr, consts: Sequence[Any], equation: Callable[..., Any]) -> tuple[Jaxpr, list[Any]]:
    def body(*args: Any) -> list[Any]:
        return evaluate(jaxpr, consts, args, equation)

    closed = jax.make_jaxpr(body)(*(var.aval for var in jaxpr.invars))
    return closed.jaxpr, closed.consts


def _equations_that_read(jaxpr: Jaxpr, variables: Sequence[Var]) -> set[int]:
    """The identities of the equations that depend on any of `variables`."""
    reached, found = set(variables), set()
    for eqn in jaxpr.eqns:
        if any(isinstance(atom, Var) and atom in reached for atom in eqn.invars):
            reached.update(eqn.outvars)
            found.add(id(eqn))
    return found


def _wrapped(function: Callable[..., Any], like: Any) -> Any:
    return linear_util.wrap_init(function, debug_info=like.debug_info)
