"""SIGTERM and SIGINT as a wish to stop: the run saves its state, and ends with an exit code of its own."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

__all__ = ["Wish", "heeded"]


class Wish:
    """Whether somebody asked the run to stop.

    A signal only sets a mark, which is looked at between two steps: a program that is being compiled, a step on its way
    and a checkpoint half written are finished first. A second SIGINT ends the process at once.
    """

    def __init__(self) -> None:
        self._asked = False

    def __call__(self) -> bool:
        """Whether to stop."""
        return self._asked

    def note(self, number: int, _: FrameType | None) -> None:
        """The handler of a signal."""
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True


@contextlib.contextmanager
def heeded() -> Iterator[Wish]:
    """Take SIGTERM and SIGINT as a wish to stop, in the main thread of a program.

    Yields:
        The wish.

    Example:
        >>> with heeded() as wish:
        ...     wish()
        False
    """
    wish = Wish()
    before = {number: signal.signal(number, wish.note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
