"""Where taps fall, read off the definition one position at a time: the oracle's own geometry.

Along one axis, tap `t` of window `u` reads position `n = u * stride + t * dilation - low`. Nothing here is
shared with `jaxcnnbp.geometry`: a mistake in one of the two shows as a disagreement.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a windowed operation."""

    size: int  # positions of the input
    taps: int  # taps of the window
    stride: int = 1  # positions from one window to the next
    dilation: int = 1  # positions from one tap to the next
    low: int = 0  # positions added before the input, negative if cropped
    high: int = 0  # positions added after the input, negative if cropped
    ceil: bool = False  # whether a last window that is only partly inside counts

    def position(self, window: int, tap: int) -> int:
        """The position that `tap` of `window` reads; negative or beyond the input where it reads padding."""
        return window * self.stride + tap * self.dilation - self.low

    @property
    def windows(self) -> int:
        """How many windows there are: counted, one after the other, until one does not fit."""
        count = 0
        while self._fits(count):
            count += 1
        return count

    @property
    def real(self) -> range:
        """The cells that are there: negative padding crops."""
        return range(max(0, -self.low), min(self.size, self.size + self.high))

    def reads(self, tap: int) -> tuple[np.ndarray, np.ndarray]:
        """The windows whose `tap` falls on a real cell, and those cells."""
        pairs = [(u, n) for u in range(self.windows) if (n := self.position(u, tap)) in self.real]
        windows, cells = np.array(pairs, int).reshape(-1, 2).T
        return windows, cells

    def padded(self, window: int, tap: int) -> bool:
        """Whether `tap` of `window` falls on the input or on the padding that was asked for."""
        return -self.low <= self.position(window, tap) < self.size + self.high

    def _fits(self, window: int) -> bool:
        first, last = self.position(window, 0), self.position(window, self.taps - 1)
        if last < self.size + self.high:
            return True
        # PyTorch's ceil mode: the window hangs over the end by less than a stride, and does not start in the
        # padding on the right.
        return self.ceil and last - self.stride < self.size + self.high - 1 and first < self.size


@dataclass(frozen=True)
class Tap:
    """One tap of an N-dimensional window."""

    index: tuple[int, ...]  # which tap, one number an axis
    # Selects, in an array whose last axes are the windows, those that read a real cell with this tap.
    windows: tuple[Any, ...]
    cells: tuple[Any, ...]  # selects those cells in an array whose last axes are the input's


def taps(axes: Sequence[Axis]) -> Iterator[Tap]:
    """Every tap of the window over `axes`, in row-major order: ties go to the first of them."""
    for index in product(*(range(axis.taps) for axis in axes)):
        pairs = [axis.reads(t) for axis, t in zip(axes, index, strict=True)]
        windows, cells = np.ix_(*(u for u, _ in pairs)), np.ix_(*(n for _, n in pairs))
        yield Tap(index, (..., *windows), (..., *cells))


def windows(axes: Sequence[Axis]) -> tuple[int, ...]:
    """The extents of the output."""
    return tuple(axis.windows for axis in axes)


def several(value: Any, rank: int) -> tuple[int, ...]:
    """One number an axis."""
    if value is None:
        return (1,) * rank
    return tuple(int(v) for v in value) if np.ndim(value) else (int(value),) * rank


def axes_of(
    spatial: Sequence[int], window: Any, stride: Any, padding: Any, dilation: Any, ceil: bool = False
) -> tuple[Axis, ...]:
    """The axes of a window over an input of extents `spatial`, from what the user wrote."""
    rank = len(spatial)
    rows = zip(spatial, *(several(v, rank) for v in (window, stride, dilation)), _entries(padding, rank), strict=True)
    return tuple(Axis(n, k, s, d, *_pair(p, n, (k - 1) * d + 1, s), ceil) for n, k, s, d, p in rows)


def _entries(padding: Any, rank: int) -> tuple[Any, ...]:
    # An int beside a pair is no array.
    return tuple(padding) if isinstance(padding, list | tuple | np.ndarray) else (padding,) * rank


def _pair(padding: Any, size: int, extent: int, stride: int) -> tuple[int, int]:
    if not isinstance(padding, str):
        low, high = (padding, padding) if np.ndim(padding) == 0 else padding
        return int(low), int(high)
    word = padding.upper()
    if word in ("VALID", "FULL"):
        border = extent - 1 if word == "FULL" else 0
        return border, border
    return _same(word, size, extent, stride)


def _same(word: str, size: int, extent: int, stride: int) -> tuple[int, int]:
    if word not in ("SAME", "SAME_LOWER"):
        raise ValueError(f"`padding` (={word!r}) is unknown to the oracle; use VALID, SAME, SAME_LOWER or FULL.")
    covered = len(range(0, size, stride))
    missing = max(0, (covered - 1) * stride + extent - size)
    half = missing // 2
    return (half, missing - half) if word == "SAME" else (missing - half, half)


def rank_of(inputs: Any, window_shape: Any) -> int:
    """An int is for all the spatial axes of `(batch, *spatial, channels)`."""
    return max(np.ndim(inputs) - 2, 1) if np.ndim(window_shape) == 0 else np.size(window_shape)
