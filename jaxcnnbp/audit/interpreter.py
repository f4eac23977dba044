"""Runs a traced function again, primitive by primitive, with every float in float64.

What a trace casts to a narrower dtype is carried on as it is: the function that was meant, without the rounding. A
`Noise` puts rounding errors of the original precision back in, at random.

JAX's own rules (of `jax.nn.relu`, of softmax, of `odeint`) belong to the definition of a function and are kept; an
author's are not in the trace any more (`own_rules`), except where JAX cannot differentiate what they are of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jax.extend.core import primitives as jex

from jaxcnnbp._compat import jvp_of, scan_counts
from jaxcnnbp.audit import monitor
from jaxcnnbp.audit.noise import Noise, dtype_of
from jaxcnnbp.audit.oracle.rule import apply, oracle_p, wide_dtype
from jaxcnnbp.audit.own_rules import cut_at
from jaxcnnbp.audit.ties import record_ties
from jaxcnnbp.transform.custom import is_of_this_package
from jaxcnnbp.transform.interpreter import bind, evaluate, inner_traces, opened

Values = Sequence[Any]
Kept = dict[Any, tuple[JaxprEqn, Any]]


@dataclass(frozen=True)
class Reading:
    """How a trace is read."""

    noise: Noise | None = None  # what imitates the rounding of the original precision
    # Gives what takes the place of a value at which the author stops the gradient.
    hold: Callable[[Any], Any] | None = None
    kept: Kept = field(default_factory=dict)  # by equation what takes long to compile, for all readings of one trace

    def run(self, closed: ClosedJaxpr, *args: Any) -> list[Any]:
        """The outputs of `closed` at `args`, differentiable by JAX."""
        consts, inputs = map(_widen, closed.consts), map(_widen, args)
        outputs = evaluate(closed.jaxpr, tuple(consts), tuple(inputs), self._equation)
        return self._typed(closed.jaxpr.outvars, outputs)

    def _typed(self, atoms: Sequence[Any], values: Values) -> list[Any]:
        """`values` with the literals among them, bare Python numbers, as arrays of this precision."""
        rows = zip(atoms, values, strict=True)
        return [_widen(np.asarray(v, dtype_of(a))) if isinstance(a, Literal) else v for a, v in rows]

    def _equation(self, eqn: JaxprEqn, values: list[Any]) -> list[Any]:
        values = self._typed(eqn.invars, values)
        rule = RULES.get(eqn.primitive)
        if rule is not None:
            return rule(self, eqn, values)
        record_ties(eqn, values)
        if eqn.primitive.name in NARROW_ONLY:
            own = [_narrow(v, a.aval) for v, a in zip(values, eqn.invars, strict=True)]
            return [_widen(v) for v in replace(self, noise=None).once(eqn, lambda: jax.jit(partial(bind, eqn)))(own)]
        if self.noise is not None:
            values = self.noise.on_inputs(eqn, values)
        outputs = bind(eqn, values, self._params(eqn))
        return outputs if self.noise is None else self.noise.on_outputs(eqn, outputs)

    def once(self, eqn: JaxprEqn, make: Callable[[], Any]) -> Any:
        """What `make` gives for this equation, made once for readings of one trace with noise, and without."""
        key = id(eqn), self.noise is None
        if key not in self.kept:
            self.kept[key] = eqn, make()  # with the equation, so that no other one gets its place
        return self.kept[key][1]

    def _params(self, eqn: JaxprEqn) -> dict[str, Any]:
        holds_traces = any(True for _ in inner_traces(eqn))
        return self.once(eqn, partial(self._new_params, eqn)) if holds_traces else self._new_params(eqn)

    def _new_params(self, eqn: JaxprEqn) -> dict[str, Any]:
        return {key: self._param(key, value, eqn) for key, value in eqn.params.items()}

    def _param(self, key: str, value: Any, eqn: JaxprEqn) -> Any:
        if isinstance(value, (ClosedJaxpr, Jaxpr)):
            return self._retraced(value)
        if isinstance(value, (tuple, list)) and any(isinstance(v, (ClosedJaxpr, Jaxpr)) for v in value):
            parts = [self._retraced(v) if isinstance(v, (ClosedJaxpr, Jaxpr)) else v for v in value]
            return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        if key == "precision":  # of float32 and less
            return None
        return wide_dtype(value) if key in DTYPE_PARAMS and value is not None else value

    def _retraced(self, value: Any) -> Any:
        """A trace that a primitive keeps as a parameter, read as this one. Noise stays outside of it."""
        closed, plain = _closed(value), replace(self, noise=None)
        avals = [jax.ShapeDtypeStruct(a.shape, wide_dtype(a.dtype)) for a in closed.in_avals]
        try:
            with monitor.counting():  # which nobody reads
                again = jax.make_jaxpr(partial(plain.run, closed))(*avals)
        except NameError as error:  # JAX's, for an axis of devices that is bound outside of this trace
            raise NotImplementedError(str(error)) from error
        return again if isinstance(value, ClosedJaxpr) else again.jaxpr


def equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """All of a trace, however deep."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in inner_traces(eqn):
            yield from equations(opened(inner))


