"""Activations: delta = f'(u) o delta_next, with f' written from the output wherever that is possible.

A derivative taken from the output x = f(u) needs nothing stored beyond what the next layer keeps anyway:

    identity  f' = 1             logistic    f' = x (1 - x)           tanh  f' = 1 - x^2
    relu      f' = [x > 0]       scaled tanh f' = B / A (A^2 - x^2)   leaky relu f' = 1 or slope, by the sign of u

gelu and silu are not monotone, so their derivative needs the input.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxcnnbp._compat import with_weak_type
from jaxcnnbp.hand_written import hand_written
from jaxcnnbp.ops._dtypes import cast, wide

Elementwise = Callable[[Array], Array]

SCALE, STEEPNESS = 1.7159, 2 / 3


class ActivationRule:
    """An activation and its backward rule, delta * slope(kept), with kept the output f(u) or else the input u."""

    def __init__(self, f: Elementwise, slope: Elementwise, from_output: bool = True):
        self.f, self.slope, self.from_output = f, slope, from_output
        self.op = hand_written(jax.custom_vjp(self.value))
        self.op.defvjp(self.fwd, self.bwd)

    def value(self, u: Array) -> Array:
        """f(u), computed wide and cast once."""
        return with_weak_type(cast(self.f(cast(u, wide(u.dtype))), u.dtype), jax.typeof(u))

    def fwd(self, u: Array) -> tuple[Array, Array]:
        """:: u -> (f(u), kept)."""
        x = self.value(u)
        return x, x if self.from_output else u

    def bwd(self, kept: Array, delta: Array) -> tuple[Array]:
        """:: (kept, CT f(u)) -> CT u."""
        sum_type = wide(delta.dtype)
        return (cast(cast(delta, sum_type) * self.slope(cast(kept, sum_type)), delta.dtype),)


def _number(value: float, like: Array) -> Array:
    return jnp.asarray(value, like.dtype)


def _scaled_tanh(u: Array) -> Array:
    return _number(SCALE, u) * lax.tanh(_number(STEEPNESS, u) * u)


def _scaled_tanh_slope(x: Array) -> Array:
    # (A - x)(A + x) loses nothing where A^2 - x^2 would cancel; saturated, x may be rounded to beyond A.
    below, above = (jnp.maximum(_number(SCALE, x) + side, 0) for side in (-x, x))
    return _number(STEEPNESS / SCALE, x) * below * above


def _within(u: Array, bound: float) -> Array:
    """`u` where the slope still changes: beyond it u, or u^2, times a tail of 0 must not be nan."""
    return lax.clamp(_number(-bound, u), u, _number(bound, u))


def _gelu_tanh(u: Array) -> Array:
    return _number(0.5, u) * u * (1 + lax.tanh(_gelu_argument(u)))


def _gelu_tanh_slope(u: Array) -> Array:
    u = _within(u, 10)
    t = lax.tanh(_gelu_argument(u))
    inner = _number(math.sqrt(2 / math.pi), u) * (1 + _number(3 * 0.044715, u) * u * u)
    return _number(0.5, u) * (1 + t) + _number(0.5, u) * u * (1 - t) * (1 + t) * inner


def _gelu_argument(u: Array) -> Array:
    return _number(math.sqrt(2 / math.pi), u) * (u + _number(0.044715, u) * u * u * u)


def _gelu_exact(u: Array) -> Array:
    return _number(0.5, u) * u * lax.erfc(-u * _number(math.sqrt(0.5), u))


def _gelu_exact_slope(u: Array) -> Array:
    u = _within(u, 100)
    density = _number(1 / math.sqrt(2 * math.pi), u) * lax.exp(_number(-0.5, u) * u * u)
    return _number(0.5, u) * lax.erfc(-u * _number(math.sqrt(0.5), u)) + u * density


def _silu_slope(u: Array) -> Array:
    u = _within(u, 1000)
    s = lax.logistic(u)
    return s * (1 + u * (1 - s))


@functools.cache
def leaky_rule(negative_slope: float) -> ActivationRule:
    """Output and input have the same sign unless the slope is negative."""

    def f(u: Array) -> Array:
        return jnp.where(u > 0, u, _number(negative_slope, u) * u)

    def slope(kept: Array) -> Array:
        return jnp.where(kept > 0, _number(1, kept), _number(negative_slope, kept))

    return ActivationRule(f, slope, from_output=negative_slope >= 0)


@functools.cache
def gelu_rule(approximate: bool) -> ActivationRule:
    """The tanh approximation or the exact function."""
    pair = (_gelu_tanh, _gelu_tanh_slope) if approximate else (_gelu_exact, _gelu_exact_slope)
    return ActivationRule(*pair, from_output=False)


RULES = {
    "identity": ActivationRule(lambda u: u, jnp.ones_like),
    "logistic": ActivationRule(lax.logistic, lambda x: x * (1 - x)),
    "tanh": ActivationRule(lax.tanh, lambda x: (1 - x) * (1 + x)),
    "scaled_tanh": ActivationRule(_scaled_tanh, _scaled_tanh_slope),
    "relu": ActivationRule(lambda u: jnp.maximum(u, 0), lambda x: cast(x > 0, x.dtype)),
    "silu": ActivationRule(lambda u: u * lax.logistic(u), _silu_slope, from_output=False),
}
FAMILIES = {"leaky_relu": (leaky_rule, 0.01), "gelu": (gelu_rule, True)}


def rule_named(name: str, argument: float | bool | None = None) -> ActivationRule:
    """The rule of an activation by name, with its argument or the default of it."""
    if name in RULES and argument is None:
        return RULES[name]
    if name in FAMILIES:
        family, default = FAMILIES[name]
        return family(default if argument is None else argument)
    if name in RULES:
        raise ValueError(f"`argument` (={argument!r}) is not for activation {name!r}, which has none; leave it out.")
    raise ValueError(f"`name` (={name!r}) is no activation; use one of {', '.join(sorted((*RULES, *FAMILIES)))}.")
