"""A folder of pictures, one folder a class, decoded when a batch asks for them.

FOLDER/train/CLASS/*.png        FOLDER/test/CLASS/*.png        FOLDER/val/CLASS/*.png
FOLDER/CLASS/*.png              (then every fifth picture of a class, in the order of names, is a test picture)

Without `test`, as in ImageNet, `val` is the test part; beside it, it is the validation part.

Every mode of Pillow is read by its own range and the right way up, or refused by its name:

1, L, P, RGB, CMYK, YCbCr, HSV ...   8 bits a channel, converted by Pillow; alpha is left out, and named
I;16 (PNG, TIFF), I of PGM           0 .. 65535; a TIFF of 12 bits 0 .. 4095
F (TIFF, PFM)                        0 .. 1; other values are refused, as no file says what is white
I of 32 bits, LAB                    refused
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import re
import struct
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcnnbp.errors import DataError, require
from jaxcnnbp.train.data.split import Data, Split
from jaxcnnbp.train.data.tree import Labelled, picture_tree


class Pictures:
    """Pictures of one size that are decoded when they are asked for, by several threads, in the order asked for.

    Args:
        paths: the files.
        size: `(height, width)`.
        mode: Pillow's mode, "L" for grey or "RGB".
        skip: whether a picture that cannot be read counts for nothing; otherwise it ends the run.
        resize: whether pictures of another size are resized; otherwise they cannot be read.
        workers: threads.
        told: what sentences were about already, shared by the parts of a data set.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        size: tuple[int, int],
        mode: str,
        skip: bool,
        resize: bool,
        workers: int,
        told: set[str] | None = None,
    ) -> None:
        require("PIL.Image", "Pillow", "train")
        self._paths, self._mode, self._skip, self._resize = tuple(paths), mode, skip, resize
        self.shape = (len(self._paths), *size, 1 if mode == "L" else 3)
        self._pool = concurrent.futures.ThreadPoolExecutor(workers, "decode")
        self._lock, self._told, self._new = threading.Lock(), set[str]() if told is None else told, list[str]()

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The pictures at `indices`, uint8, and which of them could be read where unreadable ones are skipped.

        Raises:
            DataError: a picture cannot be read; names the file and the reason.
        """
        chosen = [self._paths[index] for index in indices]
        found = list[np.ndarray | None]()
        for picture, faults in self._pool.map(self._read_one, chosen):
            for about, sentence in faults:  # in the order of the pictures, whichever was read first
                self._tell(about, sentence)
            found.append(picture)
        blank = np.zeros(self.shape[1:], np.uint8)
        pixels = np.stack([blank if picture is None else picture for picture in found] or [blank])[: len(chosen)]
        if not self._skip:
            return pixels, None
        return pixels, np.array([picture is not None for picture in found], np.float32)

    def faults(self) -> list[str]:
        """Sentences about pictures that could not be read, or not all of them, each given once."""
        with self._lock:
            new, self._new = self._new, []
        return new

    def fingerprint(self) -> str:
        """Names and sizes of the files: reading them all would take as long as an epoch."""
        digest = hashlib.blake2b(digest_size=16)
        for path in self._paths:
            digest.update(os.fsencode(f"{path.parent.name}/{path.name} {_size(path)}\n"))
        return digest.hexdigest()

    def _read_one(self, path: Path) -> tuple[np.ndarray | None, list[tuple[str, str]]]:
        """The picture, None if it is skipped; and what there is to tell, beside what it is about."""
        try:
            picture = decode(path)
            pixels = _fitted(picture, path, self.shape, self._mode, self._resize)
        except DataError as error:
            if not self._skip:
                raise _with_way_out(error) from error
            return None, [(str(path), f"{str(error).rstrip('.')}; it is skipped.")]
        colour = () if picture.grey or self._mode == "RGB" else ("colour, as the first picture is grey",)
        kinds = (*picture.left_out, *colour)
        return pixels, [(kind, f"{path}: left out are its {kind}, and so those of others like it.") for kind in kinds]

    def _tell(self, about: str, sentence: str) -> None:
        with self._lock:
            if about not in self._told:
                self._told.add(about)
                self._new.append(sentence)


def _size(path: Path) -> int:
    """Bytes of a file, -1 of one that is not there or not to be seen."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def picture_folder(folder: Path | str, size: int | None = None, corrupt: str = "stop", workers: int = 4) -> Data:
    """A data set of pictures, a folder a class; classes are numbered in the order of their names.

    Pictures are resized to `size`, or must be as large as the first, and are grey if the first is. An unreadable one
    ends the run (`corrupt="stop"`) or counts for nothing (`"skip"`).

    Raises:
        DataError: no pictures, or classes that differ between training and test.
    """
    folder = Path(folder)
    tree = picture_tree(folder)
    first = _first([path for path, _ in tree.train], corrupt == "skip")
    shape = first.image.size[::-1] if size is None else (size, size)
    told = set[str]()  # of what was told: once for all parts

    def split(part: Labelled) -> Split:
        paths = [path for path, _ in part]
        pictures = Pictures(paths, shape, first.image.mode, corrupt == "skip", size is not None, workers, told)
        return Split(pictures, np.array([label for _, label in part], np.int32))

    validation = split(tree.validation) if tree.validation else None
    parts = split(tree.train), split(tree.test)
    return Data(folder.name, *parts, 255, len(tree.names), validation, tree.names, tree.notes)


