"""One training step as a pure function: state and batch in, state and figures out.

x = augment(images)           loss = E(model(params, x), targets)
params <- params - update(dE/dparams)          average <- d average + (1 - d) params
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxcnnbp.train.batch import Batch
from jaxcnnbp.train.gradients import Figures, loss_and_gradients
from jaxcnnbp.train.layout import ONE_DEVICE, Layout
from jaxcnnbp.train.program import Program

__all__ = ["Figures", "Program", "TrainState", "initial_state", "make_step", "train_step"]


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


def make_step(
    program: Program, layout: Layout = ONE_DEVICE
) -> Callable[[TrainState, Batch], tuple[TrainState, Figures]]:
    """`train_step` of one program, jitted, with the old state's memory reused for the new one.

    Args:
        program: all that stays the same.
        layout: which device holds what.

    Returns:
        Function of the state (consumed) and a batch.
    """
    return jax.jit(functools.partial(train_step, program, layout=layout), donate_argnums=0)


def train_step(
    program: Program, state: TrainState, batch: Batch, layout: Layout = ONE_DEVICE
) -> tuple[TrainState, Figures]:
    """One update from the images of a batch; a pure function.

    Args:
        program: all that stays the same.
        state: the state before the step.
        batch: images and labels.
        layout: which device holds what.

    Returns:
        The state after the step, and the loss and errors of the batch before it.
    """
    # Drawn for the whole batch at once, so that the images change alike on any number of devices.
    drawn = program.augment.draw(jax.random.fold_in(state.key, state.step), batch.count, program.master_dtype)
    figures, gradients = loss_and_gradients(program, layout, state.params, batch, drawn)
    # Optax's adam multiplies integers by floats, which strict dtype promotion refuses.
    with jax.numpy_dtype_promotion("standard"), jax.named_scope("optimizer"):
        updates, optimizer = program.optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
    average = _moved(program.decay, state, params)
    params, average, optimizer = layout.constrain((params, average, optimizer))
    return TrainState(params, average, optimizer, state.step + 1, state.key), figures


def _moved(decay: float, state: TrainState, params: Any) -> Any:
    """The running average after a step; early on it forgets faster, so that the first weights fade."""
    if state.average is None:
        return None
    done = state.step.astype(jnp.float32)
    keep = jnp.minimum(decay, (1 + done) / (10 + done))
    share = 1 - keep
    return jax.tree.map(lambda old, new: old + share.astype(old.dtype) * (new - old), state.average, params)
