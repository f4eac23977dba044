"""Folders of pictures: which folders are parts and classes, which pictures are theirs, and what is left out.

A class is a folder; its pictures lie in it or anywhere below it. Files and folders whose name begins with a dot are
nobody's.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxcnnbp.errors import DataError, require
from jaxcnnbp.train.data.mnist import beside, mnist_sets

# train, training_set, seg_train, test_images, Validation ...
_PART_NAME = re.compile(
    r"(?:seg[-_ ]?)?(train|val|test)(?:ing|id|idation)?(?:[-_ ]?(?:set|data|dataset|images?|imgs?|pictures?))?", re.I
)
_EVERY = 5  # one picture in five of every class is a test picture where the folders do not say

_STUBS = ("BUFR", "GRIB", "HDF5", "MPEG", "WMF")  # which Pillow knows by name and cannot decode

Labelled = list[tuple[Path, int]]  # files with the number of their class


@dataclasses.dataclass(frozen=True)
class PictureTree:
    """What a folder of pictures holds."""

    names: tuple[str, ...]  # the classes, in the order of their names
    train: Labelled
    test: Labelled
    validation: Labelled  # those of a part `val` beside `test`; empty if there is none
    notes: tuple[str, ...]  # sentences on what is left out, or taken for what


def picture_tree(folder: Path) -> PictureTree:
    """Classes and pictures of a folder.

    Raises:
        DataError: no pictures, one class alone, or classes that differ between the parts.
    """
    parts, notes = parts_of(folder), []
    if "train" in parts and len(parts) > 1:
        return _by_parts(folder, parts, notes)
    if len(parts) > 1:
        raise DataError(f"{folder}: holds {few([path.name for path in parts.values()])}, but no folder train.")
    classes = _classes(folder, notes)
    inner = [name for name in classes if len(parts_of(folder / name)) > 1]
    if len(classes) == 1 or inner:
        raise DataError(_too_high(folder, inner or list(classes)))
    _require_not_parts(folder, list(classes))
    train, test = [], []
    for label, paths in enumerate(classes.values()):
        for rank, path in enumerate(paths):
            (test if rank % _EVERY == _EVERY - 1 else train).append((path, label))
    if not train or not test:
        raise DataError(f"{folder}: holds too few pictures to keep every fifth of a class for the test.")
    around = beside(parts_of, folder.resolve().parent, {})
    if "train" in around and len(around) > 1 and around["train"].name == folder.resolve().name:
        others = ", ".join(sorted(path.name for part, path in around.items() if part != "train"))
        notes.append(f"{folder}: every fifth picture is kept for the test; the folder above has {others} beside it.")
    return PictureTree(tuple(classes), train, test, [], tuple(notes))


def holds_pictures(folder: Path) -> bool:
    """Whether there are pictures in a folder, or the folders of the parts of a data set."""
    parts = parts_of(folder)
    return ("train" in parts and len(parts) > 1) or next(_walk(folder), None) is not None


def class_folders(folder: Path) -> list[str]:
    """Names of the folders in `folder` that have pictures in them, at any depth."""
    return [path.name for path in _folders(folder) if next(_walk(path), None) is not None]


def parts_of(folder: Path) -> dict[str, Path]:
    """The folders in `folder` that are called `train`, `val` or `test`, or by another word for it."""
    parts: dict[str, Path] = {}
    for path in _folders(folder):
        if name := _PART_NAME.fullmatch(path.name):
            parts.setdefault(name[1].lower(), path)
    return parts


def few(names: Sequence[str]) -> str:
    """The first names of a list, and whether there are more.

    Example:
        >>> few(["a", "b", "c", "d"])
        'a, b, c ...'
    """
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")


def _require_not_parts(folder: Path, names: list[str]) -> None:
    """Refuses folders that all hold the same folders of pictures: those are the classes."""
    inner = class_folders(folder / names[0])  # of most data sets none, and the others need not be looked through
    if len(inner) > 1 and all(class_folders(folder / name) == inner for name in names[1:]):
        fault = f"{folder}: each of {few(names)} holds {few(inner)}, which seem to be the classes"
        raise DataError(f"{fault}; name the folders train and test, or give one of them.")


def _by_parts(folder: Path, parts: dict[str, Path], notes: list[str]) -> PictureTree:
    left_out = [path.name for path in folder.iterdir() if path not in parts.values() and not _hidden(path.name)]
    if left_out:
        read = few([path.name for path in parts.values()])
        notes.append(f"{folder}: what lies beside {read} is left out: {len(left_out):,} ({few(sorted(left_out))}).")
    parts = {part: _inner(path) for part, path in parts.items()}
    train = _classes(parts["train"], notes)
    if len(train) == 1:
        raise DataError(_too_high(parts["train"], list(train)))
    test_part = "test" if "test" in parts and (class_folders(parts["test"]) or "val" not in parts) else "val"
    if test_part == "val":
        unread = f", as {parts['test'].name} holds no folder with pictures" if "test" in parts else ""
        notes.append(f"{parts['val']}: is the test part{unread}.")
    test = _same_classes(folder, train, parts[test_part], notes)
    has_validation = test_part == "test" and "val" in parts
    validation = _same_classes(folder, train, parts["val"], notes) if has_validation else []
    return PictureTree(tuple(train), _labelled(train, list(train)), test, validation, tuple(notes))


def _inner(part: Path) -> Path:
    """The folder of the same name in a part, where it holds nothing else, as some archives are packed."""
    while (part / part.name).is_dir() and class_folders(part) == [part.name]:
        part /= part.name
    return part


def _same_classes(folder: Path, train: dict[str, list[Path]], part: Path, notes: list[str]) -> Labelled:
    """The pictures of a part, which must have the classes of the training part."""
    found = _classes(part, notes)
    if not {*found} & {*train}:
        wanted = f"holds {few(list(found))}, but none of the classes of train ({few(list(train))})"
        raise DataError(f"{part}: {wanted}; a folder a class is wanted in both.")
    if {*found} != {*train}:
        odd = sorted({*found} ^ {*train})[0]
        raise DataError(f"{folder}: class {odd!r} is in only one of train and {part.name}.")
    return _labelled(found, list(train))


def _labelled(classes: dict[str, list[Path]], names: list[str]) -> Labelled:
    return [(path, label) for label, name in enumerate(names) for path in classes[name]]


def _classes(folder: Path, notes: list[str]) -> dict[str, list[Path]]:
    """Name of every class to its pictures; what lies in `folder` beside them is noted."""
    suffixes = picture_suffixes()
    classes, empty, others, below = dict[str, list[Path]](), list[str](), list[Path](), 0
    for home in _folders(folder):
        files = sorted(_walk(home, every=True))
        pictures = [path for path in files if path.suffix.lower() in suffixes]
        others += [path for path in files if path.suffix.lower() not in suffixes]
        below += sum(path.parent != home for path in pictures)
        if pictures:
            classes[home.name] = pictures
        else:
            empty.append(home.name)
    loose = sorted(path for path in folder.iterdir() if path.is_file() and not _hidden(path.name))
    if not classes:
        raise DataError(_too_low(folder, [path for path in loose if path.suffix.lower() in suffixes]))
    if empty:
        notes.append(f"{folder}: folders without a picture are no classes ({few(empty)}).")
    if loose or others:
        names = [str(path.relative_to(folder)) for path in (*loose, *others)]
        notes.append(f"{folder}: files that are no pictures of a class are left out: {len(names):,} ({few(names)}).")
    if below:
        notes.append(f"{folder}: pictures in sub-folders of a class are read with it: {below:,}.")
    return classes


def _too_high(folder: Path, names: list[str]) -> str:
    """Why a folder of folders is none of classes."""
    home = folder / names[0]
    while len(inner := [path.name for path in parts_of(home).values()] or class_folders(home)) == 1:
        home /= inner[0]
    if len(inner) > 1:
        return f"{folder}: holds {few(names)}, in which there are {few(inner)}; give {home}."
    return f"{folder}: holds one class alone ({names[0]}), but two at least are wanted, a folder each."


def _too_low(folder: Path, loose: list[Path]) -> str:
    """Why a folder without folders of pictures is no data set."""
    fault = f"{folder}: holds no folder with pictures (.png, .jpg, .tif ...)"
    if not loose:
        return f"{fault}; wanted is a folder for each class."
    above = folder.resolve().parent
    is_class = len(beside(class_folders, above, [])) > 1 and not beside(parts_of, above, {})
    hint = f"; give the folder above ({above})" if is_class else ""
    found = f"{len(loose):,} in itself ({few([path.name for path in loose])}), of which nothing says the class"
    return f"{fault}, but {found}; wanted is a folder for each class{hint}."


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not _hidden(path.name))


def _walk(folder: Path, every: bool = False) -> Iterator[Path]:
    """Files below a folder, links followed: pictures, or every file."""
    suffixes, seen = frozenset[str]() if every else picture_suffixes(), set[str]()
    for home, folders, files in os.walk(folder, onerror=_stop, followlinks=True):
        real = os.path.realpath(home)
        folders[:] = [] if real in seen else [name for name in folders if not _hidden(name)]
        if real in seen:
            continue
        seen.add(real)
        for name in files:
            if not _hidden(name) and (every or Path(name).suffix.lower() in suffixes):
                yield Path(home, name)


def _stop(error: OSError) -> None:
    """`os.walk` would pass over a folder that it may not enter."""
    raise error


def picture_suffixes() -> frozenset[str]:
    """Endings, in small letters, of the files that Pillow decodes."""
    library = require("PIL.Image", "Pillow", "train")
    known = library.registered_extensions()
    return frozenset(end for end, kind in known.items() if kind in library.OPEN and kind not in _STUBS)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


_DEPTH = 3  # levels below a folder that are looked through
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".rar", ".7z")


def what_is_wanted(folder: Path) -> str:
    """Why a folder is no data set.

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
    return f": --data-dir {above} holds the former" if beside(mnist_sets, above, []) else ""


def _below(folder: Path, depth: int) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if depth else ():
        if path.is_dir() and not path.name.startswith("."):
            yield path
            yield from _below(path, depth - 1)
