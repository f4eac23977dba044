"""Which of many alike `make test` runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def slow_but(quick: Iterable[Any], values: Iterable[Any], name: Callable[[Any], str] = str) -> list[Any]:
    """For `parametrize`: all of `values`, marked as slow but for those that are in `quick` too."""
    quick = list(quick)
    return [pytest.param(v, id=name(v), marks=() if v in quick else pytest.mark.slow) for v in values]
