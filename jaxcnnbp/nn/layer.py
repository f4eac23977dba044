"""What a layer is: a frozen description, whose weights live outside it and whose mathematics lives in `ops`."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from jaxcnnbp.geometry.window import Ints

Params = dict[str, Any]


class Backward(NamedTuple):
    """What the backward pass of a layer returns."""

    gradients: Params  # by parameter, the shape of `params`
    delta: Array  # the loss by the layer's input


@runtime_checkable
class Layer(Protocol):
    """One step of a network.

    `apply` is `forward` without the residuals, and is what `jax.grad` differentiates, through the rules of `ops`.
    `forward` and `backward` are the same rules called by hand: forward keeps what the rules need, backward takes the
    delta of the layer's output to its gradients and to the delta of its input.

    Shapes are whole: `(batch, *spatial, channels)`, the batch included.
    """

    @property
    def kind(self) -> str:
        """What `Sequential` calls the layer, before its number."""
        ...

    def init(self, key: Array, input_shape: Ints, dtype: DTypeLike = jnp.float32) -> Params:
        """Fresh parameters, a dict of arrays, empty for a layer without any."""
        ...

    def output_shape(self, input_shape: Ints) -> Ints:
        """Shape of the output for an input of `input_shape`."""
        ...

    def apply(self, params: Params, x: Array) -> Array:
        """The output."""
        ...

    def forward(self, params: Params, x: Array) -> tuple[Array, Any]:
        """The output and the residuals of the backward pass."""
        ...

    def backward(self, params: Params, residuals: Any, delta: Array) -> Backward:
        """From the delta of the output to gradients and the delta of the input."""
        ...


class Layered:
    """A layer whose output shape is found by tracing it, with parameters of the shapes that `init` gives."""

    def output_shape(self: Any, input_shape: Ints) -> Ints:
        """Shape of the output for an input of `input_shape`."""
        params = jax.eval_shape(lambda: self.init(jax.random.key(0), input_shape))
        return shape_after(self, params, input_shape)


class Stateless:
    """A layer without parameters."""

    def init(self, key: Array, input_shape: Ints, dtype: DTypeLike = jnp.float32) -> Params:
        """No parameters."""
        del key, dtype
        self.output_shape(input_shape)
        return {}

    def output_shape(self, input_shape: Ints) -> Ints:
        """Shape of the output for an input of `input_shape`."""
        return shape_after(self, {}, input_shape)


def shape_after(layer: Any, params: Params, input_shape: Ints) -> Ints:
    """The output's shape, found by tracing `layer` once without computing anything."""
    x = jax.ShapeDtypeStruct(check_input_shape(input_shape), jnp.float32)
    return jax.eval_shape(layer.apply, params, x).shape


def check_input_shape(input_shape: Any) -> Ints:
    """`input_shape` as a tuple of ints."""
    try:
        shape = tuple(int(n) for n in input_shape)
    except (TypeError, ValueError):
        shape = (-1,)
    if len(shape) < 2 or any(n < 0 for n in shape):
        raise ValueError(
            f"`input_shape` (={input_shape!r}) must be the whole shape of an input, (batch, *spatial, channels)."
        )
    return shape


def glorot_uniform(key: Array, shape: Ints, fan_in: float, fan_out: float, dtype: DTypeLike) -> Array:
    """Uniform in +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    bound = float(np.sqrt(6 / max(fan_in + fan_out, 1)))
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def he_normal(key: Array, shape: Ints, fan_in: float, fan_out: float, dtype: DTypeLike) -> Array:
    """Normal with variance 2 / fan_in (He et al., 2015), for relu and its kin."""
    del fan_out
    return jax.random.normal(key, shape, dtype) * jnp.asarray(np.sqrt(2 / max(fan_in, 1)), dtype)
