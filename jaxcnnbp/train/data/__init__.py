"""Labelled images: scikit-learn's digits, MNIST-format files, folders of pictures, `.npz`, OpenML by name."""

from __future__ import annotations

from pathlib import Path

from jaxcnnbp.train.data.arrays import npz_file
from jaxcnnbp.train.data.bundled import digits
from jaxcnnbp.train.data.download import openml
from jaxcnnbp.train.data.folder import mnist_folder
from jaxcnnbp.train.data.idx import read_idx
from jaxcnnbp.train.data.pictures import holds_pictures, picture_folder
from jaxcnnbp.train.data.split import Data, Images, Split, fingerprint, pixel_statistics, read_images
from jaxcnnbp.train.options import Options

__all__ = [
    "Data",
    "Images",
    "Split",
    "digits",
    "fingerprint",
    "load",
    "mnist_folder",
    "npz_file",
    "openml",
    "picture_folder",
    "pixel_statistics",
    "read_idx",
    "read_images",
]


def load(options: Options, workers: int = 4) -> Data:
    """The data set that the options ask for: a folder first, then the bundled digits, a file, then OpenML.

    Args:
        options: `data_dir`, `data`, `classes`, `image_size` and `corrupt` are read.
        workers: threads that decode pictures.

    Returns:
        Training and test images with their labels.

    Raises:
        DataError: a file or a download that cannot be used, named in one sentence.

    Example:
        >>> load(Options(data="digits")).train.images.shape
        (1442, 8, 8, 1)
    """
    if options.data_dir is not None:
        folder = Path(options.data_dir)
        if folder.is_dir() and holds_pictures(folder):
            return picture_folder(folder, options.image_size, options.corrupt, workers)
        return mnist_folder(folder, options.classes)
    if options.data == "digits":
        return digits()
    return npz_file(options.data, options.classes) if options.data.endswith(".npz") else openml(options.data)
