"""Loss and confusion matrix of a split, every image counted once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from jaxcnnbp.train.collectives import sum_over_devices
from jaxcnnbp.train.data.split import Batch
from jaxcnnbp.train.layout import DATA, ONE_DEVICE, Layout
from jaxcnnbp.train.program import Program, predicted_class, scaled_images
from jaxcnnbp.train.step import mean_loss, same_bits

EVALUATION_BATCH = 1000


class Score(NamedTuple):
    """How a model does on a split."""

    loss: float  # mean over the images, without label smoothing
    confusion: np.ndarray  # (classes, classes), int: row = the true class, column = the class given

    @property
    def error(self) -> float:
        """Share of the images that are misclassified."""
        return 1.0 - float(np.trace(self.confusion)) / float(self.confusion.sum())


def make_score(
    program: Program, layout: Layout = ONE_DEVICE, deterministic: bool = False
) -> Callable[[Any, Batch], tuple[jax.Array, jax.Array]]:
    """The jitted function that scores one batch; the arguments are those of `make_step`."""
    return jax.jit(functools.partial(_score_batch, program, layout), compiler_options=same_bits(deterministic))


def evaluate(score: Callable, params: Any, batches: Iterable[Batch]) -> Score:
    """Score batches that hold a whole split; nothing is dropped or counted twice."""
    # Read once all have been sent on their way: the device need not wait for Python.
    parts = [score(params, batch) for batch in batches]
    counted = [(float(loss), np.asarray(confusion)) for loss, confusion in parts]
    confusion = np.sum([confusion for _, confusion in counted], axis=0)
    loss = sum(loss * int(confusion.sum()) for loss, confusion in counted)
    return Score(loss / max(int(confusion.sum()), 1), confusion)


def _score_batch(program: Program, layout: Layout, params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
    if layout.mesh is None or layout.height > 1:
        return _score_rows(program, params, dataclasses.replace(batch, images=layout.cut(lambda a: a, batch.images)))

    def on_device(params: Any, batch: Batch) -> Any:
        loss, confusion = _score_rows(program, params, batch)
        images = confusion.sum().astype(loss.dtype)
        return sum_over_devices((loss * images, confusion.astype(loss.dtype), images), ())

    specs = (PartitionSpec(), PartitionSpec(DATA))
    shared = jax.shard_map(on_device, mesh=layout.mesh, in_specs=specs, out_specs=PartitionSpec())
    loss, confusion, images = shared(params, batch)
    return loss / jnp.maximum(images, 1), jnp.round(confusion).astype(jnp.int32)


def _score_rows(program: Program, params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
    outputs = program.forward(params, scaled_images(program, batch.images))
    targets = jax.nn.one_hot(batch.labels, program.classes, dtype=outputs.dtype)
    count = jnp.int32(1) if batch.weights is None else (batch.weights > 0).astype(jnp.int32)
    counts = jnp.zeros((program.classes, program.classes), jnp.int32)
    confusion = counts.at[batch.labels, predicted_class(outputs)].add(count)
    return mean_loss(program.loss, outputs, targets, batch.weights), confusion
