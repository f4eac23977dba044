"""A data set in one `.npz` file, under the names that Keras gives the arrays of its own."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from jaxcnnbp.train.data.split import Data, Split
from jaxcnnbp.train.errors import DataError

__all__ = ["npz_file"]


def npz_file(path: Path | str, classes: int = 10) -> Data:
    """Read `x_train`, `y_train`, `x_test` and `y_test` from a `.npz` file.

    Args:
        path: the file; images `(n, height, width)` or `(n, height, width, channels)` of uint8, labels `(n,)` or
            `(n, 1)` of whole numbers.
        classes: labels must lie in 0 .. classes - 1.

    Returns:
        The data set.

    Raises:
        DataError: the file is missing or damaged, or its arrays are others; the sentence names it and the fault.

    Example:
        >>> npz_file("no/such/file.npz")
        Traceback (most recent call last):
        jaxcnnbp.train.errors.DataError: no/such/file.npz: cannot be read (No such file or directory).
    """
    path = Path(path)
    train, test = (_part(path, part, classes) for part in ("train", "test"))
    if train.images.shape[1:] != test.images.shape[1:]:
        sizes = ["x".join(map(str, part.images.shape[1:])) for part in (train, test)]
        raise DataError(f"{path}: the training images are {sizes[0]}, the test images {sizes[1]}.")
    return Data(path.stem, train, test, white=255, classes=classes)


def _part(path: Path, part: str, classes: int) -> Split:
    images, labels = _array(path, f"x_{part}"), _array(path, f"y_{part}")
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape:
        fault = f"`x_{part}` is {images.dtype} of shape {images.shape}"
        raise DataError(f"{path}: {fault}, but uint8 of (n, height, width) or (n, height, width, channels) is wanted.")
    if not np.issubdtype(labels.dtype, np.integer) or labels.size != len(images):
        fault = f"`y_{part}` is {labels.dtype} of shape {labels.shape}"
        raise DataError(f"{path}: {fault}, but {len(images):,} whole numbers are wanted.")
    labels = labels.reshape(-1)
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        first = f"label {labels[wrong[0]]} at position {wrong[0]:,} of `y_{part}`"
        raise DataError(f"{path}: {first} is outside 0 .. {classes - 1} (`classes` (={classes})).")
    return Split(images if images.ndim == 4 else images[..., None], labels.astype(np.int32))


def _array(path: Path, name: str) -> np.ndarray:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            return file[name]
    except KeyError as error:
        raise DataError(f"{path}: holds no array `{name}`.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except (ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise DataError(f"{path}: is no readable .npz file ({error}).") from error
