"""Data sets that scikit-learn brings: the handwritten digits that it carries, OpenML's by name."""

from __future__ import annotations

import math
import warnings

import numpy as np

from jaxcnnbp.errors import DataError, require
from jaxcnnbp.train.data.split import Data, Split, rank_in_class

_EVERY = 5  # one image in five of every class is a test image


def digits() -> Data:
    """scikit-learn's digits, `(n, 8, 8, 1)`, split the same way on every machine.

    Of every class each fifth image, counted in file order, is a test image: no random generator is
    involved, so the split cannot change with a library's version. Values are 0 .. 16.

    Example:
        >>> [len(part.labels) for part in (digits().train, digits().test)]
        [1442, 355]

    Reference: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (the test part).
    """
    source = require("sklearn.datasets", "scikit-learn", "train").load_digits()
    images = source.images[..., None].astype(np.uint8)
    labels = source.target.astype(np.int32)
    test = rank_in_class(labels) % _EVERY == _EVERY - 1
    parts = (Split(images[~test], labels[~test]), Split(images[test], labels[test]))
    return Data("scikit-learn's digits", *parts, white=16, classes=10)


_TEST_SHARE = 7  # MNIST and Fashion-MNIST: the last 10,000 of 70,000


def openml(name: str) -> Data:
    """Download a data set of square grey images from OpenML, for instance `mnist_784`.

    The last seventh of the rows is the test part, which for `mnist_784` and `Fashion-MNIST` is the
    original one. scikit-learn keeps what it downloads in its own cache.

    Raises:
        DataError: the download fails, or its rows are no square images of bytes.
    """
    images, targets = _fetch(name)
    names, labels = np.unique(targets, return_inverse=True)
    images = _as_squares(name, images)
    count = len(images) - len(images) // _TEST_SHARE
    labels = labels.astype(np.int32)
    train, test = Split(images[:count], labels[:count]), Split(images[count:], labels[count:])
    return Data(name, train, test, white=255, classes=len(names), names=tuple(map(str, names)))


def _fetch(name: str) -> tuple[np.ndarray, np.ndarray]:
    datasets = require("sklearn.datasets", "scikit-learn", "train")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "A network error occurred")  # the sentence below says it once
            bunch = datasets.fetch_openml(name, version="active", as_frame=False, parser="liac-arff")
    except (OSError, ValueError) as error:
        reason = str(error).strip().rstrip(".").replace("\n", " ") or type(error).__name__
        hint = "--data digits and --data-dir FOLDER need no network"
        raise DataError(f"OpenML data set {name!r} cannot be fetched: {reason}; {hint}.") from error
    return bunch.data, bunch.target


def _as_squares(name: str, rows: np.ndarray) -> np.ndarray:
    side = math.isqrt(rows.shape[-1])
    if side * side != rows.shape[-1]:
        raise DataError(f"OpenML data set {name!r}: rows of {rows.shape[-1]} values are no square images.")
    if not ((rows >= 0) & (rows <= 255) & (rows == np.round(rows))).all():
        raise DataError(f"OpenML data set {name!r}: its values are no bytes 0 .. 255, so no grey images.")
    return rows.astype(np.uint8).reshape(-1, side, side, 1)
