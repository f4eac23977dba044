"""One picture file as bytes: every mode of Pillow by its own range and the right way up, or refused by its name.

1, L, P, RGB, CMYK, YCbCr, HSV ...   8 bits a channel, converted by Pillow; alpha is left out, and named
I;16 (PNG, TIFF), I of PGM           0 .. 65535; a TIFF of 12 bits 0 .. 4095
F (TIFF, PFM)                        0 .. 1; other values are refused, as no file says what is white
I of 32 bits, LAB                    refused
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxcnnbp.errors import DataError, require

__all__ = ["Picture", "decode", "picture_suffixes"]

_GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")
_SIXTEEN_BITS = ("PNG", "PPM")  # formats whose mode I is 16 bits in a wider type
_STUBS = ("BUFR", "GRIB", "HDF5", "MPEG", "WMF")  # which Pillow knows by name and cannot decode
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF
_MALFORMED = (OSError, ValueError, SyntaxError, TypeError, KeyError, IndexError, struct.error)


class Picture(NamedTuple):
    """A decoded picture."""

    image: Any  # Pillow's, of mode "L" or "RGB", upright
    left_out: tuple[str, ...]  # what the file holds beside it

    @property
    def grey(self) -> bool:
        """Whether it has one channel."""
        return self.image.mode == "L"


def decode(path: Path) -> Picture:
    """Read the first frame of a picture.

    Args:
        path: the file.

    Returns:
        The picture as 8-bit grey or RGB.

    Raises:
        DataError: it cannot be decoded, or its values have no range that one could know.
        InputError: Pillow is not installed.
    """
    library, operations = require("PIL.Image", "Pillow", "train"), require("PIL.ImageOps", "Pillow", "train")
    try:
        with library.open(path) as picture:
            picture.load()
            frames = ("frames after the first",) if getattr(picture, "is_animated", False) else ()
            alpha = ("transparency",) if _is_transparent(picture) else ()
            return Picture(_eight_bits(library, path, picture, _upright(operations, picture)), frames + alpha)
    except DataError:
        raise
    except (*_MALFORMED, library.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be decoded ({_reason(error, path)}).") from error


def picture_suffixes() -> frozenset[str]:
    """Endings, in small letters, of the files that Pillow decodes."""
    library = require("PIL.Image", "Pillow", "train")
    known = library.registered_extensions()
    return frozenset(end for end, kind in known.items() if kind in library.OPEN and kind not in _STUBS)


def _upright(operations: Any, picture: Any) -> Any:
    """The picture turned as its EXIF entry says; an entry that cannot be read says nothing."""
    try:
        return operations.exif_transpose(picture)
    except _MALFORMED:
        return picture


def _is_transparent(picture: Any) -> bool:
    if picture.mode in ("RGBA", "LA", "PA"):
        return picture.getchannel("A").getextrema()[0] < 255
    return picture.mode in ("RGBa", "La") or "transparency" in picture.info


def _eight_bits(library: Any, path: Path, opened: Any, picture: Any) -> Any:
    """The upright picture in mode "L" or "RGB"; the opened file says what its values mean."""
    mode = picture.mode
    if mode == "F" or mode.startswith("I"):
        return library.fromarray(_scaled(path, opened, np.asarray(picture)))
    if mode == "LAB":
        raise DataError(f"{path}: is of mode LAB, which is not read; save it as 8-bit grey or RGB.")
    if mode in ("La", "RGBa", "PA"):  # by way of what Pillow converts
        picture = picture.convert("LA" if mode == "La" else "RGBA")
    return picture.convert("L" if mode in _GREY else "RGB")


def _scaled(path: Path, opened: Any, values: np.ndarray) -> np.ndarray:
    """Values of more than 8 bits, or floats, on 0 .. 255."""
    tags = getattr(opened, "tag_v2", {})
    white = 1.0 if opened.mode == "F" else _integer_white(path, opened, tags)
    shares = values.astype(np.float64) / white
    low, high = float(shares.min(initial=0.0)), float(shares.max(initial=0.0))
    if not (low >= 0 and high <= 1):  # a NaN is neither
        span = f"{low:g} to {high:g}" if np.isfinite(low + high) else "that are not finite"
        raise DataError(f"{path}: holds floats {span} (mode F), but 0 .. 1 is wanted; scale them first.")
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow turns such pictures round up to 8 bits alone
        shares = 1 - shares
    return np.round(255 * shares).astype(np.uint8)


def _integer_white(path: Path, opened: Any, tags: Any) -> int:
    """The value of white: the largest of as many bits as the file has."""
    if (opened.mode == "I" and opened.format not in _SIXTEEN_BITS) or opened.format == "FITS":
        fault = f"holds whole numbers of no known range (mode {opened.mode} of {opened.format})"
        raise DataError(f"{path}: {fault}; save it with 8 bits, or 16 without a sign.")
    bits = tags.get(_BITS, (16,))
    return 2 ** int(bits[0] if isinstance(bits, tuple) else bits) - 1


def _reason(error: BaseException, path: Path) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.replace(repr(str(path)), "it").replace("\n", " ").rstrip(".")
