"""Convolutions of few input channels on CPUs: two or four output columns at a time.

With few channels the patches of all taps are narrow, and taking them apart costs more than multiplying them.
Neighbouring outputs share most of their patch: with `r = 0 .. R-1` the column in a block of R, `c = r s + t` the input
column that it reads with tap t, and the taps of the other axes and the channels as rows,

    forward      Y[m, (r, o)] = P[m, (c, i)] K[(c, i), (r, o)],   K[(r s + t, i), (r, o)] = k[t, i, o], else 0
    input grad   dx = scatter(D K^T)
    kernel grad  dk[t, i, o]  = sum_r (P^T D)[(r s + t, i), (r, o)],   D[m, (r, o)] = delta[m R + r, o]

which for pairs copies a third less and makes products twice as wide, at the price of some products with zeros. The
same pairs make XLA's own kernel gradient wide enough for two cores where there are 64 output channels, with no patches.
Each form has the signature and the meaning of the plain form in `ops.conv.forms`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import jax.numpy as jnp
from jax import Array, lax

from jaxcnnbp.geometry.window import Ints, Window
from jaxcnnbp.ops.conv.cpu.im2col import by_blocks
from jaxcnnbp.ops.conv.forms import dot, kernel_grad_as_forward
from jaxcnnbp.ops.conv.geometry import ConvGeometry
from jaxcnnbp.taps import pad_axes


def forward_by_columns(x: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """Y = P K."""
    blocks = Blocks(geometry.window, kernel.shape[-1])
    widened = blocks.widened(kernel)

    def of_images(x: Array) -> Array:
        return dot(blocks.patches(x), widened, ((1,), (0,)), geometry)

    y = by_blocks(of_images, blocks.bytes_an_image(x), x)
    return y.reshape(geometry.output_shape(x.shape[0], kernel.shape[-1]))


def input_grad_by_columns(delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """dx = scatter(D K^T)."""
    blocks = Blocks(geometry.window, delta.shape[-1])
    deltas = delta.reshape(-1, blocks.columns * delta.shape[-1])
    return blocks.scattered(dot(deltas, blocks.widened(kernel), ((1,), (1,)), geometry), delta.shape[0])


def kernel_grad_by_columns(x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """dK = P^T D, whose entries for the same tap add up."""
    blocks = Blocks(geometry.window, delta.shape[-1])

    def of_images(x: Array, delta: Array) -> Array:
        deltas = delta.reshape(-1, blocks.columns * delta.shape[-1])
        return dot(blocks.patches(x), deltas, ((0,), (0,)), geometry)

    sums = by_blocks(of_images, blocks.bytes_an_image(x), x, delta)
    return blocks.narrowed(sums.sum(0), x.shape[-1])


def kernel_grad_by_pairs(x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """lax's kernel gradient of a convolution to pairs of columns: `delta` as it lies has twice the channels."""
    blocks = Blocks(geometry.window, delta.shape[-1])
    deltas = delta.reshape(*delta.shape[:-2], blocks.count, blocks.columns * delta.shape[-1])
    grad = kernel_grad_as_forward(x, deltas, replace(geometry, window=blocks.wide_window()))
    return blocks.narrowed(grad, x.shape[-1])


