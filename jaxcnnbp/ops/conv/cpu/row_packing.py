"""Images side by side on CPUs: for convolutions whose rows are too short for XLA to share among the cores.

XLA's convolution (YNN) hands out tiles of one row of outputs, columns times channels, and with few channels a row is a
single tile: one core works. So images, or strips of images, are laid side by side into long rows, with the zeros of
their padding between them,

    [image 1  0 0  image 2  0 0  image 3  0 0 ...]

convolved at once, and taken apart again without the columns that read two of them. Only memory is moved, the sums are
lax's. Each form has the signature and the meaning of the plain form in `ops.conv.forms`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import jax.numpy as jnp
from jax import Array

from jaxcnnbp.geometry.window import Window
from jaxcnnbp.ops.conv.forms import forward_by_lax
from jaxcnnbp.ops.conv.geometry import ConvGeometry, dual, transposed_kernel
from jaxcnnbp.taps import pad_axes

# Products in one row of outputs, and columns, from which on both cores of two were at work.
ROW_PRODUCTS, ROW_COLUMNS = 10_000_000, 120
# Rows of outputs in the flattest strip: it reads some more rows than it has.
STRIP_ROWS = 4


def forward_in_long_rows(x: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """lax's convolution of images in a row."""
    rows = _LongRows(x, math.prod(kernel.shape), geometry.window)
    return rows.taken_apart(forward_by_lax(rows.laid(x), kernel, replace(geometry, window=rows.window)))


def input_grad_in_long_rows(delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """The full convolution of delta with the flipped kernel."""
    return forward_in_long_rows(delta, transposed_kernel(kernel, geometry), dual(geometry))


class _LongRows:
    """How many strips of images make a row, and how far they are apart."""

    def __init__(self, x: Array, products_a_column: int, window: Window):
        (self.stride_y, stride), (extent_y, extent), self.output = window.stride, window.extent, window.output
        (self.top, _), (self.left, _) = window.padding
        self.images, columns = x.shape[0], x.shape[2]
        reach = (self.output[1] - 1) * stride + extent  # columns that an image and its padding take
        # The zeros on the left of the next image serve as those on the right of this one.
        slot = max(min(self.left + columns, reach), reach - self.left)
        # Where the padding is wider than the window, outputs that read nothing but padding have no columns of x.
        self.slot_outputs = max(-(-slot // stride), self.output[1])
        self.slot = self.slot_outputs * stride
        wanted = max(-(-ROW_PRODUCTS // (products_a_column * self.slot_outputs)), -(-ROW_COLUMNS // self.slot_outputs))
        self.strips = _first_divisor(self.output[0], -(-wanted // self.images), self.output[0] // STRIP_ROWS)
        self.in_a_row = _first_divisor(self.images * self.strips, wanted, self.images * self.strips)
        self.height = self.output[0] // self.strips
        self.read = (self.height - 1) * self.stride_y + extent_y
        self.window = Window(
            (self.read, self.in_a_row * self.slot),
            window.size,
            window.stride,
            ((0, 0), (0, extent - stride)),
            window.dilation,
            window.input_dilation,
        )

    def laid(self, x: Array) -> Array:
        """`(rows, height read, strips a row * slot, channels)`."""
        _, height, columns, channels = x.shape
        whole = (self.output[0] - self.height) * self.stride_y + self.read
        edges = [(self.top, whole - self.top - height, 0), (self.left, self.slot - self.left - columns, 0)]
        padded = pad_axes(x, edges)
        if self.strips > 1:
            starts = [n * self.height * self.stride_y for n in range(self.strips)]
            padded = jnp.stack([padded[:, a : a + self.read] for a in starts], 1)
        strips = padded.reshape(-1, self.in_a_row, self.read, self.slot, channels)
        return strips.swapaxes(1, 2).reshape(-1, self.read, self.in_a_row * self.slot, channels)

    def taken_apart(self, y: Array) -> Array:
        """`(batch, *output, channels)`."""
        strips = y.reshape(-1, self.height, self.in_a_row, self.slot_outputs, y.shape[-1])
        whole = strips[:, :, :, : self.output[1]].swapaxes(1, 2)
        return whole.reshape(self.images, *self.output, y.shape[-1])


def _first_divisor(n: int, least: int, limit: int) -> int:
    """The smallest divisor of `n` that is at least `least`, or else the largest within `limit`."""
    within = [d for d in range(1, max(1, min(n, limit)) + 1) if n % d == 0]
    return next((d for d in within if d >= least), within[-1])
