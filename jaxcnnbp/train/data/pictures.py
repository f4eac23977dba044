"""A folder of pictures, one folder a class, decoded when a batch asks for them.

FOLDER/train/CLASS/*.png        FOLDER/test/CLASS/*.png
FOLDER/CLASS/*.png              (then every fifth picture of a class, in the order of names, is a test picture)
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnnbp.train.data.split import Data, Split
from jaxcnnbp.train.errors import DataError, require

__all__ = ["PICTURES", "Pictures", "holds_pictures", "picture_folder"]

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
_EVERY = 5  # one picture in five of every class is a test picture where the folders do not say


class Pictures:
    """Pictures of one size that are decoded when they are asked for, by several threads, in the order asked for.

    Args:
        paths: the files.
        size: `(height, width)`.
        mode: Pillow's mode, "L" for grey or "RGB".
        skip: whether a picture that cannot be read counts for nothing; otherwise it ends the run.
        resize: whether pictures of another size are resized; otherwise they cannot be read.
        workers: threads.
    """

    def __init__(
        self, paths: Sequence[Path], size: tuple[int, int], mode: str, skip: bool, resize: bool, workers: int
    ) -> None:
        self._library = require("PIL.Image", "Pillow", "train")
        self._paths, self._mode, self._skip, self._resize = tuple(paths), mode, skip, resize
        self.shape = (len(self._paths), *size, 1 if mode == "L" else 3)
        self._pool = concurrent.futures.ThreadPoolExecutor(workers, "decode")
        self._lock, self._told, self._new = threading.Lock(), set[Path](), list[str]()

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The pictures at `indices`, uint8, and which of them could be read where unreadable ones are skipped.

        Raises:
            DataError: a picture cannot be read; names the file and the reason.
        """
        chosen = [self._paths[index] for index in indices]
        found = list(self._pool.map(self._read_one, chosen))
        blank = np.zeros(self.shape[1:], np.uint8)
        pixels = np.stack([blank if picture is None else picture for picture in found] or [blank])[: len(chosen)]
        if not self._skip:
            return pixels, None
        return pixels, np.array([picture is not None for picture in found], np.float32)

    def faults(self) -> list[str]:
        """Sentences about pictures that could not be read, each given once."""
        with self._lock:
            new, self._new = self._new, []
        return new

    def fingerprint(self) -> str:
        """Names and sizes of the files: reading them all would take as long as an epoch."""
        digest = hashlib.blake2b(digest_size=16)
        for path in self._paths:
            digest.update(f"{path.parent.name}/{path.name} {path.stat().st_size}\n".encode())
        return digest.hexdigest()

    def _read_one(self, path: Path) -> np.ndarray | None:
        try:
            return _decoded(self._library, path, self.shape, self._mode, self._resize)
        except DataError as error:
            if not self._skip:
                raise
            with self._lock:
                if path not in self._told:
                    self._told.add(path)
                    self._new.append(f"{str(error).rstrip('.')}; it is skipped.")
            return None


def holds_pictures(folder: Path) -> bool:
    """Whether a folder has folders of pictures in it.

    Args:
        folder: the folder.

    Returns:
        True if it has `train` and `test`, or a folder with a picture.
    """
    parts = [part for part in folder.iterdir() if part.is_dir()]
    return {"train", "test"} <= {part.name for part in parts} or any(map(_pictures_in, parts))


def picture_folder(folder: Path | str, size: int | None = None, corrupt: str = "stop", workers: int = 4) -> Data:
    """A data set of pictures, a folder a class; classes are numbered in the order of their names.

    Args:
        folder: with `train` and `test`, which hold a folder for each class, or with these folders themselves.
        size: side that pictures are resized to; None takes the size of the first and wants all alike.
        corrupt: whether an unreadable picture ends the run (`"stop"`) or counts for nothing (`"skip"`).
        workers: threads that decode.

    Returns:
        The data set; its images are read when they are asked for, grey if the first picture is.

    Raises:
        DataError: no pictures, or classes that differ between training and test.
        InputError: Pillow is not installed.
    """
    folder = Path(folder)
    classes, train, test = _parts(folder)
    library = require("PIL.Image", "Pillow", "train")
    mode, found = _kind_of_first(library, [path for path, _ in train], corrupt == "skip")
    shape = (size, size) if size is not None else found

    def split(part: list[tuple[Path, int]]) -> Split:
        paths = [path for path, _ in part]
        pictures = Pictures(paths, shape, mode, corrupt == "skip", size is not None, workers)
        return Split(pictures, np.array([label for _, label in part], np.int32))

    return Data(folder.name, split(train), split(test), white=255, classes=len(classes))


def _parts(folder: Path) -> tuple[list[str], list[tuple[Path, int]], list[tuple[Path, int]]]:
    """Names of the classes, and the files of both parts with their labels."""
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        classes, other = (_classes(folder / part) for part in ("train", "test"))
        if classes != other:
            odd = sorted({*classes} ^ {*other})[0]
            raise DataError(f"{folder}: class {odd!r} is in only one of train and test.")
        return classes, _labelled(folder / "train", classes), _labelled(folder / "test", classes)
    classes, train, test = _classes(folder), [], []
    for label, name in enumerate(classes):
        for rank, path in enumerate(_pictures_in(folder / name)):
            (test if rank % _EVERY == _EVERY - 1 else train).append((path, label))
    if not train or not test:
        raise DataError(f"{folder}: holds too few pictures to keep every fifth of a class for the test.")
    return classes, train, test


def _classes(folder: Path) -> list[str]:
    classes = sorted(part.name for part in folder.iterdir() if part.is_dir() and _pictures_in(part))
    if not classes:
        raise DataError(f"{folder}: holds no folder with pictures ({', '.join(PICTURES)}).")
    return classes


def _labelled(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    return [(path, label) for label, name in enumerate(classes) for path in _pictures_in(folder / name)]


def _pictures_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)


def _kind_of_first(library: Any, paths: list[Path], skip: bool) -> tuple[str, tuple[int, int]]:
    """Mode and size of the first picture that can be opened."""
    fault = DataError("there is no picture")
    for path in paths if skip else paths[:1]:
        try:
            return _opened(library, path)
        except DataError as error:
            fault = error
    raise fault


def _opened(library: Any, path: Path) -> tuple[str, tuple[int, int]]:
    try:
        with library.open(path) as picture:
            width, height = picture.size
            return ("L" if picture.mode in ("1", "L", "I;16") else "RGB"), (height, width)
    except (OSError, ValueError, SyntaxError, library.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be decoded ({_reason(error, path)}).") from error


def _decoded(library: Any, path: Path, shape: tuple[int, ...], mode: str, resize: bool) -> np.ndarray:
    height, width = shape[1:3]
    try:
        with library.open(path) as picture:
            decoded = picture.convert(mode)
            if resize and decoded.size != (width, height):
                decoded = decoded.resize((width, height), library.Resampling.BILINEAR)
            pixels = np.asarray(decoded, np.uint8)
    except (OSError, ValueError, SyntaxError, library.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be decoded ({_reason(error, path)}).") from error
    if pixels.shape[:2] != (height, width):
        found = f"is {pixels.shape[0]}x{pixels.shape[1]}, where the first picture is {height}x{width}"
        raise DataError(f"{path}: {found}; --image-size makes them alike.")
    return pixels.reshape(shape[1:])


def _reason(error: BaseException, path: Path) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.replace(repr(str(path)), "it").replace("\n", " ").rstrip(".")
