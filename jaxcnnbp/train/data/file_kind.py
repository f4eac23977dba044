"""What a file is, by its first bytes, for the sentence that says why it is not read."""

from __future__ import annotations

from pathlib import Path

__all__ = ["kind_of"]

_BEGINNINGS = {
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "a zip archive",
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
    """What a file is.

    Args:
        path: the file.

    Returns:
        Words that go after "is".

    Raises:
        OSError: it cannot be read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "data.csv"
        >>> _ = path.write_text("label,pixel0")
        >>> kind_of(path)
        'text that begins with "label,pixel0"'
    """
    with path.open("rb") as file:
        first = file.read(24)
    known = [kind for beginning, kind in _BEGINNINGS.items() if first.startswith(beginning)]
    if known or not first:
        return known[0] if known else "empty"
    line = first.decode("ascii", "replace").splitlines()[0] if first.splitlines() else ""
    if line and line.isprintable() and line.isascii():
        return f'text that begins with "{line}"'
    return f"a file that begins with the bytes {first[:8].hex(' ')}"
