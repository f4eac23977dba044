"""The 1,797 handwritten digits of 8x8 pixels that scikit-learn carries: no network needed."""

from __future__ import annotations

import numpy as np

from jaxcnnbp.errors import require
from jaxcnnbp.train.data.split import Data, Split, rank_in_class

__all__ = ["digits"]

_EVERY = 5  # one image in five of every class is a test image


def digits() -> Data:
    """scikit-learn's digits, `(n, 8, 8, 1)`, split the same way on every machine.

    Of every class each fifth image, counted in file order, is a test image: no random generator is
    involved, so the split cannot change with a library's version.

    Returns:
        1,442 training and 355 test images with values 0 .. 16.

    Raises:
        InputError: scikit-learn is not installed.

    Example:
        >>> digits().test.labels.shape
        (355,)

    Reference: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (the test part).
    """
    source = require("sklearn.datasets", "scikit-learn", "train").load_digits()
    images = source.images[..., None].astype(np.uint8)
    labels = source.target.astype(np.int32)
    test = rank_in_class(labels) % _EVERY == _EVERY - 1
    parts = (Split(images[~test], labels[~test]), Split(images[test], labels[test]))
    return Data("scikit-learn's digits", *parts, white=16, classes=10)
