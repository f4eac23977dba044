"""Files that a run will write, checked before hours go into computing what is to be written."""

from __future__ import annotations

import os
from pathlib import Path

from jaxcnnbp.errors import InputError, require

__all__ = ["check_output", "check_picture"]


def check_output(option: str, path: Path | str) -> None:
    """Refuse a path that cannot become a file.

    Args:
        option: the option's name, for the message.
        path: the file to be written.

    Raises:
        InputError: it is a folder, or its folder is absent or closed to us.

    Example:
        >>> check_output("save", "no/such/folder/params.npz")
        Traceback (most recent call last):
        jaxcnnbp.errors.InputError: `save` (=no/such/folder/params.npz) lies in no folder that exists.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"`{option}` (={path}) is a folder, but a file is to be written.")
    if not path.parent.is_dir():
        raise InputError(f"`{option}` (={path}) lies in no folder that exists.")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(f"`{option}` (={path}) may not be written.")


def check_picture(option: str, path: Path | str) -> None:
    """`check_output`, for a picture: its ending must be one that Matplotlib draws.

    Args:
        option: the option's name, for the message.
        path: the file to be written.

    Raises:
        InputError: as `check_output`; an unknown ending; Matplotlib is not installed.

    Example:
        >>> check_picture("curves", "curves.xyz")
        Traceback (most recent call last):
        jaxcnnbp.errors.InputError: `curves` (=curves.xyz) must end like a picture: .png, .svg, .pdf.
    """
    check_output(option, path)
    known = require("matplotlib.backend_bases", "Matplotlib", "plot").FigureCanvasBase.filetypes
    if Path(path).suffix.lower().lstrip(".") not in known:
        raise InputError(f"`{option}` (={path}) must end like a picture: .png, .svg, .pdf.")
