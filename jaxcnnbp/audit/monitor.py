"""Counts of the places where a function has no unique derivative, met while a function is evaluated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_active: ContextVar[Counter[str] | None] = ContextVar("monitor", default=None)


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Collects what `record` is told while the block runs, and no other block."""
    counts: Counter[str] = Counter()
    token = _active.set(counts)
    try:
        yield counts
    finally:
        _active.reset(token)


def listening() -> bool:
    """Whether a `counting` block is open."""
    return _active.get() is not None


def record(what: str, number: int) -> None:
    """Adds `number` occurrences of `what` to the counts of the open `counting` block, if there is one."""
    counts = _active.get()
    if counts is not None and number:
        counts[what] += int(number)
