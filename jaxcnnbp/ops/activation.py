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
from jax.typing import ArrayLike

from jaxcnnbp.hand_written import hand_written
from jaxcnnbp.modes import switchable
from jaxcnnbp.ops.numerics import as_array, cast, require_inexact, wide

Elementwise = Callable[[Array], Array]

SCALE, STEEPNESS = 1.7159, 2 / 3


class Rule:
    """An activation and its backward rule, delta * slope(kept), with kept the output f(u) or else the input u."""

    def __init__(self, f: Elementwise, slope: Elementwise, from_output: bool = True):
        self.f, self.slope, self.from_output = f, slope, from_output
        self.op = hand_written(jax.custom_vjp(self.value))
        self.op.defvjp(self.fwd, self.bwd)

    def value(self, u: Array) -> Array:
        """f(u), computed wide and cast once."""
        return cast(self.f(cast(u, wide(u.dtype))), u.dtype)

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
def leaky_rule(negative_slope: float) -> Rule:
    """Output and input have the same sign unless the slope is negative."""

    def f(u: Array) -> Array:
        return jnp.where(u > 0, u, _number(negative_slope, u) * u)

    def slope(kept: Array) -> Array:
        return jnp.where(kept > 0, _number(1, kept), _number(negative_slope, kept))

    return Rule(f, slope, from_output=negative_slope >= 0)


@functools.cache
def gelu_rule(approximate: bool) -> Rule:
    """The tanh approximation or the exact function."""
    pair = (_gelu_tanh, _gelu_tanh_slope) if approximate else (_gelu_exact, _gelu_exact_slope)
    return Rule(*pair, from_output=False)


RULES = {
    "identity": Rule(lambda u: u, jnp.ones_like),
    "logistic": Rule(lax.logistic, lambda x: x * (1 - x)),
    "tanh": Rule(lax.tanh, lambda x: (1 - x) * (1 + x)),
    "scaled_tanh": Rule(_scaled_tanh, _scaled_tanh_slope),
    "relu": Rule(lambda u: jnp.maximum(u, 0), lambda x: cast(x > 0, x.dtype)),
    "silu": Rule(lambda u: u * lax.logistic(u), _silu_slope, from_output=False),
}
FAMILIES = {"leaky_relu": (leaky_rule, 0.01), "gelu": (gelu_rule, True)}


def rule_named(name: str, argument: float | bool | None = None) -> Rule:
    """The rule of an activation by name, with its argument or the default of it."""
    if name in RULES and argument is None:
        return RULES[name]
    if name in FAMILIES:
        family, default = FAMILIES[name]
        return family(default if argument is None else argument)
    if name in RULES:
        raise ValueError(f"`argument` (={argument!r}) is not for activation {name!r}, which has none; leave it out.")
    raise ValueError(f"`name` (={name!r}) is no activation; use one of {', '.join(sorted((*RULES, *FAMILIES)))}.")


def _floats(x: ArrayLike) -> Array:
    x = as_array(x)
    require_inexact(x, "x")
    return x


def _reals(x: ArrayLike) -> Array:
    x = _floats(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise TypeError(f"`x` (dtype={x.dtype}) must be real; take its real part or its absolute value.")
    return x


@switchable
def identity(x: ArrayLike) -> Array:
    """f(u) = u, f' = 1.

    Args:
      x: floats of any shape.

    Returns:
      The same shape and dtype.

    Raises:
      TypeError: for integers.

    Example:
      >>> import jax.numpy as jnp
      >>> identity(jnp.array([-1., 2.]))
      Array([-1.,  2.], dtype=float32)

    Source: Bouvrie (2006), section 2.
    """
    return RULES["identity"].op(_floats(x))


@switchable
def logistic(x: ArrayLike) -> Array:
    """f(u) = 1 / (1 + exp(-u)), f' = x (1 - x) from the output x.

    Args, Returns and Raises are those of `identity`.

    Example:
      >>> import jax.numpy as jnp
      >>> logistic(jnp.array([0.]))
      Array([0.5], dtype=float32)

    Source: Bouvrie (2006), section 2.
    """
    return RULES["logistic"].op(_floats(x))


@switchable
def tanh(x: ArrayLike) -> Array:
    """f(u) = tanh(u), f' = 1 - x^2 from the output x.

    Args, Returns and Raises are those of `identity`.

    Example:
      >>> import jax.numpy as jnp
      >>> tanh(jnp.array([0.]))
      Array([0.], dtype=float32)

    Source: Bouvrie (2006), section 2.
    """
    return RULES["tanh"].op(_floats(x))


@switchable
def scaled_tanh(x: ArrayLike) -> Array:
    """f(u) = A tanh(B u) with A = 1.7159 and B = 2/3, f' = B / A (A^2 - x^2) from the output x.

    Args, Returns and Raises are those of `identity`. f(1) = 1 and f(-1) = -1, very nearly.

    Example:
      >>> import jax.numpy as jnp
      >>> scaled_tanh(jnp.array([0.]))
      Array([0.], dtype=float32)

    Source: LeCun et al., *Efficient BackProp* (1998); Bouvrie (2006), section 2.
    """
    return RULES["scaled_tanh"].op(_floats(x))


@switchable
def relu(x: ArrayLike) -> Array:
    """f(u) = max(u, 0), f' = 1 where the output is positive and 0 elsewhere, also at the kink.

    Args, Returns and Raises are those of `identity`; complex input is refused.

    Example:
      >>> import jax.numpy as jnp
      >>> relu(jnp.array([-1., 2.]))
      Array([0., 2.], dtype=float32)

    Source: Nair and Hinton, *Rectified linear units* (2010).
    """
    return RULES["relu"].op(_reals(x))


@switchable
def leaky_relu(x: ArrayLike, negative_slope: float = 0.01) -> Array:
    """f(u) = u where u > 0, else negative_slope u; f' = 1 or negative_slope.

    Args:
      x: real floats of any shape.
      negative_slope: the slope at and below zero, a number.

    Returns:
      The same shape and dtype.

    Raises:
      TypeError: for integers and complex numbers.

    Example:
      >>> import jax.numpy as jnp
      >>> leaky_relu(jnp.array([-1., 2.]), 0.5)
      Array([-0.5,  2. ], dtype=float32)

    Source: Maas, Hannun and Ng (2013).
    """
    return leaky_rule(float(negative_slope)).op(_reals(x))


@switchable
def gelu(x: ArrayLike, approximate: bool = True) -> Array:
    """f(u) = u Phi(u), with Phi the normal distribution, or its tanh approximation; f' from the input.

    Args:
      x: real floats of any shape.
      approximate: whether to use the tanh approximation, as `jax.nn.gelu`.

    Returns:
      The same shape and dtype.

    Raises:
      TypeError: for integers and complex numbers.

    Example:
      >>> import jax.numpy as jnp
      >>> gelu(jnp.array([0.]))
      Array([0.], dtype=float32)

    Source: Hendrycks and Gimpel (2016).
    """
    return gelu_rule(bool(approximate)).op(_reals(x))


@switchable
def silu(x: ArrayLike) -> Array:
    """f(u) = u s(u), with s the logistic function; f' = s (1 + u (1 - s)) from the input.

    Args, Returns and Raises are those of `identity`.

    Example:
      >>> import jax.numpy as jnp
      >>> silu(jnp.array([0.]))
      Array([0.], dtype=float32)

    Source: Elfwing, Uchibe and Doya (2017).
    """
    return RULES["silu"].op(_reals(x))
