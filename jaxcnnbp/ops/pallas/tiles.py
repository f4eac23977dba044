"""How the kernels in `kernels` are cut into programs, and where each of them reads and writes.

Both rules of an axis are steps `u` that read source cells and write target cells. With `low` the padding, `s` the
stride, `d` the dilation:

    gather      target u            reads  u s + t d - low                    with every tap t
    scatter     target u s + r      reads  u + (r + low - t d) / s            with the taps for which this is whole

A scatter is so a gather in `s` phases `r`, and nothing is added twice to a cell.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jax.typing import DTypeLike

from jaxcnnbp.geometry.window import Ints, Window
from jaxcnnbp.ops._dtypes import cast

Index = Sequence[Array]
Ref = Any  # Pallas gives the type of a reference no public name


@dataclass(frozen=True)
class Tile:
    """What one program works on.

    Attributes:
      rows: rows of targets; each costs a sum per thread and element, and saves reading the rows it shares.
      channels: at most as many side by side, so that threads of a warp read whole lines of memory.
      elements: columns times channels; eight for each thread of four warps are 16 bytes of bfloat16.
      warps: of 32 threads.
      programs: for sums over everything: into at least how many parts the work is cut, if it has as many. A Hopper GPU
        has 132 processors and some eight programs on each.
    """

    rows: int = 4
    channels: int = 64
    elements: int = 1024
    warps: int = 4
    programs: int = 1024


class Phase(NamedTuple):
    """The targets `u * step + offset`, and the taps that reach them: each reads the source `u * step + shift`."""

    offset: int
    taps: tuple[tuple[int, int], ...]  # (tap, shift)


class TiledAxis(NamedTuple):
    """One axis of a gather or scatter."""

    steps: int
    source: int
    target: int
    source_step: int
    target_step: int
    phases: tuple[Phase, ...]


def gathering(window: Window, axis: int) -> TiledAxis:
    """Windows read the input."""
    low, step, size = window.padding[axis][0], window.dilation[axis], window.size[axis]
    taps = tuple((t, t * step - low) for t in range(size))
    count, source = window.output[axis], window.spatial[axis]
    return TiledAxis(count, source, count, window.stride[axis], 1, (Phase(0, taps),))


def scattering(window: Window, axis: int) -> TiledAxis:
    """Input cells read the windows that reach them."""
    stride, low, target = window.stride[axis], window.padding[axis][0], window.spatial[axis]

    def phase(offset: int) -> Phase:
        far = [(t, offset + low - t * window.dilation[axis]) for t in range(window.size[axis])]
        return Phase(offset, tuple((t, n // stride) for t, n in far if n % stride == 0))

    phases = tuple(phase(r) for r in range(min(stride, target)))
    return TiledAxis(ceil_div(target, stride), window.output[axis], target, 1, stride, phases)


class ChannelBlock(NamedTuple):
    """The columns and channels of an image that a program has in hand."""

    image: Array
    columns: Array  # (columns, 1): the steps
    channels: Array  # (1, channels)
    exists: Array | None  # (1, channels), None where all blocks are whole

    def place(self, row: Array, columns: Array, extent: Ints, only: Array | None = None) -> tuple[Any, Array]:
        """Where cells of `row` lie in an image of `extent`, and which of them exist."""
        inside = (row >= 0) & (row < extent[0]) & (columns >= 0) & (columns < extent[1])
        for mask in (self.exists, only):
            inside = inside if mask is None else inside & mask
        return (self.image, row * extent[1] + columns, self.channels), inside

    def load(
        self, ref: Ref, row: Array, columns: Array, extent: Ints, only: Array | None = None, fill: float | int = 0
    ) -> tuple[Array, Array]:
        """What lies there, `fill` where nothing does, and where something does."""
        place, inside = self.place(row, columns, extent, only)
        return plgpu.load(ref.at[place], mask=inside, other=fill), inside

    def load_row(self, ref: Ref, number: int) -> Array:
        """The channels of one row of a matrix, `(1, channels)`."""
        return plgpu.load(ref.at[number, self.channels], mask=self.exists, other=None if self.exists is None else 0)


@dataclass(frozen=True)
class Tiling:
    """A gather or scatter, cut into tiles.

    Attributes:
      window: the window whose taps they are.
      axes: of rows and of columns.
      sides: of a block, columns and channels.
      rows: steps down in a tile.
      grid: images, tiles down, tiles across, blocks of channels.
      target: shape of the result.
    """

    window: Window
    axes: tuple[TiledAxis, TiledAxis]
    sides: tuple[int, int]
    rows: int
    grid: Ints
    target: Ints

    @classmethod
    def of(cls, along: Callable[[Window, int], TiledAxis], window: Window, source: Array, tile: Tile) -> Tiling:
        """The tiling for `source`, an array `(images, rows, columns, channels)`."""
        (down, across), images, channels = (along(window, 0), along(window, 1)), source.shape[0], source.shape[-1]
        lanes = _side(channels, tile.channels)
        columns, rows = _side(across.steps, max(tile.elements // lanes, 1)), min(tile.rows, max(down.steps, 1))
        grid = images, ceil_div(down.steps, rows), ceil_div(across.steps, columns), ceil_div(channels, lanes)
        target = images, down.target, across.target, channels
        return cls(window, (down, across), (columns, lanes), rows, grid, target)

    def output(self, dtype: DTypeLike) -> jax.ShapeDtypeStruct:
        """The result as the kernels write it."""
        images, height, width, channels = self.target
        return jax.ShapeDtypeStruct((images, height * width, channels), dtype)

    def phases(self) -> Iterator[tuple[Phase, Phase]]:
        """Those of rows with those of columns."""
        return itertools.product(self.axes[0].phases, self.axes[1].phases)

    def number(self, row_tap: int, column_tap: int) -> int:
        """The number of a tap."""
        return row_tap * self.window.size[1] + column_tap

    def rows_read(self, phase: Phase) -> list[tuple[int, list[tuple[int, int]]]]:
        """The rows of the source, and for each the rows of the tile that read it, with which tap."""
        users: dict[int, list[tuple[int, int]]] = {}
        for number, (tap, shift) in itertools.product(range(self.rows), phase.taps):
            users.setdefault(number * self.axes[0].source_step + shift, []).append((number, tap))
        return sorted(users.items())

    def block(self, index: Index) -> ChannelBlock:
        """The block of a program."""
        image, _, strip, lane = index
        (columns, lanes), channels = self.sides, self.target[-1]
        across = strip * columns + lax.broadcasted_iota(jnp.int32, (columns, 1), 0)
        deep = lane * lanes + lax.broadcasted_iota(jnp.int32, (1, lanes), 1)
        return ChannelBlock(image, across, deep, None if channels % lanes == 0 else deep < channels)

    def read(self, ref: Ref, index: Index, row: int, shift: int, fill: float | int = 0) -> tuple[Array, Array]:
        """What the block reads `row` rows from the first of its tile, its columns shifted, and where it exists."""
        block, (down, across) = self.block(index), self.axes
        first = index[1] * (self.rows * down.source_step)
        columns = block.columns * across.source_step + shift
        return block.load(ref, first + row, columns, (down.source, across.source), None, fill)

    def write(self, ref: Ref, index: Index, down: Phase, across: Phase, values: list[Array]) -> None:
        """The rows of a tile to the targets of a phase."""
        block, (rows, columns) = self.block(index), self.axes
        for number, value in enumerate(values):
            row = (index[1] * self.rows + number) * rows.target_step + down.offset
            at = block.columns * columns.target_step + across.offset
            place, inside = block.place(row, at, (rows.target, columns.target))
            plgpu.store(ref.at[place], cast(value, ref.dtype), mask=inside)


def _side(extent: int, most: int) -> int:
    """A power of two up to `most`, or half of it where that reaches less far over the edge."""
    whole = min(pl.next_power_of_2(max(extent, 1)), most)
    half = max(whole // 2, 1)
    return half if ceil_div(extent, half) * half < ceil_div(extent, whole) * whole else whole


def ceil_div(a: int, b: int) -> int:
    """`a / b`, rounded up."""
    return -(-a // b)
