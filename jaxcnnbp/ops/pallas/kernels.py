"""Kernels for GPUs, in Pallas: depthwise convolution and max pooling, which only move memory.

A program owns a tile of `rows x columns x channels` results and adds up all that goes there: no atomics, the same
result on every run. The loops over rows and taps are written out, and each row that is read serves all the rows of the
tile that have a tap on it. Arrays are read as `(image, cell, channel)`, in blocks of columns and channels whose sides
are powers of two, masked at the edges.

The forms have the signature and the meaning of the plain ones in `ops.conv.forms`; `ops.conv.cuda` says for which
convolutions. `interpret` runs a kernel on any platform, slowly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from jaxcnnbp.geometry.window import Ints, Window
from jaxcnnbp.ops._dtypes import cast, wide
from jaxcnnbp.ops.conv.geometry import ConvGeometry
from jaxcnnbp.ops.conv.partitioned import unravel
from jaxcnnbp.ops.pallas.tiles import Index, Ref, Tile, TiledAxis, Tiling, ceil_div, gathering, scattering
from jaxcnnbp.ops.pool.window_max import identity, tap_dtype

TILE = Tile()
# Of a kernel gradient each tap is a sum for itself, of as many elements as the tile: half of them leave room for more.
SUMS = Tile(elements=512)
# Taps that are summed in one pass over the input: at four elements a thread they take 64 of its 255 registers.
TAPS_AT_ONCE = 16


def forward_by_pallas(
    x: Array, kernel: Array, geometry: ConvGeometry, *, tile: Tile = TILE, interpret: bool = False
) -> Array:
    """y[u] = sum_t p[u, t] o k[t], in the dtype of the operands or the one asked for."""
    return _weighted(gathering, x, kernel, geometry, tile, interpret)


def input_grad_by_pallas(
    delta: Array, kernel: Array, geometry: ConvGeometry, *, tile: Tile = TILE, interpret: bool = False
) -> Array:
    """dx = scatter(delta[u] o k[t]), in the dtype of the operands."""
    return _weighted(scattering, delta, kernel, replace(geometry, output_dtype=None), tile, interpret)


def _weighted(
    along: Callable[[Window, int], TiledAxis],
    source: Array,
    kernel: Array,
    geometry: ConvGeometry,
    tile: Tile,
    interpret: bool,
) -> Array:
    tiling, dtype = Tiling.of(along, geometry.window, source, tile), geometry.output_dtype or source.dtype
    if 0 in (source.size, kernel.size, *tiling.target):
        return jnp.zeros(tiling.target, dtype)
    run = _call(partial(_weigh, tiling), tiling.grid, tiling.output(dtype), tile, interpret)
    return run(_cells(source), kernel.reshape(-1, kernel.shape[-1])).reshape(tiling.target)


def kernel_grad_by_pallas(
    x: Array, delta: Array, geometry: ConvGeometry, *, tile: Tile = SUMS, interpret: bool = False
) -> Array:
    """dk[t] = sum_u p[u, t] o delta[u], in the dtype of the operands.

    A program goes down strips of columns, row by row, with one block of sums for each tap; the parts are added after.
    """
    window, channels = geometry.window, x.shape[-1]
    if 0 in (x.size, delta.size, window.taps):
        return jnp.zeros(geometry.kernel_shape(channels, channels), x.dtype)
    tiling = Tiling.of(gathering, window, x, tile)
    images, _, strips, blocks = tiling.grid
    at_once = min(max(TAPS_AT_ONCE // window.size[1], 1), window.size[0])
    groups, steps = ceil_div(window.size[0], at_once), images * strips * window.output[0]
    length = ceil_div(steps, max(tile.programs // (blocks * groups), 1))
    parts = ceil_div(steps, length)
    sums = jax.ShapeDtypeStruct((parts, window.taps, channels), wide(x.dtype))
    kernel = partial(_sum_rows, tiling, at_once, length)
    run = _call(kernel, (parts, groups, blocks), sums, tile, interpret)
    return cast(run(_cells(x), _cells(delta)).sum(0), x.dtype).reshape(geometry.kernel_shape(channels, channels))


def max_pool_by_pallas(
    x: Array, window: Window, kind: str = "max", *, tile: Tile = TILE, interpret: bool = False
) -> tuple[Array, Array]:
    """The extreme values and the numbers of the taps that hold them, as `window_max.extremes_and_taps`."""
    tiling, numbers = Tiling.of(gathering, window, x, tile), tap_dtype(window.taps)
    if 0 in (x.size, *tiling.target):
        return jnp.full(tiling.target, identity(x.dtype, kind), x.dtype), jnp.zeros(tiling.target, numbers)
    out = tiling.output(x.dtype), tiling.output(numbers)
    best, taps = _call(partial(_extremes, tiling, kind), tiling.grid, out, tile, interpret)(_cells(x))
    return best.reshape(tiling.target), taps.reshape(tiling.target)


def send_by_pallas(delta: Array, taps: Array, window: Window, *, tile: Tile = TILE, interpret: bool = False) -> Array:
    """dx = scatter(delta[u] where t == t*[u]), as `ops.pool.max.send_to_winners`."""
    tiling = Tiling.of(scattering, window, delta, tile)
    if 0 in (delta.size, *tiling.target):
        return jnp.zeros(tiling.target, delta.dtype)
    run = _call(partial(_send, tiling), tiling.grid, tiling.output(delta.dtype), tile, interpret)
    return run(_cells(delta), _cells(taps)).reshape(tiling.target)


def _cells(a: Array) -> Array:
    return a.reshape(a.shape[0], math.prod(a.shape[1:-1]), a.shape[-1])


def _call(kernel: Callable[..., None], grid: Ints, out: Any, tile: Tile, interpret: bool) -> Callable[..., Any]:
    """`kernel(index, *refs)` for every index of `grid`; only one axis of CUDA's own goes beyond 65535."""

    def at_index(*refs: Ref) -> None:
        kernel(unravel(pl.program_id(0), grid), *refs)

    params = plgpu.CompilerParams(num_warps=tile.warps)
    return pl.pallas_call(at_index, out, grid=(math.prod(grid),), compiler_params=params, interpret=interpret)


