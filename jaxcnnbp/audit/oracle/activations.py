"""Activations and their derivatives, as a textbook writes them: from the input, in float64."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from jaxcnnbp.audit import monitor
from jaxcnnbp.audit.oracle.rule import Arrays, apply, register, rule_of
from jaxcnnbp.modes import alternatives

ROOT = math.sqrt(2 / math.pi)
CUBIC = 0.044715


def sigmoid(x):
    """`1 / (1 + e^-x)`, with `e^x / (1 + e^x)` where the first would overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def normal(x):
    """The distribution function of the normal distribution."""
    return np.vectorize(lambda v: math.erfc(-v / math.sqrt(2)) / 2, otypes=[float])(x)


def _gelu_tanh(x):
    return x / 2 * (1 + np.tanh(ROOT * (x + CUBIC * x**3)))


def _gelu_tanh_slope(x):
    inner = np.tanh(ROOT * (x + CUBIC * x**3))
    return (1 + inner) / 2 + x / 2 * (1 - inner**2) * ROOT * (1 + 3 * CUBIC * x**2)


# The value and the derivative of every activation.
FORMULAS = {
    "identity": (np.copy, np.ones_like),
    "logistic": (sigmoid, lambda x: sigmoid(x) * sigmoid(-x)),
    "tanh": (np.tanh, lambda x: 1 / np.cosh(x) ** 2),
    "scaled_tanh": (lambda x: 1.7159 * np.tanh(2 * x / 3), lambda x: 1.7159 * 2 / 3 / np.cosh(2 * x / 3) ** 2),
    "relu": (lambda x: np.where(x < 0, 0.0, x), lambda x: np.where(x > 0, 1.0, 0.0)),
    "leaky_relu": (lambda x, slope: np.where(x < 0, slope * x, x), lambda x, slope: np.where(x > 0, 1.0, slope)),
    "gelu": (
        lambda x: x * normal(x),
        lambda x: normal(x) + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi),
    ),
    "gelu_tanh": (_gelu_tanh, _gelu_tanh_slope),
    "silu": (lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1 + x * sigmoid(-x))),
}
KINKED = ("relu", "leaky_relu")
EXACT = ("identity", "relu")


def _applied(formula: str, x: Any, **options: Any) -> Any:
    return apply(rule_of(_value, _gradient, exact=formula in EXACT, formula=formula, **options), x)


def _value(x, *, formula, **options) -> Arrays:
    if formula in KINKED:
        monitor.record(f"{formula}: inputs at exactly 0", np.sum(x == 0))
    return (FORMULAS[formula][0](x, **options),)


def _gradient(x, delta, *, formula, **options) -> Arrays:
    return (FORMULAS[formula][1](x, **options) * delta,)


for _name in ("identity", "logistic", "tanh", "scaled_tanh", "relu", "silu"):
    alternatives["oracle"][_name] = partial(_applied, _name)


@register
def leaky_relu(x: Any, negative_slope: float = 0.01) -> Any:
    """`y = x` where `x > 0`, else `negative_slope * x`, with `y' = negative_slope` at 0."""
    return _applied("leaky_relu", x, slope=float(negative_slope))


@register
def gelu(x: Any, approximate: bool = True) -> Any:
    """`y = x Phi(x)`, with `Phi` the normal distribution, or with its approximation by tanh."""
    return _applied("gelu_tanh" if approximate else "gelu", x)
