"""A folder with the four files of MNIST, or of a data set in MNIST's format."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from jaxcnnbp.errors import DataError
from jaxcnnbp.train.data.idx import read_idx
from jaxcnnbp.train.data.split import Data, Split

__all__ = ["is_mnist", "mnist_folder", "mnist_sets"]

_FILE = re.compile(r"(?P<set>.*?)(?P<part>train|t10k|test)-(?P<kind>images|labels)[-.]idx(?P<rank>[13])-ubyte(\.gz)?")
_PARTS = {"train": ("train",), "test": ("t10k", "test")}
_EMNIST = {"balanced": 47, "byclass": 62, "bymerge": 47, "digits": 10, "letters": 27, "mnist": 10}  # labels from 0


def mnist_folder(folder: Path | str, classes: int = 10) -> Data:
    """Read training and test images and labels, plain or gzip, under MNIST's or EMNIST's file names.

    Args:
        folder: where `train-images-idx3-ubyte` and its three companions lie; `.gz` may follow, and a
            dot may stand for the hyphen before `idx`. Where several data sets lie in one folder, as
            `emnist-letters-train-images-idx3-ubyte` and others do, `FOLDER/emnist-letters` chooses one.
        classes: labels must lie in 0 .. classes - 1; EMNIST's own number of them, if that is larger.

    Returns:
        The data set, images `(n, size, size, 1)` of uint8.

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
    train, test = (_part(home, name, words, classes) for words in _PARTS.values())
    if train.images.shape[1:] != test.images.shape[1:]:
        sizes = ["x".join(map(str, part.images.shape[1:3])) for part in (train, test)]
        raise DataError(f"{home}: the training images are {sizes[0]}, the test images {sizes[1]}.")
    notes = (f"{home}: EMNIST keeps its images with rows and columns exchanged; they are read as they are.",)
    names = _names(home / f"{name}mapping.txt", classes)
    title = name.rstrip("-._") or home.name
    return Data(title, train, test, 255, classes, names=names, notes=notes if kind else ())


def mnist_sets(folder: Path) -> list[str]:
    """What stands before `train-images-idx3-ubyte` in the names of a folder's files: nothing for MNIST itself.

    Args:
        folder: a folder.

    Returns:
        One beginning for each data set.
    """
    found = [_FILE.fullmatch(path.name) for path in folder.iterdir()] if folder.is_dir() else []
    return sorted({match["set"] for match in found if match})


def is_mnist(folder: Path) -> bool:
    """Whether files of MNIST's format lie in a folder, or begin with this path."""
    return bool(mnist_sets(folder)) or any(name.rstrip("-._") == folder.name for name in mnist_sets(folder.parent))


def _chosen(folder: Path) -> tuple[Path, str]:
    """The folder, and what the names of the files begin with."""
    if not folder.is_dir():
        beginnings = [name for name in mnist_sets(folder.parent) if name and name.rstrip("-._") == folder.name]
        if beginnings and not folder.exists():
            return folder.parent, beginnings[0]
        raise DataError(f"{folder}: {'is no folder' if folder.exists() else 'no such folder'}.")
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
    _check_labels(label_path, labels, classes)
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


def _check_labels(path: Path, labels: np.ndarray, classes: int) -> None:
    wrong = np.flatnonzero(labels >= classes)
    if len(wrong):
        first = f"label {labels[wrong[0]]} at position {wrong[0]:,}"
        hint = f"--classes {labels.max() + 1} takes them all"
        raise DataError(f"{path}: {first} is outside 0 .. {classes - 1} (`classes` (={classes})); {hint}.")
