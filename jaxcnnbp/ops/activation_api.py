"""The activations by name."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxcnnbp.modes import switchable
from jaxcnnbp.ops._dtypes import as_array, require_inexact
from jaxcnnbp.ops.activation import RULES, gelu_rule, leaky_rule


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
