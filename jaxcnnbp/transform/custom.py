"""Functions that bring their own derivative: `jax.custom_vjp` and `jax.custom_jvp`.

A custom derivative stands: it is what its author wants instead of the derivative. So the function itself is read, which
runs wherever nothing is differentiated, and its fwd and bwd, or its jvp, are bound as they were. The rules of this
package are such functions too (`jaxcnnbp.hand_written`), and are not read.
"""

from __future__ import annotations

from jax.extend.core import JaxprEqn
from jax.extend.core.primitives import custom_jvp_call_p, custom_vjp_call_p

from jaxcnnbp._compat import traced_from
from jaxcnnbp.hand_written import RULES, hand_written

CUSTOM = {
    custom_vjp_call_p: "the forward alone: the backward pass is that of the custom_vjp around it",
    custom_jvp_call_p: "the forward alone: the derivative is that of the custom_jvp around it, transposed by JAX",
}


def rule_of(eqn: JaxprEqn) -> hand_written | None:
    """The rule of this package that a custom derivative is, None if it is somebody else's."""
    if eqn.primitive not in CUSTOM:
        return None
    return RULES.get(traced_from(eqn.params["call_jaxpr"].jaxpr))


def is_of_this_package(eqn: JaxprEqn) -> bool:
    """Whether a custom derivative is one of this package's rules, which are what they should be."""
    return rule_of(eqn) is not None