# What runs on the GPU: refs are `(image, cell, channel)`, blocks `(columns, channels)`.


def _weigh(tiling: Tiling, index: Index, source: Ref, kernel: Ref, out: Ref) -> None:
    """The sum of what is read times the weights of the taps."""
    block, sum_type = tiling.block(index), wide(source.dtype)
    for down, across in tiling.phases():
        sums = [jnp.zeros(tiling.sides, sum_type)] * tiling.rows
        for column_tap, shift in across.taps:
            # Column by column: the weights of one column of taps stay in registers for all rows.
            weights = {t: cast(block.load_row(kernel, tiling.number(t, column_tap)), sum_type) for t, _ in down.taps}
            for row, users in tiling.rows_read(down):
                p = cast(tiling.read(source, index, row, shift)[0], sum_type)
                for number, tap in users:
                    sums[number] = sums[number] + p * weights[tap]
        tiling.write(out, index, down, across, sums)


def _extremes(tiling: Tiling, kind: str, index: Index, source: Ref, out: Ref, out_taps: Ref) -> None:
    """The extreme of what is read and its tap: of equal ones the first, of NaNs the last, none on the padding."""
    kept, outside, better = wide(source.dtype), identity(source.dtype, kind), lax.gt if kind == "max" else lax.lt
    [(down, across)] = tiling.phases()
    best = [jnp.full(tiling.sides, outside, kept)] * tiling.rows
    taps = [jnp.full(tiling.sides, -1, jnp.int32)] * tiling.rows
    for row, users in tiling.rows_read(down):
        for column_tap, shift in across.taps:
            read, inside = tiling.read(source, index, row, shift, outside)
            p = cast(read, kept)
            for number, tap in users:
                wins = inside & (better(p, best[number]) | (p != p) | (taps[number] < 0))
                best[number] = jnp.where(wins, p, best[number])
                taps[number] = jnp.where(wins, np.int32(tiling.number(tap, column_tap)), taps[number])
    tiling.write(out, index, down, across, best)
    tiling.write(out_taps, index, down, across, [jnp.maximum(t, np.int32(0)) for t in taps])


def _send(tiling: Tiling, index: Index, delta: Ref, taps: Ref, out: Ref) -> None:
    """The sum of the deltas whose winner is the cell, in the order of the taps."""
    sum_type = wide(delta.dtype)
    for down, across in tiling.phases():
        sums = [jnp.zeros(tiling.sides, sum_type)] * tiling.rows
        for row, users in reversed(tiling.rows_read(down)):
            for column_tap, shift in across.taps:
                sent, winner = (tiling.read(ref, index, row, shift)[0] for ref in (delta, taps))
                for number, tap in users:
                    won = cast(winner, jnp.int32) == np.int32(tiling.number(tap, column_tap))
                    sums[number] = sums[number] + jnp.where(won, cast(sent, sum_type), jnp.zeros((), sum_type))
        tiling.write(out, index, down, across, sums)


def _sum_rows(tiling: Tiling, at_once: int, length: int, index: Index, x: Ref, delta: Ref, out: Ref) -> None:
    """The sums over `length` rows of one strip after the other, for `at_once` rows of taps."""
    part, group, lane = index
    window, sum_type, first = tiling.window, wide(x.dtype), group * np.int32(at_once)
    images, _, strips, _ = tiling.grid
    (rise, run), (above, left) = window.dilation, (low for low, _ in window.padding)

    def add(step: Array, sums: tuple[Array, ...]) -> tuple[Array, ...]:
        image, strip, row = unravel(part * np.int32(length) + step, (images, strips, window.output[0]))
        block = tiling.block((image, row, strip, lane))
        counted = (image < images) & (block.columns < window.output[1])
        d = cast(block.load(delta, row, block.columns, window.output, counted)[0], sum_type)
        top, start = row * window.stride[0] + first * rise - above, block.columns * window.stride[1] - left
        corners = ((top + i * rise, start + j * run) for i in range(at_once) for j in range(window.size[1]))
        read = (block.load(x, *corner, window.spatial, counted)[0] for corner in corners)
        return tuple(s + cast(p, sum_type) * d for s, p in zip(sums, read, strict=True))

    zeros = (jnp.zeros(tiling.sides, sum_type),) * (at_once * window.size[1])
    sums = lax.fori_loop(np.int32(0), np.int32(length), add, zeros)
    block = tiling.block((part, part, part, lane))
    for number, total in enumerate(sums):
        tap = first * window.size[1] + number
        place, inside = block.place(jnp.zeros((), jnp.int32), tap, (1, window.taps))
        plgpu.store(out.at[part, *place[1:]], total.sum(0, keepdims=True), mask=inside)
