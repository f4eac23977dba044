"""Padding that repeats the input, cell by cell: for every position of a padded axis, which cell it is a copy of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxcnnbp.audit.oracle.axes import axes_of


class Source(NamedTuple):
    """One spatial axis: how many cells it has, and which of them stand on the padded axis."""

    size: int
    cells: list[int]


def bordered(
    x: np.ndarray, window: Sequence[int], stride: Any, padding: Any, mode: str, dilation: Any
) -> tuple[np.ndarray, Any, tuple[Source, ...]]:
    """`x`, channels last, with its padding on it, the padding that is left, and where every cell comes from."""
    if mode == "zeros":
        return x, padding, ()
    axes = axes_of(x.shape[1:-1], window, stride, padding, dilation)
    sources = tuple(Source(a.size, _cells(a.size, a.low, a.high, mode)) for a in axes)
    for place, source in enumerate(sources, start=1):
        x = np.take(x, source.cells, place)
    return x, 0, sources


def unbordered(dx: np.ndarray, sources: Sequence[Source]) -> np.ndarray:
    """The gradient of `bordered`: every copy adds what it has to the cell that it was made of."""
    for place, source in enumerate(sources, start=1):
        moved = np.moveaxis(dx, place, 0)
        total = np.zeros((source.size, *moved.shape[1:]), dx.dtype)
        for copy, cell in zip(moved, source.cells, strict=True):
            total[cell] += copy
        dx = np.moveaxis(total, 0, place)
    return dx


def _cells(size: int, low: int, high: int, mode: str) -> list[int]:
    if mode == "circular":  # goes round what negative padding leaves
        first, last = max(-low, 0), size - max(-high, 0)
        return [first + (i - first) % (last - first) for i in range(-low, size + high)]
    return [_reflected(i, size) if mode == "reflect" else max(0, min(i, size - 1)) for i in range(-low, size + high)]


def _reflected(i: int, size: int) -> int:
    if i < 0:
        return -i
    return i if i < size else 2 * size - 2 - i
