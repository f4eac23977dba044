"""Gradients that are computed only where somebody wants them.

A `bwd` that gives `partial(input_grad, delta, kernel, geometry)` in the place of `input_grad(delta, kernel, geometry)`
leaves it to its caller: of a frozen operand the gradient is not even traced, and what it would read is seen from the
arrays that it holds.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from jax import Array
from jax.extend.core import Jaxpr, Var

Gradient = partial[Array]


def computed(gradient: Any) -> Any:
    """The gradient itself."""
    return gradient() if isinstance(gradient, partial) else gradient


def read_by(gradient: Any) -> Any:
    """The arrays that it is computed from, or itself where it is computed already."""
    return [a for a in gradient.args if isinstance(a, Array)] if isinstance(gradient, partial) else gradient


def inputs_read(jaxpr: Jaxpr) -> list[bool]:
    """Which inputs of `jaxpr` its outputs are computed from."""
    read = {atom for atom in jaxpr.outvars if isinstance(atom, Var)}
    for eqn in reversed(jaxpr.eqns):
        if not read.isdisjoint(eqn.outvars):
            read.update(atom for atom in eqn.invars if isinstance(atom, Var))
    return [var in read for var in jaxpr.invars]