def _first(paths: list[Path], skip: bool) -> Picture:
    """The first picture that can be read: it says the size, and whether all are grey."""
    fault = DataError("there is no picture")
    for path in paths if skip else paths[:1]:
        try:
            return decode(path)
        except DataError as error:
            fault = error
    raise fault if skip else _with_way_out(fault)


def _with_way_out(fault: DataError) -> DataError:
    return DataError(f"{str(fault).rstrip('.')}; --corrupt skip leaves such pictures out.")


def _fitted(picture: Picture, path: Path, shape: tuple[int, ...], mode: str, resize: bool) -> np.ndarray:
    height, width = shape[1:3]
    image: Any = picture.image if picture.image.mode == mode else picture.image.convert(mode)
    if resize and image.size != (width, height):
        image = image.resize((width, height), require("PIL.Image", "Pillow", "train").Resampling.BILINEAR)
    if image.size != (width, height):
        found = f"is {image.size[1]}x{image.size[0]}, where the first picture is {height}x{width}"
        raise DataError(f"{path}: {found}; --image-size makes them alike.")
    return np.asarray(image, np.uint8).reshape(shape[1:])


_GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")
_SIXTEEN_BITS = ("PNG", "PPM")  # formats whose mode I is 16 bits in a wider type
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF
_FORMAT, _SIGNED, _MORE_SAMPLES, _UNNAMED = 339, 2, 338, 0
_MALFORMED = (OSError, EOFError, ValueError, SyntaxError, TypeError, KeyError, IndexError, RuntimeError, struct.error)


class Picture(NamedTuple):
    """A decoded picture."""

    image: Any  # Pillow's, of mode "L" or "RGB", upright
    left_out: tuple[str, ...]  # what the file holds beside it

    @property
    def grey(self) -> bool:
        """Whether it has one channel."""
        return self.image.mode == "L"