# --- precision

# Parameters that name the dtype of a result.
DTYPE_PARAMS = ("new_dtype", "preferred_element_type", "dtype", "out_dtype")
# Primitives whose meaning hangs on the dtype of their operands, or that leave JAX: they see what the trace says.
COMPUTE_NARROW = frozenset(("ffi_call", "io_callback", "nextafter", "pallas_call", "pure_callback"))
# So do those that are told what dtype to draw in, or that have no float.
DRAWS = ("random_gamma", "random_gamma_grad", "random_wrap", "random_unwrap", "bitcast_convert_type")
NARROW_ONLY = COMPUTE_NARROW.union(DRAWS)


def _widen(value: Any) -> Any:
    dtype = wide_dtype(value.dtype)
    if dtype == value.dtype:  # rules of JAX's that run backward index what they are given by tracers
        return jnp.asarray(value) if isinstance(value, np.ndarray) else value
    return lax.convert_element_type(value, dtype)


def _narrow(value: Any, aval: Any) -> Any:
    return value if value.dtype == aval.dtype else lax.convert_element_type(value, aval.dtype)


# --- primitives that hold other functions


def _closed(trace: Any) -> ClosedJaxpr:
    return trace if isinstance(trace, ClosedJaxpr) else ClosedJaxpr(trace, ())


def _inlined(reading: Reading, eqn: JaxprEqn, values: Values) -> list[Any]:
    return reading.run(_closed(next(inner_traces(eqn))), *values)


def _custom_vjp(reading: Reading, eqn: JaxprEqn, values: Values) -> list[Any]:
    """As it is where it is in float64 already; elsewhere its function, for the rule is of the original dtypes."""
    atoms = (*eqn.invars, *eqn.outvars, *eqn.params["call_jaxpr"].jaxpr.constvars)
    same = all(wide_dtype(dtype_of(a)) == dtype_of(a) for a in atoms)
    if same and not is_of_this_package(eqn):
        outputs = reading.once(eqn, lambda: jax.jit(partial(bind, eqn)))(values)
        return outputs if reading.noise is None else reading.noise.on_outputs(eqn, outputs)
    return reading.run(eqn.params["call_jaxpr"], *values)


def _custom_jvp(reading: Reading, eqn: JaxprEqn, values: Values) -> list[Any]:
    if is_of_this_package(eqn):
        return reading.run(eqn.params["call_jaxpr"], *values)
    noise = reading.noise if reading.noise is not None and reading.noise.told is not None else None

    def inner(told: Any) -> Reading:  # as an argument: JAX loses sight of what a derivative closes over in a loop
        return reading if noise is None else replace(reading, noise=noise.inside(told))

    @jax.custom_jvp
    def function(told: Any, *values: Any) -> list[Any]:
        return inner(told).run(eqn.params["call_jaxpr"], *values)

    @function.defjvp
    def jvp(primals: Values, tangents: Values) -> tuple[list[Any], list[Any]]:
        derivative, zero = jvp_of(eqn, [False] * len(values))
        outputs = inner(primals[0]).run(derivative, *primals[1:], *tangents[1:])
        primal, rest = outputs[: len(zero)], iter(outputs[len(zero) :])
        return primal, [jnp.zeros_like(p) if z else next(rest) for p, z in zip(primal, zero, strict=True)]

    return list(function(0.0 if noise is None else noise.to_tell(), *values))


