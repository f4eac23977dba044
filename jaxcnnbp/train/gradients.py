"""Loss and gradients of a batch, on one device or on many.

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
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxcnnbp.train.batch import Batch
from jaxcnnbp.train.layout import DATA, Layout
from jaxcnnbp.train.parts import Axes, gather_parts, sum_over_devices
from jaxcnnbp.train.program import Program, one_hot_targets, predicted_class, scaled_images

__all__ = ["Figures", "loss_and_gradients", "mean_loss"]


class Figures(NamedTuple):
    """What one step reports."""

    loss: jax.Array  # mean over the batch
    wrong: jax.Array  # int32, misclassified images of the batch
    images: jax.Array  # float32, images that counted
    stop: jax.Array | None = None  # more than 0 where some process was asked to stop


class _Sums(NamedTuple):
    """What adds up over devices."""

    gradients: Any
    loss: jax.Array
    wrong: jax.Array
    images: jax.Array
    stop: jax.Array


def loss_and_gradients(
    program: Program, layout: Layout, params: Any, batch: Batch, drawn: tuple[jax.Array, ...]
) -> tuple[Figures, Any]:
    """Loss of a batch and its gradient by every parameter; a pure function.

    Args:
        program: model, loss and scaling.
        layout: which device holds what.
        params: parameters, as the layout places them.
        batch: images and labels, likewise.
        drawn: what the augmentation drew for each of the batch's images.

    Returns:
        The figures of the batch, and the gradients in the places of the parameters.
    """
    drawn = jax.tree.map(lambda a: jnp.pad(a, [(0, len(batch.labels) - len(a)), *[(0, 0)] * (a.ndim - 1)]), drawn)
    if layout.mesh is None or layout.height > 1:
        return _in_one_program(program, layout, params, batch, drawn)
    return _by_device(program, layout, params, batch, drawn)


def mean_loss(loss: Any, outputs: jax.Array, targets: jax.Array, weights: jax.Array | None) -> jax.Array:
    """The loss of a batch whose rows count as `weights` say.

    Args:
        loss: a mean over the batch, of outputs and targets.
        outputs: `(rows, classes)`.
        targets: `(rows, classes)`.
        weights: `(rows,)`, or None for ones.

    Returns:
        A scalar; 0 if no row counts.
    """
    if weights is None:
        return loss(outputs, targets)
    each = _each_loss(loss, outputs, targets)
    return jnp.sum(weights.astype(each.dtype) * each) / jnp.maximum(weights.sum(), 1).astype(each.dtype)


def _in_one_program(program: Program, layout: Layout, params: Any, batch: Batch, drawn: Any) -> tuple[Figures, Any]:
    images = layout.cut(program.augment.change, scaled_images(program, batch.images), drawn)
    targets = one_hot_targets(program, batch.labels)

    def objective(params: Any) -> tuple[jax.Array, jax.Array]:
        outputs = program.forward(params, images)
        return mean_loss(program.loss, outputs, targets, batch.weights), outputs

    (loss, outputs), gradients = jax.value_and_grad(objective, has_aux=True)(params)
    figures = Figures(loss, _wrong(outputs, batch), _images(batch), None if batch.stop is None else batch.stop.sum())
    return figures, gradients


def _by_device(program: Program, layout: Layout, params: Any, batch: Batch, drawn: Any) -> tuple[Figures, Any]:
    specs = jax.tree.map(layout.spec, params)
    axes = tuple(layout.split_axis(leaf.shape) for leaf in jax.tree.leaves(params))
    sums = jax.shard_map(
        functools.partial(_device_sums, program, axes),
        mesh=layout.mesh,
        in_specs=(specs, PartitionSpec(DATA), PartitionSpec(DATA)),
        out_specs=_Sums(specs, *[cast(Any, PartitionSpec())] * 4),
    )(params, batch, drawn)
    share = 1 / jnp.maximum(sums.images, 1)
    gradients = jax.tree.map(lambda leaf: leaf * share.astype(leaf.dtype), sums.gradients)
    wrong = jnp.round(sums.wrong).astype(jnp.int32)
    stop = None if batch.stop is None else sums.stop
    return Figures(sums.loss * share, wrong, sums.images, stop), gradients


def _device_sums(program: Program, axes: Axes, params: Any, batch: Batch, drawn: Any) -> _Sums:
    """On one device: the sums over its rows, then over all devices."""
    params = gather_parts(params, axes)
    images = program.augment.change(scaled_images(program, batch.images), drawn)
    targets = one_hot_targets(program, batch.labels)

    def objective(params: Any) -> tuple[jax.Array, jax.Array]:
        outputs = program.forward(params, images)
        if batch.weights is None:
            return program.loss(outputs, targets) * len(batch.labels), outputs
        each = _each_loss(program.loss, outputs, targets)
        return jnp.sum(batch.weights.astype(each.dtype) * each), outputs

    (loss, outputs), gradients = jax.value_and_grad(objective, has_aux=True)(params)
    wrong, images = _wrong(outputs, batch).astype(loss.dtype), _images(batch).astype(loss.dtype)
    stop = jnp.zeros((), loss.dtype) if batch.stop is None else batch.stop.sum().astype(loss.dtype)
    return sum_over_devices(_Sums(gradients, loss, wrong, images, stop), axes)


def _each_loss(loss: Any, outputs: jax.Array, targets: jax.Array) -> jax.Array:
    return jax.vmap(lambda output, target: loss(output[None], target[None]))(outputs, targets)


def _wrong(outputs: jax.Array, batch: Batch) -> jax.Array:
    wrong = predicted_class(outputs) != batch.labels
    return jnp.sum(wrong if batch.weights is None else wrong & (batch.weights > 0), dtype=jnp.int32)


def _images(batch: Batch) -> jax.Array:
    return jnp.float32(len(batch.labels)) if batch.weights is None else batch.weights.sum()
