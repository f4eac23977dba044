"""Activations and their derivatives, as a textbook writes them: from the input, in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from jaxcnnbp.audit import monitor
from jaxcnnbp.audit.oracle.rule import Arrays, Rule, apply, register, rule_of
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


def _relu(x):
    return np.where(x < 0, 0.0, x)


def _relu_slope(x):
    return np.where(x > 0, 1.0, 0.0)


def _leaky_relu(x, slope):
    return np.where(x < 0, slope * x, x)


def _leaky_relu_slope(x, slope):
    return np.where(x > 0, 1.0, slope)


def _logistic_slope(x):
    return sigmoid(x) * sigmoid(-x)


def _tanh_slope(x):
    return 1 / np.cosh(x) ** 2


def _scaled_tanh(x):
    return 1.7159 * np.tanh(2 * x / 3)


def _scaled_tanh_slope(x):
    return 1.7159 * 2 / 3 / np.cosh(2 * x / 3) ** 2


def _gelu(x):
    return x * normal(x)


def _gelu_slope(x):
    return normal(x) + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


def _gelu_tanh(x):
    return x / 2 * (1 + np.tanh(ROOT * (x + CUBIC * x**3)))


def _gelu_tanh_slope(x):
    inner = np.tanh(ROOT * (x + CUBIC * x**3))
    return (1 + inner) / 2 + x / 2 * (1 - inner**2) * ROOT * (1 + 3 * CUBIC * x**2)


def _silu(x):
    return x * sigmoid(x)


def _silu_slope(x):
    return sigmoid(x) * (1 + x * sigmoid(-x))


# The value and the derivative of every activation.
FORMULAS = {
    "identity": (np.copy, np.ones_like),
    "logistic": (sigmoid, _logistic_slope),
    "tanh": (np.tanh, _tanh_slope),
    "scaled_tanh": (_scaled_tanh, _scaled_tanh_slope),
    "relu": (_relu, _relu_slope),
    "leaky_relu": (_leaky_relu, _leaky_relu_slope),
    "gelu": (_gelu, _gelu_slope),
    "gelu_tanh": (_gelu_tanh, _gelu_tanh_slope),
    "silu": (_silu, _silu_slope),
}
KINKED = ("relu", "leaky_relu")
EXACT = ("identity", "relu")


def _rule(public: str, formula: str, **options: Any) -> Rule:
    return rule_of(public, _value, _gradient, exact=formula in EXACT, formula=formula, **options)


def _value(x, *, formula, **options) -> Arrays:
    if formula in KINKED:
        monitor.record(f"{formula}: inputs at exactly 0", np.sum(x == 0))
    return (FORMULAS[formula][0](x, **options),)


def _gradient(x, delta, *, formula, **options) -> Arrays:
    return (FORMULAS[formula][1](x, **options) * delta,)


def _registered(name: str) -> None:
    def activation(x: Any) -> Any:
        return apply(_rule(name, name), x)

    alternatives["oracle"][name] = activation


for _name in ("identity", "logistic", "tanh", "scaled_tanh", "relu", "silu"):
    _registered(_name)


@register
def leaky_relu(x: Any, negative_slope: float = 0.01) -> Any:
    """`y = x` where `x > 0`, else `negative_slope * x`, with `y' = negative_slope` at 0."""
    return apply(_rule("leaky_relu", "leaky_relu", slope=float(negative_slope)), x)


@register
def gelu(x: Any, approximate: bool = True) -> Any:
    """`y = x Phi(x)`, with `Phi` the normal distribution, or with its approximation by tanh."""
    return apply(_rule("gelu", "gelu_tanh" if approximate else "gelu"), x)
