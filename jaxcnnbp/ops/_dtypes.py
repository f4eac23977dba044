"""What every rule does about number types: sums are held wide, results keep the type of the input."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike, DTypeLike


def wide(dtype: DTypeLike) -> np.dtype:
    """The type that sums of `dtype` are held in: float32 for floats narrower than it, else `dtype` itself."""
    dtype = jnp.dtype(dtype)
    is_narrow = jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4
    return jnp.dtype(jnp.float32) if is_narrow else dtype


def common(a: DTypeLike, b: DTypeLike) -> np.dtype:
    """The type that operands of two types meet in, whatever promotion the session allows.

    Of two narrow floats neither may hold the other (float16 and bfloat16); float32, which sums are held in, holds both.
    """
    a, b = jnp.dtype(a), jnp.dtype(b)
    if a == b:
        return a
    return wide(a) if wide(a) != a and wide(b) != b else np.promote_types(a, b)


def as_array(x: ArrayLike) -> Array:
    """`x` as an array. `jnp.asarray` differentiates a conversion to the type that a traced array has already."""
    return x if isinstance(x, Array) else jnp.asarray(x)


def cast(x: Array, dtype: DTypeLike) -> Array:
    """`x` as `dtype`, once and on purpose."""
    return lax.convert_element_type(x, dtype)


def on_channels(vector: Array, y: Array) -> Array:
    """`vector`, one number a channel, with as many axes as `y`: ranks are not promoted quietly either."""
    return vector.reshape((1,) * (y.ndim - 1) + vector.shape)


def cast_exact(x: Array, dtype: DTypeLike) -> Array:
    """`x` as `dtype`, which holds its values as they are: a bfloat16 is the upper half of a float32, nothing rounds."""
    if x.dtype == jnp.float32 and dtype == jnp.bfloat16:
        bits = lax.bitcast_convert_type(x, jnp.uint32)
        return lax.bitcast_convert_type(cast(lax.shift_right_logical(bits, np.uint32(16)), jnp.uint16), dtype)
    return cast(x, dtype)


def require_inexact(array: Array, name: str) -> None:
    """Refuses integers where a gradient is asked for."""
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        raise TypeError(
            f"`{name}` (dtype={array.dtype}) must be a float or complex array to have a gradient;"
            " convert it, for example with x.astype(jnp.float32)."
        )


def require_same_dtype(array: Array, name: str, other: Array, other_name: str) -> None:
    """Refuses a quiet promotion."""
    if array.dtype != other.dtype:
        raise TypeError(
            f"`{name}` (dtype={array.dtype}) must have the dtype of `{other_name}` (dtype={other.dtype});"
            " convert one of them."
        )
