"""Winograd's minimal filtering: 3x3 convolutions of stride 1 with 16 products for 4 outputs instead of 36.

One axis first. Four inputs x, three taps k, two outputs y, all by sums but for the four products in the middle (`o`):

    y = A^T [ (G k) o (B^T x) ]        A^T = [1 1  1  0]   G = [ 1    0    0 ]   B^T = [1  0 -1  0]
                                             [0 1 -1 -1]       [1/2  1/2  1/2]         [0  1  1  0]
                                                               [1/2 -1/2  1/2]         [0 -1  1  0]
                                                               [ 0    0    1 ]         [0  1  0 -1]

and on two axes Y = A^T [(G K G^T) o (B^T X B)] A over tiles of 4x4 inputs and 2x2 outputs. The products of all tiles
and channels are 16 matrix products. The map is bilinear, so its transposes are the same sums backwards:

    forward        Y  = A^T [ (G K G^T) (B^T X B) ] A
    input grad     the forward of delta with the flipped kernel
    kernel grad    dK = G^T [ sum over tiles (B^T X B)^T (A delta A^T) ] G

XLA makes a loop for every array that is computed, and each takes its time to compile. So the four products of an axis
stand in two arrays, the two `ends` (o0, o3) and the two `middles` (o1, o2), and every line of sums is one expression:

    B^T x   ends x0 - x2, x1 - x3   middles x2 +- x1            A d     ends d0, -d1   middles d0 +- d1
    G k     ends k0, k2             middles (k0 + k2 +- k1) / 2  A^T o   y = o1 +- (o2 + ends)

The sums round: results differ from the plain form by two or three units in the last place of the largest product, and a
NaN or an infinity reaches the whole tile. `precision=jax.lax.Precision.HIGHEST` asks for the plain form.

Source: A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks (2015), section 4.1. Each form has the
signature and the meaning of the plain form in `ops.conv.forms`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxcnnbp.geometry.window import Window
from jaxcnnbp.ops.conv.cpu.im2col import largest_divisor
from jaxcnnbp.ops.conv.geometry import ConvGeometry, dual
from jaxcnnbp.ops.devices import zeros_varying_like
from jaxcnnbp.ops.numerics import cast, wide
from jaxcnnbp.taps import pad_axes

Parts = list[Array]  # ends and middles of one axis, or of both: [ends of ends, middles of ends, ...]

# Bytes of transformed tiles that are worked on at a time: they stay in the cache, and in memory that the process holds.
BLOCK_BYTES = 16 << 20


def forward_by_winograd(x: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """Y = A^T [(G K G^T) (B^T X B)] A."""
    return _filtered(x, kernel, geometry, kernel.shape[-1], contracted=0)


def input_grad_by_winograd(delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """The full convolution of delta with the flipped kernel, whose outputs are summed over and not its inputs."""
    return _filtered(delta, lax.rev(kernel, (0, 1)), dual(geometry), kernel.shape[-2], contracted=1)


def _filtered(x: Array, kernel: Array, geometry: ConvGeometry, features_out: int, contracted: int) -> Array:
    """The convolution of `x`, whose channels meet channel axis `contracted` of the kernel."""
    strips = _Strips(x, geometry.window, features_out)
    filters = _on_both_axes(_g, cast(kernel, strips.sum_type), 0, 1)

    def of_strips(inputs: Array) -> Array:
        pairs = zip(strips.tiles(inputs), filters, strict=True)
        return strips.outputs([_dot(tiles, u, (3, contracted + 2), geometry) for tiles, u in pairs])

    return strips.joined(lax.map(of_strips, strips.blocks()))


def kernel_grad_by_winograd(x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """dK = G^T [sum over tiles (B^T X B)^T (A delta A^T)] G."""
    strips = _Strips(x, geometry.window, delta.shape[-1])

    def add(sums: Parts, block: tuple[Array, Array]) -> tuple[Parts, None]:
        pairs = zip(strips.tiles(block[0]), strips.deltas(block[1]), strict=True)
        more = [_dot(tiles, deltas, (2, 2), geometry) for tiles, deltas in pairs]
        return jax.tree.map(jnp.add, sums, more), None

    shape = jax.ShapeDtypeStruct((2, 2, x.shape[-1], delta.shape[-1]), strips.sum_type)
    nothing = [zeros_varying_like(shape, x, delta)] * 4
    total, _ = lax.scan(add, nothing, (strips.blocks(), strips.blocks_of_outputs(delta)))
    return _back_from_both_axes(_g_transposed, total, 0, 1)


def fits(geometry: ConvGeometry) -> bool:
    """Whether a convolution is of the kind: 3x3, stride 1, no dilation, no groups, precision not asked for."""
    window = geometry.window
    plain = window.stride == window.dilation == window.input_dilation == (1, 1)
    return window.size == (3, 3) and plain and geometry.groups == 1 and _is_default(geometry.precision)


def _is_default(precision: Any) -> bool:
    return precision is None or lax.Precision.DEFAULT in (
        precision,
        *(precision if isinstance(precision, tuple) else ()),
    )


class _Strips:
    """Images cut into strips of some rows of tiles, so many at a time that their tiles stay in the cache."""

    def __init__(self, x: Array, window: Window, features_out: int):
        self.window, self.sum_type = window, wide(x.dtype)
        self.batch, self.features_out = x.shape[0], features_out
        self.high, self.wide = (-(-o // 2) for o in window.output)  # tiles along each axis
        bytes_a_row = 16 * self.wide * (x.shape[-1] + features_out) * self.sum_type.itemsize
        self.rows = largest_divisor(self.high, max(1, BLOCK_BYTES // bytes_a_row))
        self.count = self.high // self.rows
        self.size = largest_divisor(self.batch * self.count, max(1, BLOCK_BYTES // (bytes_a_row * self.rows)))
        self.x = x

    def blocks(self) -> Array:
        """`(blocks, strips, 2 rows + 2, 2 tiles + 2, in)`: strips share two rows with the next."""
        (top, _), (left, _) = self.window.padding
        height, width = 2 * self.high + 2, 2 * self.wide + 2
        edges = [(top, height - top - self.x.shape[1], 0), (left, width - left - self.x.shape[2], 0)]
        padded = pad_axes(cast(self.x, self.sum_type), edges)
        step = 2 * self.rows
        strips = [padded[:, step * s : step * s + step + 2] for s in range(self.count)]
        whole = padded if self.count == 1 else jnp.stack(strips, 1)
        return whole.reshape(-1, self.size, step + 2, width, self.x.shape[-1])

    def blocks_of_outputs(self, delta: Array) -> Array:
        """`(blocks, strips, 2 rows, 2 tiles, out)`."""
        edges = [(0, 2 * n - o, 0) for n, o in zip((self.high, self.wide), self.window.output, strict=True)]
        padded = pad_axes(cast(delta, self.sum_type), edges)
        return padded.reshape(-1, self.size, 2 * self.rows, 2 * self.wide, delta.shape[-1])

    def tiles(self, inputs: Array) -> Parts:
        """B^T X B of every tile, each part `(2, 2, tiles, in)`: a tile is two pairs, and shares one."""
        return [_side_by_side(part) for part in _on_both_axes(_b_transposed, _in_pairs(inputs), 2, 4)]

    def deltas(self, delta: Array) -> Parts:
        """A delta A^T of every tile, each part `(2, 2, tiles, out)`."""
        return [_side_by_side(part) for part in _on_both_axes(_a, _in_pairs(delta), 2, 4)]

    def outputs(self, products: Parts) -> Array:
        """Y = A^T [products] A, laid out as strips."""
        tiles = (2, 2, self.size, self.rows, self.wide, self.features_out)
        y = _back_from_both_axes(_a_transposed, [part.reshape(tiles) for part in products], 0, 1)
        return y.transpose(2, 3, 0, 4, 1, 5).reshape(self.size, 2 * self.rows, 2 * self.wide, self.features_out)

    def joined(self, y: Array) -> Array:
        """The strips as images, without what an odd output has too much."""
        images = y.reshape(self.batch, 2 * self.high, 2 * self.wide, self.features_out)
        return images[:, : self.window.output[0], : self.window.output[1]]


def _in_pairs(strips: Array) -> Array:
    """`(strips, rows, 2, columns, 2, channels)`."""
    images, rows, columns, channels = strips.shape
    return strips.reshape(images, rows // 2, 2, columns // 2, 2, channels)


def _side_by_side(part: Array) -> Array:
    """`(2, 2, tiles, channels)`, for a matrix product each."""
    return part.transpose(2, 4, 0, 1, 3, 5).reshape(2, 2, -1, part.shape[-1])


def _dot(a: Array, b: Array, contracted: tuple[int, int], geometry: ConvGeometry) -> Array:
    """A matrix product for every pair of the first two axes."""
    of_a, of_b = contracted
    return lax.dot_general(a, b, (((of_a,), (of_b,)), ((0, 1), (0, 1))), geometry.precision)


def _on_both_axes(sums: Callable[[Array, int], Parts], x: Array, rows: int, columns: int) -> Parts:
    return [part for half in sums(x, rows) for part in sums(half, columns)]


def _back_from_both_axes(sums: Callable[[Array, Array, int], Array], parts: Parts, rows: int, columns: int) -> Array:
    ends, middles = (sums(parts[i], parts[i + 1], columns) for i in (0, 2))
    return sums(ends, middles, rows)


def _b_transposed(pairs: Array, axis: int) -> Parts:
    """A tile is a pair of cells at `axis`, (x0, x1), and the next pair along the axis before it, (x2, x3)."""
    count = pairs.shape[axis - 1] - 1
    first, second = (lax.slice_in_dim(pairs, i, count + i, axis=axis - 1) for i in (0, 1))
    return [first - second, _sum_and_difference(_at(second, 0, axis), _at(first, 1, axis), axis)]


def _g(taps: Array, axis: int) -> Parts:
    first, second, third = (_at(taps, i, axis) for i in range(3))
    return [lax.slice_in_dim(taps, 0, 3, stride=2, axis=axis), _sum_and_difference(first + third, second, axis) / 2]


def _a(pairs: Array, axis: int) -> Parts:
    return [pairs * _signs(pairs, axis), _sum_and_difference(_at(pairs, 0, axis), _at(pairs, 1, axis), axis)]


def _a_transposed(ends: Array, middles: Array, axis: int) -> Array:
    return _at(middles, 0, axis) + _signs(ends, axis) * (_at(middles, 1, axis) + ends)


def _g_transposed(ends: Array, middles: Array, axis: int) -> Array:
    half_sum, half_difference = ((_at(middles, 0, axis) + s * _at(middles, 1, axis)) / 2 for s in (1, -1))
    return lax.concatenate([_at(ends, 0, axis) + half_sum, half_difference, half_sum + _at(ends, 1, axis)], axis)


def _at(x: Array, index: int, axis: int) -> Array:
    return lax.slice_in_dim(x, index, index + 1, axis=axis)


def _sum_and_difference(a: Array, b: Array, axis: int) -> Array:
    """`a + b` and `a - b`, at `axis`, where both have one."""
    return a + _signs(a, axis) * b


def _signs(x: Array, axis: int) -> Array:
    """1 and -1 at `axis`."""
    return jnp.array([1, -1], x.dtype).reshape([2 if i == axis else 1 for i in range(x.ndim)])
