"""Functions that bring their own derivative: `jax.custom_vjp` and `jax.custom_jvp`.

A custom derivative stands: it is what its author wants instead of the derivative. So the function itself is read, which
runs wherever nothing is differentiated, and its fwd and bwd, or its jvp, are bound as they were. The rules of this
package are such functions too (`jaxcnnbp.hand_written`), and are not read.
"""

from __future__ import annotations

from pathlib import Path

from jax.extend.core import JaxprEqn
from jax.extend.core.primitives import custom_jvp_call_p, custom_vjp_call_p

PACKAGE = str(Path(__file__).resolve().parents[1] / "_")[:-1]
CUSTOM = {
    custom_vjp_call_p: "the forward alone: the backward pass is that of the custom_vjp around it",
    custom_jvp_call_p: "the forward alone: the derivative is that of the custom_jvp around it, transposed by JAX",
}


def is_of_this_package(eqn: JaxprEqn) -> bool:
    """Whether a custom derivative is one of this package's rules, which are what they should be."""
    return eqn.primitive in CUSTOM and PACKAGE in source(eqn)


def source(eqn: JaxprEqn) -> str:
    """`name at file:line` of a function with a custom derivative."""
    return str(eqn.params["call_jaxpr"].jaxpr.debug_info.func_src_info)
