"""Where the taps of a window fall.

Along one spatial axis, output position `u` reads with tap `t` the input position `n` for which

    n * input_dilation = u * stride + t * dilation - low

where `(low, high)` is the padding; positions that no input cell holds read zero, or the identity of the pool.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jax.core import max_dim
from jax.export import is_symbolic_dim

Ints = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Window:
    """One window over one input: every field has one entry a spatial axis.

    Attributes:
      spatial: extents of the input.
      size: number of taps.
      stride: input positions from one output to the next.
      padding: `(low, high)` positions added around the input; negative ones are cropped.
      dilation: input positions from one tap to the next.
      input_dilation: positions from one input cell to the next; the gaps read as padding does.
      ceil_mode: whether a last window that only begins inside the padded input counts (PyTorch's rule).
    """

    spatial: Ints
    size: Ints
    stride: Ints
    padding: Pairs
    dilation: Ints
    input_dilation: Ints
    ceil_mode: bool = False

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.size)

    @property
    def taps(self) -> int:
        """Number of taps of the whole window."""
        return math.prod(self.size)

    @property
    def extent(self) -> Ints:
        """Positions from the first tap to the last, both included."""
        return tuple(max((k - 1) * d + 1, 0) for k, d in zip(self.size, self.dilation, strict=True))

    @property
    def dilated(self) -> Ints:
        """Extents of the input with its gaps."""
        return tuple((n - 1) * i + 1 if n else 0 for n, i in zip(self.spatial, self.input_dilation, strict=True))

    @property
    def output(self) -> Ints:
        """Extents of the output."""
        rows = zip(self.dilated, self.extent, self.stride, self.padding, strict=True)
        return tuple(_output_extent(n, e, s, pair, self.ceil_mode) for n, e, s, pair in rows)

    @property
    def reach(self) -> Pairs:
        """The padding that the windows really touch: `high` is cut or grown to end with the last window."""
        rows = zip(self.output, self.stride, self.extent, self.dilated, self.padding, strict=True)
        return tuple((low, (o - 1) * s + e - n - low) for o, s, e, n, (low, _) in rows)

    def tap_indices(self) -> Iterator[Ints]:
        """Every tap as a multi-index, in row-major order."""
        return itertools.product(*map(range, self.size))

    def tap_number(self, tap: Ints) -> int:
        """Which tap it is, counted in that order."""
        return int(np.ravel_multi_index(tap, self.size))

    def along(self, axis: int, spatial: Ints | None = None) -> Window:
        """The window of this one axis, over extents `spatial` if they differ; the other axes are passed through."""

        def alone(values: tuple[Any, ...], neutral: Any) -> tuple[Any, ...]:
            return tuple(v if a == axis else neutral for a, v in enumerate(values))

        return replace(
            self,
            spatial=self.spatial if spatial is None else spatial,
            size=alone(self.size, 1),
            stride=alone(self.stride, 1),
            padding=alone(self.padding, (0, 0)),
            dilation=alone(self.dilation, 1),
            input_dilation=alone(self.input_dilation, 1),
        )

    @property
    def tiles(self) -> bool:
        """Whether every position from the first that is read to the last is read exactly once."""
        rows = zip(self.size, self.stride, self.dilation, self.output, strict=True)
        return all((s == k or o == 1) and (d == 1 or k == 1) for k, s, d, o in rows)

    def inside(self, axis: int) -> np.ndarray:
        """`(output, size)` of bool: whether tap t of window u along `axis` falls on an input cell."""
        return _holds_cell(self._position(axis), self.dilated[axis], self.input_dilation[axis])

    def cells(self, axis: int, count_padding: bool = False) -> np.ndarray:
        """`(output,)`: the cells that each window along `axis` reads, or also those of the padding asked for.

        They are differences of running sums over the positions a dilation apart: windows of thousands of taps make no
        table of taps.
        """
        low, high = self.reach[axis]
        n, step, dilation = self.dilated[axis], self.input_dilation[axis], self.dilation[axis]
        position = np.arange(max(low + n + high, 0)) - low
        counted = position < n + self.padding[axis][1] if count_padding else _holds_cell(position, n, step)
        rows = -(-len(counted) // dilation)
        filled = np.pad(counted, (0, rows * dilation - len(counted))).reshape(rows, dilation)
        before = np.pad(filled.cumsum(0), ((1, 0), (0, 0))).reshape(-1)
        start = np.arange(self.output[axis]) * self.stride[axis]
        return before[start + self.size[axis] * dilation] - before[start]

    def _position(self, axis: int) -> np.ndarray:
        u, t = np.arange(self.output[axis])[:, None], np.arange(self.size[axis])[None, :]
        return u * self.stride[axis] + t * self.dilation[axis] - self.padding[axis][0]


def _holds_cell(position: np.ndarray, extent: int, step: int) -> np.ndarray:
    return (position >= 0) & (position < extent) & (position % step == 0)


def unpadded(window: Window) -> Window:
    """`window` over an input that has its padding and its gaps already, cut to its `reach`."""
    ones, nothing = (1,) * window.rank, ((0, 0),) * window.rank
    rows = zip(window.reach, window.dilated, strict=True)
    spatial = tuple(low + n + high for (low, high), n in rows)
    return replace(window, spatial=spatial, padding=nothing, input_dilation=ones, ceil_mode=False)


def dual(window: Window) -> Window:
    """The window from the output back to the input: over outputs with gaps of the stride.

    With `t' = k - 1 - t` the relation `n i = u s + t d - low` reads `u s = n i + t' d - (extent - 1 - low)`: a window
    of stride i and dilation d over positions u s.
    """
    lows = [e - 1 - low for e, (low, _) in zip(window.extent, window.padding, strict=True)]
    spread = [(o - 1) * s + 1 for o, s in zip(window.output, window.stride, strict=True)]
    rows = zip(lows, window.extent, window.dilated, spread, strict=True)
    pairs = tuple((low, n + e - 1 - o - low) for low, e, n, o in rows)
    return Window(window.output, window.size, window.input_dilation, pairs, window.dilation, window.stride)


def _output_extent(dilated: int, extent: int, stride: int, padding: tuple[int, int], ceil_mode: bool) -> int:
    low, high = padding
    room = dilated + low + high - extent
    whole = room // stride + 1
    if not ceil_mode:
        return at_least_0(whole)
    begins_on_input = whole * stride < dilated + low
    return max(whole + 1 if room % stride and begins_on_input else whole, 0)


def at_least_0(n: int) -> int:
    """`max(n, 0)`, also of an extent that is a symbol of `jax.export`."""
    return max_dim(n, 0) if is_symbolic_dim(n) else max(n, 0)
