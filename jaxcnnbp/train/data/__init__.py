"""Labelled images: scikit-learn's digits, folders of MNIST-format files, OpenML by name."""

from __future__ import annotations

from jaxcnnbp.train.data.bundled import digits
from jaxcnnbp.train.data.download import openml
from jaxcnnbp.train.data.folder import mnist_folder
from jaxcnnbp.train.data.idx import read_idx
from jaxcnnbp.train.data.split import Data, Images, Split, fingerprint, pixel_statistics, read_images
from jaxcnnbp.train.options import Options

__all__ = ["Data", "Split", "digits", "load", "mnist_folder", "openml", "pixel_statistics", "read_idx"]


def load(options: Options, workers: int = 4) -> Data:
    """The data set that the options ask for: a folder first, then the bundled digits, then OpenML.

    Args:
        options: `data_dir`, `data` and `classes` are read.

    Returns:
        Training and test images with their labels.

    Raises:
        DataError: a file or a download that cannot be used, named in one sentence.

    Example:
        >>> load(Options(data="digits")).train.images.shape
        (1442, 8, 8, 1)
    """
    if options.data_dir is not None:
        return mnist_folder(options.data_dir, options.classes)
    return digits() if options.data == "digits" else openml(options.data)
