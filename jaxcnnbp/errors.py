"""Errors whose message is one sentence for the person who typed the command."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType

__all__ = ["DataError", "Diverged", "InputError", "Lost", "SaveFailed", "Stopped", "check_output", "require"]


class InputError(ValueError):
    """An option that cannot be meant; the message names it, its value and the rule."""


class DataError(InputError):
    """A data set that cannot be read; the message names the file and what is wrong with it."""


class Diverged(ArithmeticError):
    """A loss that is no longer a finite number; the message names the epoch and the step."""


class Stopped(Exception):
    """A run that was asked to stop and has saved its state; the message says at which step and how to go on."""


class SaveFailed(Exception):
    """A checkpoint that could not be written where nothing comes after it; the message names the last good one."""


class Lost(Exception):
    """Another process of the run that no longer answers; the message says how to go on."""


def require(module: str, package: str, extra: str) -> ModuleType:
    """Import an optional `module` where it is needed, or say which extra of this project brings its `package`.

    Raises:
        InputError: the package is not installed.

    Example:
        >>> require("json", "json", "train").dumps([1])
        '[1]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(f'{package} is not installed: pip install "jaxcnnbp[{extra}]".') from error


def check_output(option: str, path: Path | str) -> None:
    """Refuse a path that cannot become a file."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"`{option}` (={path}) is a folder, but a file is to be written.")
    if path.exists() and not path.is_file():
        raise InputError(f"`{option}` (={path}) is no file that could be written anew.")
    if not path.parent.is_dir():
        raise InputError(f"`{option}` (={path}) lies in no folder that exists.")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(f"`{option}` (={path}) may not be written.")
