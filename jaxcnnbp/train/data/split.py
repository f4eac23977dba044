"""What a data set is here: two splits of images and labels, and how its pixels are scaled."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import numpy as np

__all__ = ["Data", "Split", "pixel_statistics"]


class Split(NamedTuple):
    """Images with their classes, on the host or on a device."""

    images: np.ndarray | jax.Array  # (n, height, width, channels), uint8 as stored
    labels: np.ndarray | jax.Array  # (n,), int32, 0 .. classes - 1


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set with a training and a test part.

    Args:
        name: how records and pictures call it.
        train: the images to learn from.
        test: the images that are only ever evaluated.
        white: the stored value that means 1.0.
        classes: number of classes.
    """

    name: str
    train: Split
    test: Split
    white: int
    classes: int


def pixel_statistics(data: Data) -> tuple[float, float]:
    """Mean and standard deviation of all training pixels, scaled to 0 .. 1.

    Args:
        data: the data set; only its training images are read.

    Returns:
        The mean and the standard deviation; 1 stands in for a standard deviation of 0.

    Example:
        >>> flat = Split(np.full((1, 2, 2, 1), 16, np.uint8), np.zeros(1, np.int32))
        >>> pixel_statistics(Data("flat", flat, flat, white=16, classes=1))
        (1.0, 1.0)
    """
    counts = np.bincount(np.asarray(data.train.images).ravel(), minlength=256)
    values = np.arange(256) / data.white
    mean = float(np.average(values, weights=counts))
    deviation = float(np.sqrt(np.average((values - mean) ** 2, weights=counts)))
    return mean, deviation or 1.0
