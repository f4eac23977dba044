"""Which primitive is replaced by which rule, and when it is left alone: the registry of the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn, Primitive, jaxpr_as_fun
from jax.extend.core import primitives as jex

from jaxcnnbp.ops.extreme_fold import identity
from jaxcnnbp.ops.lax_conv import conv_by_lax_because, conv_general_dilated
from jaxcnnbp.ops.reduce_window import WINDOWED, reduce_window, window_by_lax_because


@dataclass(frozen=True)
class Rule:
    """What happens to one primitive.

    Attributes:
      name: what `only=` calls it.
      refuses: the reason why an equation is left to JAX, None if it is swapped.
      apply: `(values, params) -> outputs`, with the values and outputs of the primitive.
    """

    name: str
    refuses: Callable[[JaxprEqn], str | None]
    apply: Callable[[Sequence[Any], dict[str, Any]], Sequence[Any]]


def _conv_refusal(eqn: JaxprEqn) -> str | None:
    lhs, rhs = _avals(eqn)
    return conv_by_lax_because(lhs, rhs, eqn.params["dimension_numbers"])


def _pool_refusal(eqn: JaxprEqn) -> str | None:
    return window_by_lax_because(_avals(eqn), kind=WINDOWED[eqn.primitive], **eqn.params)


def _reduction_refusal(eqn: JaxprEqn) -> str | None:
    if eqn.params["jaxpr"].effects:
        return "the reducer has effects"
    return window_by_lax_because(_avals(eqn)[: len(eqn.outvars)], **eqn.params)


def _avals(eqn: JaxprEqn) -> list[Any]:
    return [atom.aval for atom in eqn.invars]


def _conv(values: Sequence[Any], params: dict[str, Any]) -> Sequence[Any]:
    return [conv_general_dilated(*values, **params)]


def _pool(kind: str, reducer: Primitive) -> Callable[[Sequence[Any], dict[str, Any]], Sequence[Any]]:
    def apply(values: Sequence[Any], params: dict[str, Any]) -> Sequence[Any]:
        (operand,) = values
        init = 0 if kind == "sum" else identity(operand.dtype, kind)
        return [reduce_window(operand, np.asarray(init, operand.dtype), reducer.bind, **params)]

    return apply


def _reduction(values: Sequence[Any], params: dict[str, Any]) -> Sequence[Any]:
    params = dict(params)
    combine = jaxpr_as_fun(ClosedJaxpr(params.pop("jaxpr"), params.pop("consts")))
    operands, inits = values[: len(values) // 2], values[len(values) // 2 :]
    return reduce_window(tuple(operands), tuple(inits), lambda a, b: tuple(combine(*a, *b)), **params)


RULES: dict[Primitive, Rule] = {
    jex.conv_general_dilated_p: Rule("conv", _conv_refusal, _conv),
    jex.reduce_window_max_p: Rule("max_pool", _pool_refusal, _pool("max", jex.max_p)),
    jex.reduce_window_min_p: Rule("min_pool", _pool_refusal, _pool("min", jex.min_p)),
    jex.reduce_window_sum_p: Rule("sum_pool", _pool_refusal, _pool("sum", jex.add_p)),
    jex.reduce_window_p: Rule("reduce_window", _reduction_refusal, _reduction),
}
