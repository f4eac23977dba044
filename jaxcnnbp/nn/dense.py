"""The dense layer and the flattening before it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from jaxcnnbp.geometry.parse import require_count
from jaxcnnbp.geometry.window import Ints
from jaxcnnbp.nn.layer import Backward, Params, Stateless, check_input_shape, glorot_uniform
from jaxcnnbp.ops.dense import dense, dense_input_grad, dense_weight_grad, sum_to_channels


@dataclass(frozen=True)
class Dense:
    """u = x W + b over the last axis.

    Attributes:
      features: outputs.
      use_bias: whether a bias is added.
      initializer: `(key, shape, fan_in, fan_out, dtype) -> kernel`.

    Example:
      >>> import jax
      >>> Dense(10).init(jax.random.key(0), (1, 84))["kernel"].shape
      (84, 10)

    Source: Bouvrie (2006), section 2: the delta goes back through W^T.
    """

    features: int
    use_bias: bool = True
    initializer: Callable[..., Array] = glorot_uniform
    kind = "dense"

    def __post_init__(self) -> None:
        require_count(self.features, "features")

    def init(self, key: Array, input_shape: Ints, dtype: DTypeLike = jnp.float32) -> Params:
        """`kernel` `(in, features)` by the initializer, `bias` zero."""
        depth = check_input_shape(input_shape)[-1]
        kernel = self.initializer(key, (depth, self.features), depth, self.features, dtype)
        return {"kernel": kernel} | ({"bias": jnp.zeros((self.features,), dtype)} if self.use_bias else {})

    def output_shape(self, input_shape: Ints) -> Ints:
        """`(..., features)`."""
        return (*check_input_shape(input_shape)[:-1], self.features)

    def apply(self, params: Params, x: Array) -> Array:
        """x W + b."""
        return dense(x, params["kernel"], params.get("bias"))

    def forward(self, params: Params, x: Array) -> tuple[Array, Array]:
        """x W + b, and x for dW."""
        return self.apply(params, x), x

    def backward(self, params: Params, residuals: Array, delta: Array) -> Backward:
        """dW = x^T delta, db = sum delta, dx = delta W^T."""
        gradients = {"kernel": dense_weight_grad(residuals, delta)}
        if self.use_bias:
            gradients["bias"] = sum_to_channels(delta)
        return Backward(gradients, dense_input_grad(delta, params["kernel"]))


@dataclass(frozen=True)
class Flatten(Stateless):
    """`(batch, *anything)` as `(batch, features)`; the delta takes the old shape back.

    Example:
      >>> Flatten().output_shape((2, 4, 4, 16))
      (2, 256)

    Source: the document's last pooling layer, whose maps are concatenated into one vector.
    """

    kind = "flatten"

    def apply(self, params: Params, x: Array) -> Array:
        """One vector an image."""
        del params
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))

    def forward(self, params: Params, x: Array) -> tuple[Array, Ints]:
        """One vector an image, and the shape it had."""
        return self.apply(params, x), x.shape

    def backward(self, params: Params, residuals: Ints, delta: Array) -> Backward:
        """The delta in the shape of the maps."""
        del params
        return Backward({}, delta.reshape(residuals))
