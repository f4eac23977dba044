"""Convolutions of few input channels on CPUs: two output columns at a time.

With few channels the patches of all taps are narrow, and taking them apart costs more than multiplying them. Two
neighbouring outputs share most of their patch: with `r = 0 .. R-1` the column in a block of R, `c = r s + t` the input
column that it reads with tap t, and the taps of the other axes and the channels as rows,

    forward      Y[m, (r, o)] = P[m, (c, i)] K[(c, i), (r, o)],   K[(r s + t, i), (r, o)] = k[t, i, o], else 0
    kernel grad  dk[t, i, o]  = sum_r (P^T D)[(r s + t, i), (r, o)],   D[m, (r, o)] = delta[m R + r, o]

which copies a third less and makes products twice as wide, at the price of some products with zeros. The same pairs
make XLA's own kernel gradient wide enough for two cores where there are 64 output channels, with no patches. Each form
has the signature and the meaning of the plain form in `conv_forms`.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import jax.numpy as jnp
from jax import Array, lax

from jaxcnnbp.geometry.window import Window
from jaxcnnbp.ops.conv_forms import kernel_grad_by_lax
from jaxcnnbp.ops.conv_geometry import ConvGeometry
from jaxcnnbp.ops.numerics import wide


def forward_by_columns(x: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """Y = P K."""
    blocks = Blocks(geometry.window)
    y = _dot(blocks.patches(x), blocks.widened(kernel), ((1,), (0,)), geometry)
    return y.reshape(x.shape[0], *geometry.window.output, kernel.shape[-1])


def kernel_grad_by_columns(x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """dK = P^T D, whose entries for the same tap add up."""
    blocks = Blocks(geometry.window)
    deltas = delta.reshape(-1, blocks.columns * delta.shape[-1])
    return blocks.narrowed(_dot(blocks.patches(x), deltas, ((0,), (0,)), geometry), x.shape[-1])


def kernel_grad_by_pairs(x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """lax's kernel gradient of a convolution to pairs of columns: `delta` as it lies has twice the channels."""
    blocks = Blocks(geometry.window)
    deltas = delta.reshape(*delta.shape[:-2], blocks.count, blocks.columns * delta.shape[-1])
    grad = kernel_grad_by_lax(x, deltas, replace(geometry, window=blocks.wide_window()))
    return blocks.narrowed(grad, x.shape[-1])


class Blocks:
    """Blocks of output columns, and the input columns that they read."""

    def __init__(self, window: Window):
        self.window = window
        self.stride, self.taps = window.stride[-1], window.size[-1]
        # With a stride there is less to share.
        self.columns = 2 if self.stride == 1 and window.output[-1] % 2 == 0 else 1
        self.count = window.output[-1] // self.columns
        self.read = (self.columns - 1) * self.stride + self.taps
        self.step = self.columns * self.stride
        self.reach = -(-self.read // self.step)  # a block reads this many times as far as its neighbour is away

    def patches(self, x: Array) -> Array:
        """`[blocks x (leading taps, columns read, in)]`."""
        window, (batch, channels) = self.window, (x.shape[0], x.shape[-1])
        extents = [(o - 1) * s + e for o, s, e in zip(window.output, window.stride, window.extent, strict=True)]
        extents[-1] = (self.count + self.reach - 1) * self.step
        edges = [(low, n - low - m, 0) for (low, _), n, m in zip(window.padding, extents, x.shape[1:-1], strict=True)]
        padded = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
        stepped = padded.reshape(batch, *extents[:-1], self.count + self.reach - 1, self.step * channels)
        pieces = []
        for tap in itertools.product(*map(range, window.size[:-1])):
            stops = [t + (o - 1) * s + 1 for t, o, s in zip(tap, window.output, window.stride, strict=False)]
            for q in range(self.reach):
                width = min(self.step, self.read - q * self.step) * channels
                limits = (batch, *stops, q + self.count, width)
                pieces.append(lax.slice(stepped, (0, *tap, q, 0), limits, (1, *window.stride[:-1], 1, 1)))
        return lax.concatenate(pieces, x.ndim - 1).reshape(-1, sum(p.shape[-1] for p in pieces))

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


def _dot(a: Array, b: Array, contracted: tuple[tuple[int, ...], tuple[int, ...]], geometry: ConvGeometry) -> Array:
    return lax.dot_general(a, b, (contracted, ((), ())), geometry.precision, wide(a.dtype))
