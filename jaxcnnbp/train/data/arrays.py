"""A data set in one `.npz` file, under the names that Keras or MedMNIST give the arrays of their own."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxcnnbp.errors import DataError
from jaxcnnbp.train.data.split import Data, Split, require_classes

ARCHIVE = "a zip archive"
_SAVE = "np.savez(FILE, x_train=..., y_train=..., x_test=..., y_test=...) writes one"
_CHANNELS = (1, 2, 3, 4)


def npz_file(path: Path | str, classes: int = 10) -> Data:
    """Read `x_train`, `y_train`, `x_test` and `y_test` from a `.npz` file, and `x_val`, `y_val` if they are there.

    MedMNIST's names, `train_images`, `train_labels` and so on, are read too. Images are uint8, `(n, height, width)` or
    `(n, height, width, channels)`, labels whole numbers in 0 .. classes - 1, `(n,)` or `(n, 1)`.

    Raises:
        DataError: the file is missing or damaged, or its arrays are others; the sentence names it and the fault.

    Example:
        >>> npz_file("no/such/file.npz")
        Traceback (most recent call last):
        jaxcnnbp.errors.DataError: no/such/file.npz: cannot be read (No such file or directory).
    """
    path = Path(path)
    try:
        if (kind := kind_of(path)) != ARCHIVE:
            raise DataError(f"{path}: is no readable .npz file, but {kind}; {_SAVE}.")
        # Opened here: numpy leaves a file open that turns out not to be an archive.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as arrays:
            train, test = (_part(path, arrays, part, classes) for part in ("train", "test"))
            has_validation = any(_name(arrays, kind, "val") in arrays for kind in "xy")
            validation = _part(path, arrays, "val", classes) if has_validation else None
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except (ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        cut = ", and may have been cut off" if isinstance(error, EOFError | zipfile.BadZipFile) else ""
        raise DataError(f"{path}: is no readable .npz file ({error}){cut}.") from error
    for name, other in (("test", test), ("validation", validation)):
        if other is not None and train.images.shape[1:] != other.images.shape[1:]:
            sizes = ["x".join(map(str, part.images.shape[1:])) for part in (train, other)]
            raise DataError(f"{path}: the training images are {sizes[0]}, the {name} images {sizes[1]}.")
    return Data(path.stem, train, test, white=255, classes=classes, validation=validation)


def _part(path: Path, arrays: Mapping[str, np.ndarray], part: str, classes: int) -> Split:
    x, y = (_name(arrays, kind, part) for kind in "xy")
    images, labels = _array(path, arrays, x), _array(path, arrays, y)
    _check_images(path, x, images)
    if not np.issubdtype(labels.dtype, np.integer) or labels.size != len(images):
        fault = f"`{y}` is {labels.dtype} of shape {labels.shape}"
        hint = "; np.argmax(..., -1) makes them of rows with a one" if labels.ndim == 2 and labels.shape[1] > 1 else ""
        raise DataError(f"{path}: {fault}, but {len(images):,} whole numbers are wanted{hint}.")
    labels = labels.reshape(-1)
    require_classes(path, labels, classes, y)
    return Split(images if images.ndim == 4 else images[..., None], labels.astype(np.int32))


def _check_images(path: Path, name: str, images: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape:
        fault = f"`{name}` is {images.dtype} of shape {images.shape}"
        wanted = "uint8 of (n, height, width) or (n, height, width, channels)"
        raise DataError(f"{path}: {fault}, but {wanted}, none of which is 0, is wanted.")
    if images.ndim == 4 and images.shape[1] in _CHANNELS and images.shape[3] not in _CHANNELS:
        fault = f"`{name}` is of shape {images.shape}, so its channels seem to come first"
        raise DataError(f"{path}: {fault}, but they are wanted last; np.moveaxis({name}, 1, -1) moves them.")


def _name(arrays: Mapping[str, np.ndarray], kind: str, part: str) -> str:
    """The name that an array has in this file, Keras's if it is not there."""
    word = {"x": "images", "y": "labels"}[kind]
    names = [f"{kind}_{part}", f"{kind.upper()}_{part}", f"{part}_{word}"]
    return next((name for name in names if name in arrays), names[0])


def _array(path: Path, arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in arrays:
        found = ", ".join(f"`{other}`" for other in arrays) or "nothing"
        wanted = "wanted are `x_train`, `y_train`, `x_test` and `y_test`"
        raise DataError(f"{path}: holds no array `{name}`, but {found}; {wanted}.")
    try:
        return arrays[name]
    except ValueError as error:
        if "allow_pickle" in str(error):  # NumPy's advice would run whatever the file says
            raise DataError(f"{path}: `{name}` holds Python objects, but numbers are wanted.") from error
        raise


_BEGINNINGS = {
    b"PK\x03\x04": ARCHIVE,
    b"PK\x05\x06": ARCHIVE,
    b"\x93NUMPY": "one NumPy array (.npy), so that labels or images are missing",
    b"\0\0\x08\x03": "the images of a data set in MNIST's format: --data-dir takes the folder of all four files",
    b"\0\0\x08\x01": "the labels of a data set in MNIST's format: --data-dir takes the folder of all four files",
    b"\x1f\x8b": "compressed by gzip",
    b"\x89HDF": "HDF5",
    b"\x89PNG": "one picture: --data-dir takes a folder of them, with a folder for each class",
    b"\xff\xd8\xff": "one picture: --data-dir takes a folder of them, with a folder for each class",
    b"\x80": "a Python pickle",
    b"MATLAB": "a MATLAB file",
    b"PAR1": "a Parquet file",
}


def kind_of(path: Path) -> str:
    """What a file is, in words, by its first bytes; an OSError if it cannot be read."""
    with path.open("rb") as file:
        first = file.read(24)
    if not first:
        return "empty"
    for beginning, kind in _BEGINNINGS.items():
        if first.startswith(beginning):
            return kind
    line = first.decode("ascii", "replace").splitlines()[0]
    if line and line.isprintable() and line.isascii():
        return f'text that begins with "{line}"'
    return f"a file that begins with the bytes {first[:8].hex(' ')}"
