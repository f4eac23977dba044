"""The sentence for a folder that is no data set: what lies in it, what is wanted, and where that may be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jaxcnnbp.train.data.folder import mnist_sets
from jaxcnnbp.train.data.tree import few

__all__ = ["what_is_wanted"]

_DEPTH = 3  # levels below a folder that are looked through
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".rar", ".7z")


def what_is_wanted(folder: Path) -> str:
    """Why a folder is no data set.

    Args:
        folder: a folder without pictures, and without files of MNIST's format.

    Returns:
        One sentence.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> what_is_wanted(folder).removeprefix(str(folder))
        ": holds nothing; wanted are the four files of MNIST's format or pictures, a folder for each class."
    """
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    kinds = {"folders": [p.name for p in paths if p.is_dir()], "files": [p.name for p in paths if not p.is_dir()]}
    found = " and ".join(f"{kind} ({few(names)})" for kind, names in kinds.items() if names)
    wanted = "wanted are the four files of MNIST's format or pictures, a folder for each class"
    return f"{folder}: holds {found or 'nothing'}; {wanted}{_hint(folder, paths)}."


def _hint(folder: Path, paths: list[Path]) -> str:
    inner = next((home for home in _below(folder, _DEPTH) if mnist_sets(home)), None)
    if inner is not None:
        return f": --data-dir {inner} holds the former"
    arrays = [path for path in paths if path.suffix.lower() == ".npz"]
    if arrays:
        return f"; --data {arrays[0]} reads that file"
    archives = [path for path in paths if path.suffix.lower() in _ARCHIVES]
    if archives:
        return f"; {archives[0].name} has to be unpacked first"
    above = folder.resolve().parent
    return f": --data-dir {above} holds the former" if mnist_sets(above) else ""


def _below(folder: Path, depth: int) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if depth else ():
        if path.is_dir() and not path.name.startswith("."):
            yield path
            yield from _below(path, depth - 1)