class Blocks:
    """Blocks of output columns, and the input columns that they read."""

    def __init__(self, window: Window, outputs: int):
        self.window = window
        self.stride, self.taps = window.stride[-1], window.size[-1]
        # With a stride there is less to share; very few output channels make narrow products even in pairs.
        sizes = () if self.stride > 1 else (4, 2) if outputs <= 8 else (2,)
        self.columns = next((size for size in sizes if window.output[-1] % size == 0), 1)
        self.count = window.output[-1] // self.columns
        self.read = (self.columns - 1) * self.stride + self.taps
        self.step = self.columns * self.stride
        self.reach = -(-self.read // self.step)  # ceil(read / step): neighbouring blocks that one block's input spans
        lead = zip(window.output[:-1], window.stride, window.extent, strict=False)
        self.extents = (*((o - 1) * s + e for o, s, e in lead), (self.count + self.reach - 1) * self.step)

    def bytes_an_image(self, x: Array) -> int:
        """What the patches of one image take."""
        rows = math.prod(self.window.output[:-1]) * self.count
        return rows * math.prod(self.window.size[:-1]) * self.read * x.shape[-1] * x.dtype.itemsize

    def patches(self, x: Array) -> Array:
        """`[blocks x (leading taps, columns read, in)]`."""
        window, (batch, channels) = self.window, (x.shape[0], x.shape[-1])
        edges = [(low, high, 0) for low, high in self._edges()]
        padded = pad_axes(x, edges)
        stepped = padded.reshape(batch, *self.extents[:-1], self.count + self.reach - 1, self.step * channels)
        pieces = []
        for tap, q, columns in self._pieces():
            stops = [t + (o - 1) * s + 1 for t, o, s in zip(tap, window.output, window.stride, strict=False)]
            limits = (batch, *stops, q + self.count, columns * channels)
            pieces.append(lax.slice(stepped, (0, *tap, q, 0), limits, (1, *window.stride[:-1], 1, 1)))
        return lax.concatenate(pieces, x.ndim - 1).reshape(-1, sum(p.shape[-1] for p in pieces))

    def scattered(self, sent: Array, batch: int) -> Array:
        """What was read from x by patches, added up where it was read: the transpose of `patches`."""
        window = self.window
        by_block = sent.reshape(batch, *window.output[:-1], self.count, -1)
        channels = by_block.shape[-1] // (math.prod(window.size[:-1]) * self.read)
        zero, start, laid = jnp.zeros((), sent.dtype), 0, []
        for tap, q, columns in self._pieces():
            piece = by_block[..., start : start + columns * channels]
            rows = zip(tap, self.extents, window.output, window.stride, strict=False)
            edges = [(t, e - t - (o - 1) * s - 1, s - 1) for t, e, o, s in rows]
            within = [(q, self.reach - 1 - q, 0), (0, (self.step - columns) * channels, 0)]
            laid.append(lax.pad(piece, zero, [(0, 0, 0), *edges, *within]))
            start += columns * channels
        crop = [(-low, -high, 0) for low, high in self._edges()]
        positions = functools.reduce(jnp.add, laid).reshape(batch, *self.extents, channels)
        return pad_axes(positions, crop)

    def _pieces(self) -> Iterator[tuple[Ints, int, int]]:
        """The leading taps, how many blocks further, and how many columns of that block are read."""
        for tap in itertools.product(*map(range, self.window.size[:-1])):
            for q in range(self.reach):
                yield tap, q, min(self.step, self.read - q * self.step)

    def _edges(self) -> list[tuple[int, int]]:
        """What stands around the input where blocks read whole steps."""
        rows = zip(self.window.padding, self.extents, self.window.spatial, strict=True)
        return [(low, n - low - m) for (low, _), n, m in rows]

    def wide_window(self) -> Window:
        """What a block reads, as the window of one output."""
        *lead, (low, _) = self.window.padding
        high = (self.count - 1) * self.step + self.read - self.window.spatial[-1] - low
        return replace(
            self.window,
            size=(*self.window.size[:-1], self.read),
            stride=(*self.window.stride[:-1], self.step),
            padding=(*lead, (low, high)),
            ceil_mode=False,
        )

    def widened(self, kernel: Array) -> Array:
        """`[(leading taps, columns read, in) x (columns, out)]`: the kernel once a column, each as far on as it is."""
        zero, last = jnp.zeros((), kernel.dtype), kernel.ndim - 3
        shifts = [(r * self.stride, self.read - self.taps - r * self.stride, 0) for r in range(self.columns)]
        edges = [[shift if axis == last else (0, 0, 0) for axis in range(kernel.ndim)] for shift in shifts]
        by_column = jnp.stack([lax.pad(kernel, zero, edge) for edge in edges], -2)
        return by_column.reshape(-1, self.columns * kernel.shape[-1])

    def narrowed(self, grad: Array, channels: int) -> Array:
        """The gradient of `kernel` from that of `widened(kernel)`: its transpose."""
        lead = self.window.size[:-1]
        by_column = grad.reshape(*lead, self.read, channels, self.columns, -1)
        axis = len(lead)
        shifted = (
            lax.slice_in_dim(by_column[..., r, :], r * self.stride, r * self.stride + self.taps, 1, axis)
            for r in range(self.columns)
        )
        return sum(shifted, start=jnp.zeros((), grad.dtype))
