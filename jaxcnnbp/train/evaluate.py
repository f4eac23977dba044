"""Loss and confusion matrix of a split, every image counted once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnnbp.train.data.split import Split
from jaxcnnbp.train.step import Program, predicted_class, read_batch

__all__ = ["Score", "evaluate", "make_score"]

_BATCH = 1000


class Score(NamedTuple):
    """How a model does on a split."""

    loss: float  # mean over the images, without label smoothing
    confusion: np.ndarray  # (classes, classes), int: row = the true class, column = the class given

    @property
    def error(self) -> float:
        """Share of the images that are misclassified."""
        return 1.0 - float(np.trace(self.confusion)) / float(self.confusion.sum())


def make_score(program: Program) -> Callable[[Any, Split, jax.Array], tuple[jax.Array, jax.Array]]:
    """The jitted function that scores one batch.

    Args:
        program: model, loss and scaling.

    Returns:
        Function of parameters, split and indices to the batch's mean loss and confusion counts.
    """
    return jax.jit(functools.partial(_score_batch, program))


def evaluate(score: Callable, params: Any, split: Split, batch: int = _BATCH) -> Score:
    """Score a whole split; its last batch may be smaller, nothing is dropped or counted twice.

    Args:
        score: what `make_score` gave.
        params: parameters of the model.
        split: images and labels on the device.
        batch: images at a time.

    Returns:
        The mean loss and the confusion matrix.
    """
    count = len(split.labels)
    starts = range(0, count, batch)
    batches = [np.arange(start, min(start + batch, count), dtype=np.int32) for start in starts]
    parts = [score(params, split, indices) for indices in batches]
    loss = sum(float(part[0]) * len(indices) for part, indices in zip(parts, batches, strict=True))
    return Score(loss / count, np.sum([np.asarray(part[1]) for part in parts], axis=0))


def _score_batch(program: Program, params: Any, split: Split, indices: jax.Array) -> tuple[jax.Array, jax.Array]:
    images, labels = read_batch(program, split, indices)
    outputs = program.forward(params, images)
    targets = jax.nn.one_hot(labels, program.classes, dtype=outputs.dtype)
    counts = jnp.zeros((program.classes, program.classes), jnp.int32)
    confusion = counts.at[labels, predicted_class(outputs)].add(1)
    return program.loss(outputs, targets), confusion