def decode(path: Path) -> Picture:
    """The first frame of a picture; DataError if it cannot be decoded, or its values have no range one could know."""
    library, operations = require("PIL.Image", "Pillow", "train"), require("PIL.ImageOps", "Pillow", "train")
    try:
        # From an open file: of a path Pillow would map a TIFF's pixels, and by its size after it is turned.
        with path.open("rb") as raw, library.open(raw) as picture:
            picture.load()
            if picture.mode in ("L", "RGB") and _SIGNED in _tag(picture, _FORMAT):
                raise DataError(f"{path}: holds whole numbers with a sign; save it with 8 or 16 bits without one.")
            more = ("further channels",) if _UNNAMED in _tag(picture, _MORE_SAMPLES) else ()
            frames = ("frames after the first",) if getattr(picture, "is_animated", False) else ()
            alpha = ("transparency",) if _is_transparent(picture) else ()
            return Picture(_eight_bits(library, path, picture, _upright(operations, picture)), frames + alpha + more)
    except DataError:
        raise
    except (*_MALFORMED, library.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be decoded ({_reason(error, path)}).") from error


def _tag(picture: Any, number: int) -> tuple[Any, ...]:
    """The values of a tag, none where the picture is no TIFF or has no such tag."""
    value = getattr(picture, "tag_v2", {}).get(number, ())
    return value if isinstance(value, tuple) else (value,)


def _upright(operations: Any, picture: Any) -> Any:
    """The picture turned as its EXIF entry says; an entry that cannot be read says nothing."""
    try:
        return operations.exif_transpose(picture)
    except _MALFORMED:
        return picture


def _is_transparent(picture: Any) -> bool:
    if picture.mode in ("RGBA", "LA", "PA"):
        return picture.getchannel("A").getextrema()[0] < 255
    shares = picture.info.get("transparency")
    opaque = isinstance(shares, bytes) and set(shares) <= {255}  # of a palette's colours
    return picture.mode in ("RGBa", "La") or (shares is not None and not opaque)


def _eight_bits(library: Any, path: Path, opened: Any, picture: Any) -> Any:
    """The upright picture in mode "L" or "RGB"; the opened file says what its values mean."""
    mode = picture.mode
    if mode == "F" or mode.startswith("I"):
        return library.fromarray(_scaled(path, opened, np.asarray(picture)))
    if mode == "LAB":
        raise DataError(f"{path}: is of mode LAB, which is not read; save it as 8-bit grey or RGB.")
    if mode in ("La", "RGBa", "PA"):  # by way of what Pillow converts
        picture = picture.convert("LA" if mode == "La" else "RGBA")
    if mode == "P" and "transparency" in picture.info:  # Pillow warns of another way
        picture = picture.convert("RGBA")
    return picture.convert("L" if mode in _GREY else "RGB")


def _scaled(path: Path, opened: Any, values: np.ndarray) -> np.ndarray:
    """Values of more than 8 bits, or floats, on 0 .. 255."""
    white = 1.0 if opened.mode == "F" else _integer_white(path, opened)
    shares = values.astype(np.float64) / white
    low, high = float(shares.min(initial=0.0)), float(shares.max(initial=0.0))
    if not (low >= 0 and high <= 1):  # a NaN is neither
        span = f"{low:g} to {high:g}" if np.isfinite(low + high) else "that are not finite"
        raise DataError(f"{path}: holds floats {span} (mode F), but 0 .. 1 is wanted; scale them first.")
    if _WHITE_IS_ZERO in _tag(opened, _PHOTOMETRIC):  # Pillow turns such pictures round up to 8 bits alone
        shares = 1 - shares
    return np.round(255 * shares).astype(np.uint8)


def _integer_white(path: Path, opened: Any) -> int:
    """The value of white: the largest of as many bits as the file has."""
    if (opened.mode == "I" and opened.format not in _SIXTEEN_BITS) or opened.format == "FITS":
        fault = f"holds whole numbers of no known range (mode {opened.mode} of {opened.format})"
        raise DataError(f"{path}: {fault}; save it with 8 bits, or 16 without a sign.")
    bits = _tag(opened, _BITS) or (16,)
    return 2 ** int(bits[0]) - 1


def _reason(error: BaseException, path: Path) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return re.sub(r"<_io\.\w+ name=.*>", "it", text.replace(repr(str(path)), "it")).replace("\n", " ").rstrip(".")
