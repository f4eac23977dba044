"""Around the folder of checkpoints: its lock, and what Orbax's threads would print when writing to it fails."""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import IO, Any

from jaxcnnbp.errors import InputError

_OURS = ("orbax", "tensorstore", "TensorStore")
_CLOSED = "Event loop is closed"  # what TensorStore's threads come upon after a save was given up


def locked(folder: Path) -> IO[bytes]:
    """A file that is locked as long as this process lives, however it ends.

    Raises:
        InputError: another process holds it.
    """
    file = (folder / "lock").open("ab")
    if importlib.util.find_spec("fcntl"):  # not on Windows
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise InputError(f"`checkpoints` (={folder}) is in use by another run; name another folder.") from error
    return file


def hush() -> None:
    """Keep Orbax's threads from printing their tracebacks: what goes wrong is told once, as a sentence."""
    for name in ("absl", "asyncio", "concurrent.futures"):
        logging.getLogger(name).addFilter(_of_others)
    if not isinstance(sys.excepthook, _Hook):
        sys.excepthook, sys.unraisablehook = _Hook(sys.excepthook), _Hook(sys.unraisablehook)


def first_line(error: BaseException) -> str:
    r"""The cause of a failure in a few words; TensorStore's own messages run to pages.

    Example:
        >>> first_line(ValueError("The file is short.\nDetails follow."))
        'The file is short'
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if os.strerror(errno.ENOSPC) in str(error):
        return os.strerror(errno.ENOSPC)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:160].rstrip(".")


class _Hook:
    """A hook of `sys` that leaves out what Orbax and TensorStore report of saves that were given up."""

    def __init__(self, before: Any) -> None:
        self._before = before

    def __call__(self, *arguments: Any) -> None:
        first = arguments[0]
        value = arguments[1] if len(arguments) > 1 else first.exc_value
        text = f"{value} {getattr(first, 'object', '')!r}"
        if str(value) != _CLOSED and not any(name in text for name in _OURS):
            self._before(*arguments)


def _of_others(record: logging.LogRecord) -> bool:
    text = f"{record.pathname} {record.getMessage()}"
    if record.exc_info and record.exc_info[1] is not None:
        text += "".join(traceback.format_exception(record.exc_info[1]))
    return not any(name in text for name in (*_OURS, _CLOSED))
