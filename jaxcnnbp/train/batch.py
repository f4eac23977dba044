"""A batch as the step takes it: images, labels, and what each image counts."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from jaxcnnbp.train.data.split import Split

__all__ = ["Batch", "take_batch"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """Images of one step.

    Args:
        images: `(rows, height, width, channels)`, uint8 as stored.
        labels: `(rows,)`, int32.
        weights: `(rows,)`, float32: 1 for an image, 0 for a row that fills up the batch or could not be read;
            None if every row is an image.
        stop: `(devices,)`, float32: more than 0 where a process was asked to stop; None in a run of one process.
        count: images of the batch before it was filled up; known when the step is compiled.
    """

    images: Any
    labels: Any
    weights: Any = None
    stop: Any = None
    count: int = dataclasses.field(default=0, metadata={"static": True})


def take_batch(split: Split, indices: np.ndarray) -> Batch:
    """The images `indices` of a split as a batch of a run on one device.

    Args:
        split: images and labels on the host.
        indices: `(rows,)`, whole numbers.

    Returns:
        The batch.

    Example:
        >>> split = Split(np.zeros((4, 8, 8, 1), np.uint8), np.arange(4, dtype=np.int32))
        >>> take_batch(split, np.array([3, 1])).labels
        array([3, 1], dtype=int32)
    """
    return Batch(split.images[indices], split.labels[indices], count=len(indices))
