"""The IDX format of MNIST: a magic number, big-endian sizes, then the bytes; plain or gzip.

    offset 0   00 00 08 nn     nn = number of dimensions; 08 = unsigned bytes
    offset 4   nn sizes of 4 bytes each, big-endian
    then       the product of the sizes, as bytes, the last dimension fastest

Reference: LeCun, Cortes and Burges, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from jaxcnnbp.errors import DataError

__all__ = ["read_idx"]

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
