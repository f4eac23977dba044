"""One training step as a pure function: state and batch in, state and figures out; on one device or on many.

x = augment(images)           loss = E(model(params, x), targets)
params <- params - update(dE/dparams)          average <- d average + (1 - d) params

Devices share the batch, each runs the whole network on its rows by the rules as they stand, and the gradients meet in
one sum: with rows r on device d,

    E = sum_r w_r E_r / sum_r w_r          dE/dp = sum_d (sum over its r of w_r dE_r/dp) / sum_r w_r

so that a step has a single all-reduce, of one vector that holds every gradient, the loss and the counts. Parameters
that are kept in parts are gathered in one all-gather, and their gradients leave in one reduce-scatter. Where devices
share an image, each a band of its rows, the compiler places everything, the exchange of the bands' edges included.

Reference: Zhao et al., PyTorch FSDP, 2023 (parameters in parts); Dryden et al., 2019 (bands of images).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from jaxcnnbp.train.collectives import Axes, gather_parts, sum_over_devices
from jaxcnnbp.train.data.split import Batch
from jaxcnnbp.train.layout import DATA, ONE_DEVICE, Layout
from jaxcnnbp.train.program import Program, one_hot_targets, predicted_class, scaled_images


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
    program: Program, layout: Layout = ONE_DEVICE, deterministic: bool = False
) -> Callable[[TrainState, Batch], tuple[TrainState, Figures]]:
    """`train_step` of one program, jitted, with the old state's memory reused for the new one.

    Args:
        program: all that stays the same.
        layout: which device holds what.
        deterministic: whether GPUs must give the same bits every time, which other devices do anyway.

    Returns:
        Function of the state (consumed) and a batch.
    """
    step = functools.partial(train_step, program, layout=layout)
    return jax.jit(step, donate_argnums=0, compiler_options=same_bits(deterministic))


def same_bits(deterministic: bool) -> dict[str, bool]:
    """The options of XLA under which a GPU gives the same bits every time, if that is asked for.

    Some of cuDNN's algorithms add in any order, and XLA takes what it times as the fastest, now one, now another.
    """
    return {"xla_gpu_deterministic_ops": True} if deterministic and jax.default_backend() == "gpu" else {}


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


class Figures(NamedTuple):
    """What one step reports."""

    loss: jax.Array  # mean over the batch
    wrong: jax.Array  # int32, misclassified images of the batch
    images: jax.Array  # float32, images that counted
    stop: jax.Array | None = None  # more than 0 where some process was asked to stop


def loss_and_gradients(
    program: Program, layout: Layout, params: Any, batch: Batch, drawn: tuple[jax.Array, ...]
) -> tuple[Figures, Any]:
    """Loss of a batch and its gradient by every parameter; a pure function."""
    drawn = jax.tree.map(lambda a: jnp.pad(a, [(0, len(batch.labels) - len(a)), *[(0, 0)] * (a.ndim - 1)]), drawn)
    if layout.mesh is None or layout.height > 1:
        images = layout.cut(program.augment.change, scaled_images(program, batch.images), drawn)
        return _differentiated(program, mean_loss, params, images, batch)
    return _by_device(program, layout, params, batch, drawn)


def _by_device(program: Program, layout: Layout, params: Any, batch: Batch, drawn: Any) -> tuple[Figures, Any]:
    specs = jax.tree.map(layout.spec, params)
    axes = tuple(layout.split_axis(leaf.shape) for leaf in jax.tree.leaves(params))
    gradients, sums = jax.shard_map(
        functools.partial(_device_sums, program, axes),
        mesh=layout.mesh,
        in_specs=(specs, PartitionSpec(DATA), PartitionSpec(DATA)),
        out_specs=(specs, PartitionSpec()),
    )(params, batch, drawn)
    share = 1 / jnp.maximum(sums.images, 1)
    gradients = jax.tree.map(lambda leaf: leaf * share.astype(leaf.dtype), gradients)
    return sums._replace(loss=sums.loss * share, wrong=jnp.round(sums.wrong).astype(jnp.int32)), gradients


def _device_sums(program: Program, axes: Axes, params: Any, batch: Batch, drawn: Any) -> tuple[Any, Figures]:
    """On one device: gradients and figures summed over its rows, then over all devices."""
    images = program.augment.change(scaled_images(program, batch.images), drawn)
    figures, gradients = _differentiated(program, _summed_loss, gather_parts(params, axes), images, batch)
    figures = jax.tree.map(lambda figure: figure.astype(figures.loss.dtype), figures)  # all go in one vector
    return sum_over_devices((gradients, figures), axes)


def _differentiated(
    program: Program, loss_of: Callable, params: Any, images: jax.Array, batch: Batch
) -> tuple[Figures, Any]:
    """What the step reports, and the gradients of `loss_of`, which is `mean_loss` or `_summed_loss`."""
    targets = one_hot_targets(program, batch.labels)

    def objective(params: Any) -> tuple[jax.Array, jax.Array]:
        outputs = program.forward(params, images)
        return loss_of(program.loss, outputs, targets, batch.weights), outputs

    (loss, outputs), gradients = jax.value_and_grad(objective, has_aux=True)(params)
    count = jnp.float32(len(batch.labels)) if batch.weights is None else batch.weights.sum()
    return Figures(loss, _wrong(outputs, batch), count, None if batch.stop is None else batch.stop.sum()), gradients


def mean_loss(loss: Any, outputs: jax.Array, targets: jax.Array, weights: jax.Array | None) -> jax.Array:
    """The loss of a batch whose rows count as `weights` say."""
    if weights is None:
        return loss(outputs, targets)
    total = _summed_loss(loss, outputs, targets, weights)
    return total / jnp.maximum(weights.sum(), 1).astype(total.dtype)


def _summed_loss(loss: Any, outputs: jax.Array, targets: jax.Array, weights: jax.Array | None) -> jax.Array:
    if weights is None:
        return loss(outputs, targets) * len(targets)
    each = jax.vmap(lambda output, target: loss(output[None], target[None]))(outputs, targets)
    return jnp.sum(weights.astype(each.dtype) * each)


def _wrong(outputs: jax.Array, batch: Batch) -> jax.Array:
    wrong = predicted_class(outputs) != batch.labels
    return jnp.sum(wrong if batch.weights is None else wrong & (batch.weights > 0), dtype=jnp.int32)
