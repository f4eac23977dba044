"""A folder with the four files of MNIST, or of a data set in MNIST's format, IDX: plain or gzip.

    offset 0   00 00 08 nn     nn = number of dimensions; 08 = unsigned bytes
    offset 4   nn sizes of 4 bytes each, big-endian
    then       the product of the sizes, as bytes, the last dimension fastest

Reference: LeCun, Cortes and Burges, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np

from jaxcnnbp.errors import DataError
from jaxcnnbp.train.data.split import Data, Split, require_classes

Found = TypeVar("Found")

_FILE = re.compile(r"(?P<set>.*?)(train|t10k|test)-(images|labels)[-.]idx[13]-ubyte(\.gz)?")
_EMNIST = {"balanced": 47, "byclass": 62, "bymerge": 47, "digits": 10, "letters": 27, "mnist": 10}  # labels from 0


def mnist_folder(folder: Path | str, classes: int = 10) -> Data:
    """Read training and test images and labels, plain or gzip, under MNIST's or EMNIST's file names.

    In `folder` lie `train-images-idx3-ubyte` and its three companions; `.gz` may follow, and a dot may stand for the
    hyphen before `idx`. Where several data sets lie in one folder, as `emnist-letters-train-images-idx3-ubyte` and
    others do, `FOLDER/emnist-letters` chooses one. Labels lie in 0 .. classes - 1, or below EMNIST's own number of
    classes, if that is larger.

    Raises:
        DataError: a file is missing, damaged, or does not match its companion; the sentence names it.

    Example:
        >>> mnist_folder("no/such/folder")
        Traceback (most recent call last):
        jaxcnnbp.errors.DataError: no/such/folder: no such folder.
    """
    home, name = _chosen(Path(folder))
    kind = name.removeprefix("emnist-").rstrip("-.") if name.startswith("emnist-") else ""
    classes = max(classes, _EMNIST.get(kind, 0))
    train, test = _part(home, name, ("train",), classes), _part(home, name, ("t10k", "test"), classes)
    if train.images.shape[1:] != test.images.shape[1:]:
        sizes = ["x".join(map(str, part.images.shape[1:3])) for part in (train, test)]
        raise DataError(f"{home}: the training images are {sizes[0]}, the test images {sizes[1]}.")
    notes = (f"{home}: EMNIST keeps its images with rows and columns exchanged; they are read as they are.",)
    names = _names(home / f"{name}mapping.txt", classes)
    title = name.rstrip("-._") or home.name
    return Data(title, train, test, 255, classes, names=names, notes=notes if kind else ())


def mnist_sets(folder: Path) -> list[str]:
    """What stands before `train-images-idx3-ubyte` in the names of a folder's files: nothing for MNIST itself."""
    found = [_FILE.fullmatch(path.name) for path in folder.iterdir()] if folder.is_dir() else []
    return sorted({match["set"] for match in found if match})


def is_mnist(folder: Path) -> bool:
    """Whether files of MNIST's format lie in a folder, or begin with this path."""
    return bool(mnist_sets(folder)) or any(
        name.rstrip("-._") == folder.name for name in beside(mnist_sets, folder.parent, [])
    )


def beside(look: Callable[[Path], Found], folder: Path, nothing: Found) -> Found:
    """What `look` finds in a folder that nobody asked for: `nothing` where it may not be read."""
    try:
        return look(folder)
    except PermissionError:
        return nothing


def _chosen(folder: Path) -> tuple[Path, str]:
    """The folder, and what the names of the files begin with."""
    if not folder.is_dir():
        around = beside(mnist_sets, folder.parent, [])
        beginnings = [name for name in around if name and name.rstrip("-._") == folder.name]
        if beginnings and not folder.exists():
            return folder.parent, beginnings[0]
        raise DataError(f"{folder}: {'is no folder; --data reads a file' if folder.exists() else 'no such folder'}.")
    names = mnist_sets(folder)
    if len(names) > 1 and "" not in names:
        found = ", ".join(name.rstrip("-._") for name in names)
        choose = f"--data-dir {folder / names[0].rstrip('-._')} chooses one"
        raise DataError(f"{folder}: holds several data sets ({found}); {choose}.")
    return folder, names[0] if names else ""


