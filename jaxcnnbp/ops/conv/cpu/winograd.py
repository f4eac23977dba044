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

The sums round: results differ from the plain form by two or three units in the last place of the largest product, and a
NaN or an infinity reaches the whole tile. `precision=jax.lax.Precision.HIGHEST` asks for the plain form.

Source: A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks (2015), section 4.1. Each form has the
signature and the meaning of the plain form in `ops.conv.forms`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnnbp.geometry.window import Window
from jaxcnnbp.ops._dtypes import cast, wide
from jaxcnnbp.ops._sharding import zeros_varying_like
from jaxcnnbp.ops.conv.cpu.im2col import largest_divisor
from jaxcnnbp.ops.conv.geometry import ConvGeometry, dual
from jaxcnnbp.taps import pad_axes

A_TRANSPOSED = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
B_TRANSPOSED = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])

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
    filters = _by_product(np.kron(G, G), cast(kernel, strips.sum_type))

    def of_strips(inputs: Array) -> Array:
        return strips.outputs(_dot(strips.tiles(inputs), filters, (3, contracted + 2), geometry))

    return strips.joined(lax.map(of_strips, strips.blocks()))


def kernel_grad_by_winograd(x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """dK = G^T [sum over tiles (B^T X B)^T (A delta A^T)] G."""
    strips = _Strips(x, geometry.window, delta.shape[-1])

    def add(total: Array, block: tuple[Array, Array]) -> tuple[Array, None]:
        return total + _dot(strips.tiles(block[0]), strips.deltas(block[1]), (2, 2), geometry), None

    shape = jax.ShapeDtypeStruct((4, 4, x.shape[-1], delta.shape[-1]), strips.sum_type)
    blocks = strips.blocks(), strips.blocks_of_outputs(delta)
    total, _ = lax.scan(add, zeros_varying_like(shape, x, delta), blocks)
    return _by_product(np.kron(G, G).T, total)


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

    def tiles(self, inputs: Array) -> Array:
        """B^T X B of every tile, `(4, 4, tiles, in)`."""
        return self._by_tile(B_TRANSPOSED, inputs)

    def deltas(self, delta: Array) -> Array:
        """A delta A^T of every tile, `(4, 4, tiles, out)`."""
        return self._by_tile(A_TRANSPOSED.T, delta)

    def _by_tile(self, matrix: np.ndarray, strips: Array) -> Array:
        """M X M^T of every tile, the first cells of which are two apart."""
        sums = _times(matrix, strips, 1, range(0, 2 * self.rows, 2))
        sums = _times(matrix, sums, 2, range(0, 2 * self.wide, 2))
        sums = sums.reshape(self.size, 4, self.rows, 4, self.wide, strips.shape[-1])
        return sums.transpose(1, 3, 0, 2, 4, 5).reshape(4, 4, -1, strips.shape[-1])

    def outputs(self, products: Array) -> Array:
        """Y = A^T [products] A, laid out as strips."""
        tiles = (4, 4, self.size, self.rows, self.wide, self.features_out)
        y = _times(A_TRANSPOSED, _times(A_TRANSPOSED, products.reshape(tiles), 0), 1)
        return y.transpose(2, 3, 0, 4, 1, 5).reshape(self.size, 2 * self.rows, 2 * self.wide, self.features_out)

    def joined(self, y: Array) -> Array:
        """The strips as images, without what an odd output has too much."""
        images = y.reshape(self.batch, 2 * self.high, 2 * self.wide, self.features_out)
        return images[:, : self.window.output[0], : self.window.output[1]]


def _dot(a: Array, b: Array, contracted: tuple[int, int], geometry: ConvGeometry) -> Array:
    """A matrix product for every pair of the first two axes."""
    of_a, of_b = contracted
    return lax.dot_general(a, b, (((of_a,), (of_b,)), ((0, 1), (0, 1))), geometry.precision)


def _by_product(matrix: np.ndarray, x: Array) -> Array:
    """M X M^T on the first two axes as one matrix product; `matrix` is the Kronecker product of M with itself."""
    side, rest = math.isqrt(len(matrix)), x.shape[2:]
    flat = x.reshape(matrix.shape[1], math.prod(rest))
    return lax.dot(jnp.asarray(matrix, x.dtype), flat, precision=lax.Precision.HIGHEST).reshape(side, side, *rest)


def _times(matrix: np.ndarray, x: Array, axis: int, starts: Sequence[int] = (0,)) -> Array:
    """M x of the cells along `axis` that begin at each of `starts`, `(rows, starts)` there.

    A term for each number that a row has beside zeros: one expression is one loop, and compiled in one.
    """
    terms = np.count_nonzero(matrix, 1).max()
    cells = np.argsort(matrix == 0, axis=1, kind="stable")[:, :terms]
    factors = np.take_along_axis(matrix, cells, 1)
    rest = tuple(other for other in range(x.ndim) if other != axis)
    numbers = lax.GatherDimensionNumbers(rest, (axis,), (axis,))
    one_cell = tuple(1 if other == axis else extent for other, extent in enumerate(x.shape))

    def term(number: int) -> Array:  # in `lax`: an operator of `jnp` takes several times as long to trace
        index = np.add.outer(cells[:, number], starts).reshape(-1, 1).astype(np.int32)
        read = lax.gather(x, index, numbers, one_cell, mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS)
        factor = np.repeat(factors[:, number], len(starts)).astype(x.dtype)
        return read if (factor == 1).all() else lax.mul(read, lax.broadcast_in_dim(factor, read.shape, (axis,)))

    return reduce(lax.add, map(term, range(terms)))
