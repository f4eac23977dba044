"""What a data set is here, two splits of images and labels and how its pixels are scaled; and a batch of one."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from jaxcnnbp.errors import DataError, InputError

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
        validation: the images that the best epoch is chosen by; None if there are none.
        names: what the classes are called; empty if nothing says so.
        notes: sentences on what was left out, or taken for what, when the data were read.
    """

    name: str
    train: Split
    test: Split
    white: int
    classes: int
    validation: Split | None = None
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class _Rows:
    """Some of the images of `Images`."""

    def __init__(self, images: Images, rows: np.ndarray) -> None:
        self._images, self._rows = images, rows
        self.shape = (len(rows), *images.shape[1:])

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        return self._images.read(self._rows[indices])

    def faults(self) -> list[str]:
        return self._images.faults()

    def fingerprint(self) -> str:
        return self._images.fingerprint() + hashlib.blake2b(self._rows.tobytes(), digest_size=8).hexdigest()


def held_out(data: Data, share: float) -> Data:
    """The data set with a share of the training images of every class held out for validation.

    Of each class the images are taken at even distances in their order: no random generator is involved, so that runs
    with other seeds are judged by the same images. A share of 0 leaves the data set as it is.

    Raises:
        InputError: it has such a part already, or the share is too small for a single image.

    Example:
        >>> some = Split(np.zeros((20, 8, 8, 1), np.uint8), np.repeat(np.arange(2, dtype=np.int32), 10))
        >>> held_out(Data("some", some, some, white=255, classes=2), 0.2).validation.labels
        array([0, 0, 1, 1], dtype=int32)
    """
    if not share:
        return data
    if data.validation is not None:
        raise InputError(f"`validation` (={share}) is not needed: {data.name} has a validation part; leave it out.")
    labels = np.asarray(data.train.labels)
    rank = rank_in_class(labels)
    chosen = np.floor((rank + 1) * share + 1e-9) > np.floor(rank * share + 1e-9)
    if not chosen.any() or chosen.all():
        sizes = f"{'none' if not chosen.any() else 'all'} of the {len(labels):,} training images"
        raise InputError(f"`validation` (={share}) holds out {sizes}; choose another share.")
    return dataclasses.replace(data, train=_part(data.train, ~chosen), validation=_part(data.train, chosen))


def _part(split: Split, chosen: np.ndarray) -> Split:
    rows = np.flatnonzero(chosen)
    images = _Rows(split.images, rows) if isinstance(split.images, Images) else np.asarray(split.images)[rows]
    return Split(images, np.asarray(split.labels)[rows])


def require_classes(path: Path, labels: np.ndarray, classes: int, array: str = "") -> None:
    """Refuse labels that are no class; `array` names what holds them, where a file holds several arrays."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        first = f"label {labels[wrong[0]]} at position {wrong[0]:,}{array and f' of `{array}`'}"
        hint = f"; --classes {int(labels.max()) + 1} takes them all" if labels.min() >= 0 else ""
        raise DataError(f"{path}: {first} is outside 0 .. {classes - 1} (`classes` (={classes})){hint}.")


def rank_in_class(labels: np.ndarray) -> np.ndarray:
    """How many earlier elements have the label of each.

    Example:
        >>> rank_in_class(np.array([7, 3, 7, 7]))
        array([0, 0, 1, 2])
    """
    rank = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members] = np.arange(len(members))
    return rank


def read_images(images: Any, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """What `Images.read` gives, of `Images` or of an array in memory."""
    return images.read(indices) if isinstance(images, Images) else (np.asarray(images)[indices], None)


def fingerprint(data: Data) -> str:
    """What tells this data set from others: a checkpoint is resumed only on the data it was made from."""
    digest = hashlib.blake2b(repr((data.white, data.classes)).encode(), digest_size=16)
    for images, labels in filter(None, (data.train, data.test, data.validation)):
        digest.update(repr((images.shape, len(labels))).encode())
        digest.update(np.ascontiguousarray(labels).data)
        own = images.fingerprint().encode() if isinstance(images, Images) else np.ascontiguousarray(images).data
        digest.update(own)
    return digest.hexdigest()


def pixel_statistics(data: Data) -> tuple[float, float]:
    """Mean and standard deviation (1 if it is 0) of all training pixels, scaled to 0 .. 1.

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
