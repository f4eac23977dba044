"""Which of many alike `make test` runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def slow_but(quick: Iterable[Any], values: Iterable[Any], name: Callable[[Any], str] = str) -> list[Any]:
    """For `parametrize`: all of `values`, marked as slow but for those that are in `quick` too."""
    quick = list(quick)
    return [pytest.param(v, id=name(v), marks=() if v in quick else pytest.mark.slow) for v in values]


def one_in(step: int, values: Iterable[Any], name: Callable[[Any], str] = str) -> list[Any]:
    """The same where none is more telling than another: one in `step` is quick."""
    values = list(values)
    return slow_but(values[::step], values, name)


def first_are_quick(count: int, rows: Iterable[tuple[Any, ...]]) -> list[Any]:
    """The same for rows of several values, `count` of which are quick."""
    return [pytest.param(*row, marks=() if n < count else pytest.mark.slow) for n, row in enumerate(rows)]
