"""Which primitive is replaced by which rule, and when it is left alone: the registry of the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn, Primitive, jaxpr_as_fun
from jax.extend.core import primitives as jex

from jaxcnnbp.modes import BY_RULE, mode
from jaxcnnbp.ops.conv.lax_api import conv_by_lax_because, conv_general_dilated, convolved
from jaxcnnbp.ops.pool.reduce_window import WINDOWED, pool_windows, reduce_window, window_by_lax_because
from jaxcnnbp.ops.pool.window_max import identity


@dataclass(frozen=True)
class Swappable:
    """What happens to one primitive.

    Attributes:
      name: what `only=` calls it.
      refuses: the reason why an equation is left to JAX, None if it is swapped.
      apply: `(eqn, values) -> outputs`, with the values and outputs of the primitive.
    """

    name: str
    refuses: Callable[[JaxprEqn], str | None]
    apply: Callable[[JaxprEqn, Sequence[Any]], Sequence[Any]]


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


def _conv(eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    if mode.value in BY_RULE:
        parameters = {name: value for name, value in eqn.params.items() if name != "out_sharding"}
        return [convolved(*values, out=eqn.outvars[0].aval, **parameters)]
    return [conv_general_dilated(*values, **eqn.params)]


def _pool(kind: str, reducer: Primitive) -> Callable[[JaxprEqn, Sequence[Any]], Sequence[Any]]:
    def apply(eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
        (operand,) = values
        if mode.value in BY_RULE:
            return [pool_windows(kind, operand, eqn.outvars[0].aval, **eqn.params)]
        init = 0 if kind == "sum" else identity(operand.dtype, kind)
        return [reduce_window(operand, np.asarray(init, operand.dtype), reducer.bind, **eqn.params)]

    return apply


def _reduction(eqn: JaxprEqn, values: Sequence[Any]) -> Sequence[Any]:
    params = dict(eqn.params)
    combine = jaxpr_as_fun(ClosedJaxpr(params.pop("jaxpr"), params.pop("consts")))
    operands, inits = values[: len(values) // 2], values[len(values) // 2 :]
    return reduce_window(tuple(operands), tuple(inits), lambda a, b: tuple(combine(*a, *b)), **params)


SWAPPABLE: dict[Primitive, Swappable] = {
    jex.conv_general_dilated_p: Swappable("conv", _conv_refusal, _conv),
    jex.reduce_window_max_p: Swappable("max_pool", _pool_refusal, _pool("max", jex.max_p)),
    jex.reduce_window_min_p: Swappable("min_pool", _pool_refusal, _pool("min", jex.min_p)),
    jex.reduce_window_sum_p: Swappable("sum_pool", _pool_refusal, _pool("sum", jex.add_p)),
    jex.reduce_window_p: Swappable("reduce_window", _reduction_refusal, _reduction),
}
