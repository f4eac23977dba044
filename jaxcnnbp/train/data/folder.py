"""A folder with the four files of MNIST, or of a data set in MNIST's format."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxcnnbp.train.data.idx import read_idx
from jaxcnnbp.train.data.split import Data, Split
from jaxcnnbp.train.errors import DataError

__all__ = ["mnist_folder"]

_PARTS = {"train": "train", "test": "t10k"}


def mnist_folder(folder: Path | str, classes: int = 10) -> Data:
    """Read `train-` and `t10k-` images and labels, plain or gzip, under MNIST's file names.

    Args:
        folder: where `train-images-idx3-ubyte` and its three companions lie; `.gz` may follow, and a
            dot may stand for the hyphen before `idx`.
        classes: labels must lie in 0 .. classes - 1.

    Returns:
        The data set, images `(n, size, size, 1)` of uint8.

    Raises:
        DataError: a file is missing, damaged, or does not match its companion; the sentence names it.

    Example:
        >>> mnist_folder("no/such/folder")
        Traceback (most recent call last):
        jaxcnnbp.train.errors.DataError: no/such/folder: no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: {'is no folder' if folder.exists() else 'no such folder'}.")
    train, test = (_part(folder, prefix, classes) for prefix in _PARTS.values())
    if train.images.shape[1:] != test.images.shape[1:]:
        sizes = ["x".join(map(str, part.images.shape[1:3])) for part in (train, test)]
        raise DataError(f"{folder}: the training images are {sizes[0]}, the test images {sizes[1]}.")
    return Data(folder.name, train, test, white=255, classes=classes)


def _part(folder: Path, prefix: str, classes: int) -> Split:
    image_path, label_path = _find(folder, f"{prefix}-images", 3), _find(folder, f"{prefix}-labels", 1)
    images, labels = read_idx(image_path, rank=3), read_idx(label_path, rank=1)
    _check_images(image_path, images)
    if len(images) != len(labels):
        counts = f"{len(images):,} images, but {label_path.name} {len(labels):,} labels"
        raise DataError(f"{image_path}: holds {counts}; the two files do not belong together.")
    _check_labels(label_path, labels, classes)
    return Split(images[..., None], labels.astype(np.int32))


def _find(folder: Path, stem: str, rank: int) -> Path:
    names = [f"{stem}{mark}idx{rank}-ubyte{end}" for end in ("", ".gz") for mark in "-."]
    found = [folder / name for name in names if (folder / name).exists()]
    if not found:
        raise DataError(f"{folder}: holds no file {names[0]} (or {names[0]}.gz).")
    return found[0]


def _check_images(path: Path, images: np.ndarray) -> None:
    count, height, width = images.shape
    if 0 in images.shape:
        raise DataError(f"{path}: holds {count} images of {height}x{width} pixels: nothing to learn from.")
    if height != width:
        raise DataError(f"{path}: its images are {height}x{width}, but square ones are wanted.")


def _check_labels(path: Path, labels: np.ndarray, classes: int) -> None:
    wrong = np.flatnonzero(labels >= classes)
    if len(wrong):
        first = f"label {labels[wrong[0]]} at position {wrong[0]:,}"
        raise DataError(f"{path}: {first} is outside 0 .. {classes - 1} (`classes` (={classes})).")
