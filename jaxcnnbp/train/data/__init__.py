"""Labelled images: scikit-learn's digits, MNIST-format files, folders of pictures, `.npz`, OpenML by name."""

from __future__ import annotations

import os
from pathlib import Path

from jaxcnnbp.errors import DataError
from jaxcnnbp.train.data.arrays import ARCHIVE, kind_of, npz_file
from jaxcnnbp.train.data.mnist import is_mnist, mnist_folder
from jaxcnnbp.train.data.pictures import picture_folder
from jaxcnnbp.train.data.scikit import digits, openml
from jaxcnnbp.train.data.split import Data
from jaxcnnbp.train.data.tree import holds_pictures, what_is_wanted
from jaxcnnbp.train.options import Options

_FILES = frozenset((".npz", ".npy", ".csv", ".tsv", ".txt", ".h5", ".hdf5", ".mat", ".pkl", ".parquet", ".zip", ".gz"))


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
    if options.data == "digits" and options.data_dir is None:
        return digits()
    try:
        local = _local(options, workers)
    except OSError as error:  # from any of the folders and files that are looked into
        hint = "; give yourself the right to read it" if isinstance(error, PermissionError) else ""
        place = error.filename or options.data_dir or options.data
        raise DataError(f"{place}: cannot be read ({error.strerror}){hint}.") from error
    return openml(options.data) if local is None else local


def _local(options: Options, workers: int) -> Data | None:
    """What is on this machine, None for the name of a data set."""
    if options.data_dir is not None:
        return _folder(Path(options.data_dir).expanduser(), options, workers)
    path = Path(options.data).expanduser()
    if path.is_dir():
        return _folder(path, options, workers)
    if path.suffix.lower() in _FILES or path.is_file() or os.path.dirname(options.data):
        return _file(path, options.classes)
    return None


def _folder(folder: Path, options: Options, workers: int) -> Data:
    if is_mnist(folder) or not folder.is_dir():
        return mnist_folder(folder, options.classes)
    if holds_pictures(folder):
        return picture_folder(folder, options.image_size, options.corrupt, workers)
    raise DataError(what_is_wanted(folder))


def _file(path: Path, classes: int) -> Data:
    if path.suffix.lower() != ".npz" and path.is_file() and (kind := kind_of(path)) != ARCHIVE:
        raise DataError(f"{path}: is {kind}; wanted is a .npz file with `x_train`, `y_train`, `x_test` and `y_test`.")
    return npz_file(path, classes)