def _part(folder: Path, name: str, words: tuple[str, ...], classes: int) -> Split:
    stems = [f"{name}{word}" for word in words]
    image_path, label_path = _find(folder, stems, "images", 3), _find(folder, stems, "labels", 1)
    images, labels = read_idx(image_path, rank=3), read_idx(label_path, rank=1)
    _check_images(image_path, images)
    if len(images) != len(labels):
        counts = f"{len(images):,} images, but {label_path.name} {len(labels):,} labels"
        raise DataError(f"{image_path}: holds {counts}; the two files do not belong together.")
    require_classes(label_path, labels, classes)
    return Split(images[..., None], labels.astype(np.int32))


def _find(folder: Path, stems: list[str], kind: str, rank: int) -> Path:
    names = [f"{stem}-{kind}{mark}idx{rank}-ubyte{end}" for stem in stems for end in ("", ".gz") for mark in "-."]
    found = [folder / name for name in names if (folder / name).exists()]
    if not found:
        raise DataError(f"{folder}: holds no file {names[0]} (or {names[0]}.gz).")
    return found[0]


def _names(mapping: Path, classes: int) -> tuple[str, ...]:
    """The classes by EMNIST's own table of them: a label, then the codes of its characters, a line."""
    if not mapping.is_file():
        return ()
    lines = [line.split() for line in mapping.read_text(errors="replace").splitlines()]
    names = {int(line[0]): chr(int(line[1])) for line in lines if len(line) > 1 and all(map(str.isdecimal, line[:2]))}
    return tuple(names.get(label, "") for label in range(classes))


def _check_images(path: Path, images: np.ndarray) -> None:
    count, height, width = images.shape
    if 0 in images.shape:
        raise DataError(f"{path}: holds {count} images of {height}x{width} pixels: nothing to learn from.")
    if height != width:
        raise DataError(f"{path}: its images are {height}x{width}, but square ones are wanted.")


_UNSIGNED_BYTE = 0x08
_GZIP_MAGIC = b"\x1f\x8b"
_BLOCK = 1 << 20  # a header may promise any size: memory grows only with what the file really holds


def read_idx(path: Path | str, rank: int) -> np.ndarray:
    """Read one IDX file of unsigned bytes with `rank` dimensions.

    Whether the file is compressed is read from its first bytes, not from its name.

    Args:
        path: the file.
        rank: number of dimensions it must have: 3 for images, 1 for labels.

    Returns:
        The array, uint8.

    Raises:
        DataError: the file is missing, damaged or of another kind; the sentence names it and the fault.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "labels"
        >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]))
        >>> read_idx(path, rank=1)
        array([7, 9], dtype=uint8)
    """
    path = Path(path)
    try:
        with path.open("rb") as raw:
            packed = raw.peek(2)[:2] == _GZIP_MAGIC
            with gzip.GzipFile(fileobj=raw) if packed else raw as stream:
                return _parse(stream, path, rank)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: its gzip stream is damaged ({error}); fetch the file again.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _parse(stream: BinaryIO | gzip.GzipFile, path: Path, rank: int) -> np.ndarray:
    shape = _header(stream, path, rank)
    expected = math.prod(shape)
    content = _read_at_most(stream, expected + 1)
    if len(content) != expected:
        found = "more" if len(content) > expected else f"{len(content):,}"
        sizes = " x ".join(map(str, shape))
        raise DataError(f"{path}: its header promises {sizes} = {expected:,} bytes, but {found} follow.")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _header(stream: BinaryIO | gzip.GzipFile, path: Path, rank: int) -> tuple[int, ...]:
    magic = stream.read(4)
    if not magic:
        raise DataError(f"{path}: is empty.")
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise DataError(f"{path}: is no IDX file: it starts with {magic.hex(' ')}, not with 00 00.")
    if magic[2] != _UNSIGNED_BYTE:
        raise DataError(f"{path}: holds elements of type 0x{magic[2]:02x}, but only 0x08, bytes, is read.")
    if magic[3] != rank:
        raise DataError(f"{path}: has {magic[3]} dimensions, but {rank} are wanted (images 3, labels 1).")
    sizes = stream.read(4 * rank)
    if len(sizes) < 4 * rank:
        raise DataError(f"{path}: ends inside its header.")
    return struct.unpack(f">{rank}I", sizes)


def _read_at_most(stream: BinaryIO | gzip.GzipFile, count: int) -> bytes:
    blocks = []
    while count > 0 and (block := stream.read(min(count, _BLOCK))):
        blocks.append(block)
        count -= len(block)
    return b"".join(blocks)
