"""All that stays the same during training, and what it makes of stored pixels and labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxcnnbp.train.augment import Augment

__all__ = ["Program", "one_hot_targets", "predicted_class", "scaled_images"]

_UNCHANGED = Augment()


@dataclasses.dataclass(frozen=True)
class Program:
    """All that stays the same during training.

    Args:
        model: a `Sequential`, or anything with `init` and `apply`.
        loss: function of outputs and one-hot targets, a mean over the batch.
        optimizer: Optax transformation.
        classes: number of classes.
        augment: random change of the images.
        white: the stored pixel value that means 1.0.
        mean: subtracted from the pixels, after scaling by `white`.
        deviation: divides the pixels last.
        smoothing: share of every target that is spread over all classes.
        decay: decay of the running average of the weights; 0 keeps none.
        dtype: type of activations and deltas.
    """

    model: Any
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    optimizer: optax.GradientTransformation
    classes: int
    augment: Augment = _UNCHANGED
    white: int = 255
    mean: float = 0.0
    deviation: float = 1.0
    smoothing: float = 0.0
    decay: float = 0.0
    dtype: Any = jnp.float32

    @property
    def master_dtype(self) -> Any:
        """Type of the stored weights: float32, or float64 where that is the type of the run."""
        return jnp.dtype(jnp.float64 if self.dtype == jnp.float64 else jnp.float32)

    def forward(self, params: Any, images: jax.Array) -> jax.Array:
        """Outputs in the type of the stored weights, computed in `dtype`; images scaled as in training."""
        inputs, narrow = self.narrowed(params, images)
        return _applied(self.model, narrow, inputs).astype(self.master_dtype)

    def narrowed(self, params: Any, images: jax.Array) -> tuple[jax.Array, Any]:
        """Images, with mean 0 and deviation 1 where that is asked for, and parameters, both in `dtype`."""
        narrow = jax.tree.map(lambda leaf: leaf.astype(self.dtype), params)
        return ((images - self.mean) / self.deviation).astype(self.dtype), narrow


def _applied(model: Any, params: Any, x: jax.Array) -> jax.Array:
    """`model.apply`, with every layer under its name in traces and compiled programs."""
    if not hasattr(model, "named_layers"):
        return model.apply(params, x)
    for name, layer in model.named_layers():
        with jax.named_scope(name):
            x = layer.apply(params.get(name, {}), x)
    return x


def scaled_images(program: Program, images: jax.Array) -> jax.Array:
    """Stored pixels scaled to 0 .. 1, in the type of the stored weights.

    Args:
        program: says what value is white and the type.
        images: `(rows, height, width, channels)`, as stored.

    Returns:
        The images.
    """
    return images.astype(program.master_dtype) / program.white


def one_hot_targets(program: Program, labels: jax.Array) -> jax.Array:
    """One-hot rows, with a share of the mass spread evenly (Szegedy et al., 2016).

    Args:
        program: says how many classes there are, and the share.
        labels: `(rows,)`, int32.

    Returns:
        `(rows, classes)`.
    """
    hot = jax.nn.one_hot(labels, program.classes, dtype=program.master_dtype)
    return (1 - program.smoothing) * hot + program.smoothing / program.classes


def predicted_class(outputs: jax.Array) -> jax.Array:
    """The class with the largest output, the first of equals; int32 also where 64-bit types are on.

    Args:
        outputs: `(batch, classes)`.

    Returns:
        `(batch,)`, int32.

    Example:
        >>> predicted_class(jnp.array([[0.1, 0.7, 0.2]]))
        Array([1], dtype=int32)
    """
    return jax.lax.argmax(outputs, 1, jnp.int32)
