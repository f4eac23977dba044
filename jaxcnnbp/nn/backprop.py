"""The document's algorithm, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import Array

from jaxcnnbp.nn.layer import Params
from jaxcnnbp.nn.sequential import Sequential


class Backprop(NamedTuple):
    """What one pass of the algorithm finds."""

    loss: Array
    gradients: Params  # the loss by every parameter, the shape of `params`
    deltas: dict[str, Array]  # the loss by the output of each layer, by name, and by the "input"
    outputs: Array


def backprop(
    model: Sequential, params: Params, inputs: Array, targets: Array, loss: Callable[[Array, Array], Array]
) -> Backprop:
    """Forward, keeping what the rules need; the delta of the output; then layer by layer backwards.

    No part of it is derived by JAX but the delta of the output, the gradient of `loss` alone, which for the losses of
    this package is hand-written too. The delta of a convolution or dense layer, whose output is the document's u (the
    weighted sum before the activation), is the document's delta of that layer.

    Args:
      model: the layers.
      params: their parameters, as `model.init` gives them.
      inputs: `(batch, *spatial, channels)`.
      targets: what `loss` takes beside the outputs.
      loss: `(outputs, targets) -> scalar`.

    Returns:
      Loss, gradients, the delta of every layer, and the outputs. The gradients agree with `jax.grad` of
      `loss(model.apply(params, inputs), targets)`.

    Raises:
      TypeError, ValueError: as the layers do.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxcnnbp import nn
      >>> model = nn.Sequential((nn.Conv(2, 3), nn.Logistic(), nn.Flatten(), nn.Dense(2)))
      >>> params = model.init(jax.random.key(0), (1, 4, 4, 1))
      >>> found = backprop(model, params, jnp.ones((1, 4, 4, 1)), jnp.array([1]), nn.squared_error)
      >>> {name: delta.shape for name, delta in found.deltas.items()}["conv1"]
      (1, 2, 2, 2)

    Source: Bouvrie (2006), sections 2 and 3.
    """
    outputs, residuals = model.forward(params, inputs)
    value, delta = jax.value_and_grad(loss)(outputs, targets)
    gradients, deltas = model.backward_with_deltas(params, residuals, delta)
    return Backprop(value, gradients, deltas, outputs)