def _scan(reading: Reading, eqn: JaxprEqn, values: Values) -> list[Any]:
    """Compiled once: noise is told another number in each step."""
    p, noise = eqn.params, reading.noise
    num_consts, num_carry = scan_counts(eqn)

    def run(told: Any, values: Values) -> list[Any]:
        consts, start, rows = values[:num_consts], values[num_consts:][:num_carry], values[num_consts + num_carry :]

        def step(state: Values, x: tuple[Any, Values]) -> tuple[list[Any], list[Any]]:
            inner = reading if noise is None else replace(reading, noise=noise.inside(told.at[0].add(x[0])))
            outputs = inner.run(p["jaxpr"], *consts, *state, *x[1])
            return outputs[:num_carry], outputs[num_carry:]

        numbers = jnp.arange(p["length"], dtype=jnp.float64)
        last, ys = lax.scan(step, start, (numbers, rows), length=p["length"], reverse=p["reverse"], unroll=p["unroll"])
        return [*last, *ys]

    compiled = reading.once(eqn, lambda: jax.jit(run))
    return compiled(0.0 if noise is None else noise.to_tell(), list(values))


def _cond(reading: Reading, eqn: JaxprEqn, values: Values) -> list[Any]:
    branches = [partial(reading.run, b) for b in eqn.params["branches"]]
    if not isinstance(values[0], Tracer):  # the one that is taken, instead of compiling all of them
        return branches[min(max(int(values[0]), 0), len(branches) - 1)](*values[1:])
    return list(lax.switch(values[0], branches, *values[1:]))


def _cast(reading: Reading, eqn: JaxprEqn, values: Values) -> list[Any]:
    """A cast between floats rounds: the value is passed on."""
    target = eqn.params["new_dtype"]
    if not (jnp.issubdtype(values[0].dtype, jnp.inexact) and jnp.issubdtype(target, jnp.inexact)):
        return bind(eqn, values, reading._params(eqn))
    drops_part = jnp.iscomplexobj(values[0]) and not jnp.issubdtype(target, jnp.complexfloating)
    value = lax.real(values[0]) if drops_part else values[0]  # of which lax warns
    outputs = [lax.convert_element_type(value, wide_dtype(target))]
    return outputs if reading.noise is None else reading.noise.on_outputs(eqn, outputs)


def _stopped(reading: Reading, eqn: JaxprEqn, values: Values) -> list[Any]:
    return [reading.hold(values[0])] if reading.hold is not None and cut_at(eqn) else bind(eqn, values)


def _oracle(reading: Reading, eqn: JaxprEqn, values: list[Any]) -> list[Any]:
    if eqn.params["backward"]:
        return bind(eqn, values)
    if reading.noise is not None:
        values = reading.noise.on_inputs(eqn, values)
    outputs = apply(eqn.params["rule"], *values)
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    return outputs if reading.noise is None else reading.noise.on_outputs(eqn, outputs)


RULES: dict[Any, Callable[[Reading, JaxprEqn, list[Any]], list[Any]]] = {
    jex.custom_vjp_call_p: _custom_vjp,
    jex.custom_jvp_call_p: _custom_jvp,
    jex.jit_p: _inlined,
    jex.closed_call_p: _inlined,
    jex.scan_p: _scan,
    jex.cond_p: _cond,
    jex.remat_p: _inlined,
    jex.convert_element_type_p: _cast,
    jex.reduce_precision_p: lambda _, __, values: values,
    jex.stop_gradient_p: _stopped,
    oracle_p: _oracle,
}
