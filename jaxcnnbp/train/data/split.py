"""What a data set is here: two splits of images and labels, and how its pixels are scaled."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

__all__ = ["Data", "Images", "Split", "fingerprint", "pixel_statistics", "read_images"]

_AT_A_TIME = 256  # images that are read at once where not all fit in memory


@runtime_checkable
class Images(Protocol):
    """Images that are read when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """`(n, height, width, channels)`."""
        ...

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The images at `indices`, uint8, and which of them could be read as 1.0 and 0.0; None if all must be."""
        ...

    def faults(self) -> list[str]:
        """Sentences about images that could not be read, each given once."""
        ...

    def fingerprint(self) -> str:
        """What tells these images from others."""
        ...


class Split(NamedTuple):
    """Images with their classes, on the host or on a device."""

    images: Any  # (n, height, width, channels), uint8 as stored: an array, or `Images`
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


def read_images(images: Any, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Images at the given indices, from memory or from where they lie.

    Args:
        images: an array, or `Images`.
        indices: `(rows,)`, whole numbers.

    Returns:
        `(rows, height, width, channels)` and, where unreadable images are skipped, `(rows,)` of 1 and 0.

    Raises:
        DataError: an image cannot be read and is not to be skipped.
    """
    return images.read(indices) if isinstance(images, Images) else (np.asarray(images)[indices], None)


def fingerprint(data: Data) -> str:
    """What tells this data set from others: a checkpoint is resumed only on the data it was made from.

    Args:
        data: the data set.

    Returns:
        A short text of hexadecimal digits.
    """
    digest = hashlib.blake2b(repr((data.white, data.classes)).encode(), digest_size=16)
    for images, labels in (data.train, data.test):
        digest.update(repr((images.shape, len(labels))).encode())
        digest.update(np.ascontiguousarray(labels).data)
        own = images.fingerprint().encode() if isinstance(images, Images) else np.ascontiguousarray(images).data
        digest.update(own)
    return digest.hexdigest()


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
    counts = np.zeros(256, np.int64)
    for start in range(0, len(data.train.labels), _AT_A_TIME):
        rows = np.arange(start, min(start + _AT_A_TIME, len(data.train.labels)))
        pixels, readable = read_images(data.train.images, rows)
        kept = pixels if readable is None else pixels[readable > 0]
        counts += np.bincount(kept.ravel(), minlength=256)
    values = np.arange(256) / data.white
    mean = float(np.average(values, weights=counts))
    deviation = float(np.sqrt(np.average((values - mean) ** 2, weights=counts)))
    return mean, deviation or 1.0
