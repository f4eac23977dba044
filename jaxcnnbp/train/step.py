"""One training step as a pure function: state and batch in, state and figures out.

x = augment(images)           loss = E(model(params, x), targets)
params <- params - update(dE/dparams)          average <- d average + (1 - d) params
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxcnnbp.train.augment import Augment
from jaxcnnbp.train.data.split import Split

__all__ = [
    "Figures",
    "Program",
    "TrainState",
    "initial_state",
    "make_step",
    "predicted_class",
    "read_batch",
    "train_step",
]


class TrainState(NamedTuple):
    """All that changes during training: what a checkpoint has to hold."""

    params: Any
    average: Any  # running average of params, or None
    optimizer: Any  # Optax's state
    step: jax.Array  # int32, steps done; with the seed it also gives the position in the data
    key: jax.Array  # constant: step s draws from fold_in(key, s)

    @property
    def weights(self) -> Any:
        """The parameters to evaluate and to keep: the average where there is one."""
        return self.params if self.average is None else self.average


class Figures(NamedTuple):
    """What one step reports."""

    loss: jax.Array  # mean over the batch
    wrong: jax.Array  # int32, misclassified images of the batch


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
        narrow = jax.tree.map(lambda leaf: leaf.astype(self.dtype), params)
        inputs = ((images - self.mean) / self.deviation).astype(self.dtype)
        return self.model.apply(narrow, inputs).astype(self.master_dtype)


def initial_state(program: Program, seed: int, input_shape: tuple[int, ...]) -> TrainState:
    """The state before the first step, drawn from `seed`.

    Args:
        program: the model, the optimizer and the type of the weights.
        seed: seed of the weights and of everything drawn later.
        input_shape: shape of a batch, `(batch, height, width, channels)`.

    Returns:
        The state, with step 0.
    """
    weights_key, key = jax.random.split(jax.random.key(seed))
    params = program.model.init(weights_key, input_shape, dtype=program.master_dtype)
    average = jax.tree.map(jnp.copy, params) if program.decay else None
    return TrainState(params, average, program.optimizer.init(params), jnp.zeros((), jnp.int32), key)


def make_step(program: Program) -> Callable[[TrainState, Split, jax.Array], tuple[TrainState, Figures]]:
    """`train_step` of one program, jitted, with the old state's memory reused for the new one.

    Args:
        program: all that stays the same.

    Returns:
        Function of the state (consumed), the training split and the indices of a batch.
    """
    return jax.jit(functools.partial(train_step, program), donate_argnums=0)


def train_step(program: Program, state: TrainState, split: Split, indices: jax.Array) -> tuple[TrainState, Figures]:
    """One update from the images `indices` of the split; a pure function.

    Args:
        program: all that stays the same.
        state: the state before the step.
        split: all training images, on the device.
        indices: `(batch,)`, int32.

    Returns:
        The state after the step, and the loss and errors of the batch before it.
    """
    images, labels = read_batch(program, split, indices)
    images = program.augment(jax.random.fold_in(state.key, state.step), images)
    targets = _targets(program, labels)

    def objective(params: Any) -> tuple[jax.Array, jax.Array]:
        outputs = program.forward(params, images)
        return program.loss(outputs, targets), outputs

    (loss, outputs), gradients = jax.value_and_grad(objective, has_aux=True)(state.params)
    # Optax's adam multiplies integers by floats, which strict dtype promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        updates, optimizer = program.optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
    average = _moved(program.decay, state, params)
    wrong = jnp.sum(predicted_class(outputs) != labels, dtype=jnp.int32)
    return TrainState(params, average, optimizer, state.step + 1, state.key), Figures(loss, wrong)


def read_batch(program: Program, split: Split, indices: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Images scaled to 0 .. 1, and labels, at the given indices.

    Args:
        program: says what value is white and the type.
        split: images and labels on the device.
        indices: `(batch,)`, int32.

    Returns:
        Images `(batch, height, width, channels)` in the type of the stored weights, labels `(batch,)`.
    """
    images = split.images[indices].astype(program.master_dtype) / program.white
    return images, split.labels[indices]


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


def _targets(program: Program, labels: jax.Array) -> jax.Array:
    """One-hot rows, with a share of the mass spread evenly (Szegedy et al., 2016)."""
    hot = jax.nn.one_hot(labels, program.classes, dtype=program.master_dtype)
    return (1 - program.smoothing) * hot + program.smoothing / program.classes


def _moved(decay: float, state: TrainState, params: Any) -> Any:
    """The running average after a step; early on it forgets faster, so that the first weights fade."""
    if state.average is None:
        return None
    done = state.step.astype(jnp.float32)
    keep = jnp.minimum(decay, (1 + done) / (10 + done))
    share = 1 - keep
    return jax.tree.map(lambda old, new: old + share.astype(old.dtype) * (new - old), state.average, params)
