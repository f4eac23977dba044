"""The primitives that hold traced functions, and how the rules get into each: one function a primitive.

Where the trace is a parameter, the parameter is rewritten and everything else (names, donation, shardings, unrolling)
is rebound as it was. Where a public function says the same more safely, it is called again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import JaxprEqn, Primitive
from jax.extend.core import primitives as jex

from jaxcnnbp._compat import manual_axes, name_of
from jaxcnnbp.modes import mode
from jaxcnnbp.transform.interpreter import Interpreter, bind, evaluate

Inner = Callable[[Interpreter, JaxprEqn, list[Any]], Sequence[Any]]


def parameter(*names: str) -> Inner:
    """The traces are the parameters `names`: a closed jaxpr each, or a tuple of them, named or not, or of None."""

    def rule(interpreter: Interpreter, eqn: JaxprEqn, values: list[Any]) -> Sequence[Any]:
        def rewrite(held: Any) -> Any:
            if isinstance(held, tuple):
                each = map(rewrite, held)
                return type(held)(*each) if hasattr(held, "_fields") else tuple(each)
            return held if held is None else interpreter.rewritten(held)

        return bind(eqn, values, eqn.params | {name: rewrite(eqn.params[name]) for name in names})

    return rule


def checkpoint(interpreter: Interpreter, eqn: JaxprEqn, values: list[Any]) -> Sequence[Any]:
    """`jax.checkpoint`: the rules' forward passes run again like any other."""
    body = _open(interpreter, eqn)
    return jax.checkpoint(body, prevent_cse=eqn.params["prevent_cse"], policy=eqn.params["policy"])(*values)


def shard_map(interpreter: Interpreter, eqn: JaxprEqn, values: list[Any]) -> Sequence[Any]:
    """`jax.shard_map`: traced again, because only it knows the axes and shapes inside."""
    p = eqn.params
    options = dict(mesh=p["mesh"], in_specs=p["in_specs"], out_specs=p["out_specs"], check_vma=p["check_vma"])
    return jax.shard_map(_open(interpreter, eqn), axis_names=set(manual_axes(eqn)), **options)(*values)


def linear_solve(interpreter: Interpreter, eqn: JaxprEqn, values: list[Any]) -> Sequence[Any]:
    """`custom_linear_solve`: its derivatives go forward through the operator, which only `both_ways` lets them."""
    with mode("both_ways" if mode.value == "manual" else mode.value):
        return parameter("jaxprs")(interpreter, eqn, values)


def _open(interpreter: Interpreter, eqn: JaxprEqn) -> Callable[..., tuple[Any, ...]]:
    """The body of an equation that holds an open jaxpr, under the name it had."""
    jaxpr = eqn.params["jaxpr"]

    def body(*values: Any) -> tuple[Any, ...]:
        return tuple(evaluate(jaxpr, (), values, interpreter.equation))

    body.__name__ = name_of(jaxpr)
    return body


INNER: dict[Primitive, Inner] = {
    jex.jit_p: parameter("jaxpr"),
    jex.closed_call_p: parameter("call_jaxpr"),
    jex.scan_p: parameter("jaxpr"),
    jex.while_p: parameter("cond_jaxpr", "body_jaxpr"),
    jex.cond_p: parameter("branches"),
    jex.remat_p: checkpoint,
    jex.custom_vjp_call_p: parameter("call_jaxpr"),
    jex.custom_jvp_call_p: parameter("call_jaxpr"),
    jex.linear_solve_p: linear_solve,
}
# Those that JAX has under no public name.
NAMED: dict[str, Inner] = {
    "custom_vmap_call": parameter("call"),
    "shard_map": shard_map,
}


def inner_rule(eqn: JaxprEqn) -> Inner | None:
    """How the rules get into what an equation holds, None if they do not."""
    return INNER.get(eqn.primitive) or NAMED.get(eqn.primitive.name)
