"""Winograd's minimal filtering: convolutions of stride 1 with fewer products than they have taps and outputs.

One axis first. `F(m, r)` makes m outputs y of r taps k and m + r - 1 inputs x by as many products (`o`) as inputs:

    y = A^T [ (G k) o (B^T x) ]

As polynomials the taps and the outputs are multiplied by their values at m + r - 2 points p and at infinity. With
`N_i = prod_{j != i} (p_i - p_j)` Lagrange's interpolation gives, a row or column a point,

    A^T[u, i] = p_i^u        G[i, t] = p_i^t / N_i        B^T[i, :] = coefficients of prod_{j != i} (z - p_j)

and at infinity the last coefficient alone, with `prod_j (z - p_j)`. On two axes Y = A^T [(G K G^T) o (B^T X B)] A over
tiles: 3x3 taps take 16 products for a tile of 2x2 outputs instead of 36, and 36 for 4x4 instead of 144. The products of
all tiles and channels are so many matrix products. The map is bilinear, so its transposes are the same sums backwards:

    forward        Y  = A^T [ (G K G^T) (B^T X B) ] A
    input grad     the forward of delta with the flipped kernel
    kernel grad    dK = G^T [ sum over tiles (B^T X B)^T (A delta A^T) ] G

The sums round. In units in the last place of the largest result, float32, the worst of the three passes:

    channels, images     lax     2x2     4x4     2x2 of 5x5 taps
    64, 8x56x56          119     9       35      44
    512, 4x14x14         11      15      75      76

A NaN or an infinity reaches the whole tile, and so does the rounding of a number that is much larger than the others.
`precision=jax.lax.Precision.HIGHEST` asks for the plain form.

Source: A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks (2015), section 4; B. Barabasz et al.,
Error Analysis and Improving the Accuracy of Winograd Convolution (2020), for the choice of points. Each form has the
signature and the meaning of the plain form in `ops.conv.forms`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnnbp.geometry.window import Window
from jaxcnnbp.ops._dtypes import cast, wide
from jaxcnnbp.ops._sharding import zeros_varying_like
from jaxcnnbp.ops._xla_cpu import compute_once
from jaxcnnbp.ops.conv.cpu.im2col import largest_divisor
from jaxcnnbp.ops.conv.geometry import ConvGeometry, dual
from jaxcnnbp.taps import pad_axes


class Filter(NamedTuple):
    """F(m, r)."""

    a_transposed: np.ndarray
    g: np.ndarray
    b_transposed: np.ndarray

    @property
    def outputs(self) -> int:
        return len(self.a_transposed)

    @property
    def cells(self) -> int:
        """Inputs of a tile along one axis, and products."""
        return len(self.g)


Tiles = Mapping[int, Filter]


def interpolated(outputs: int, taps: int, points: Sequence[float]) -> Filter:
    """F(outputs, taps) by the values at `points`, two fewer than both together, and at infinity."""
    p, last = np.array(points, float), len(points)
    others = [np.delete(p, i) for i in range(last)]
    a_transposed = np.pad(np.vander(p, outputs, increasing=True).T, ((0, 0), (0, 1)))
    g = np.pad(np.vander(p, taps, increasing=True), ((0, 1), (0, 0)))
    g[:last] /= [[np.prod(own - rest)] for own, rest in zip(p, others, strict=True)]
    a_transposed[-1, last] = g[last, -1] = 1
    b_transposed = [np.append(np.poly(rest)[::-1], 0) for rest in others]
    return Filter(a_transposed, g, np.array([*b_transposed, np.poly(p)[::-1]]))


# Small points that are exact in binary: at 0, +-1, +-2 the sums would round twice as much.
_POINTS = 0, 0.75, -0.75, 1.5, -1.5
# By the taps along an axis.
TILES_2X2 = {3: interpolated(2, 3, (0, 1, -1)), 5: interpolated(2, 5, _POINTS)}
TILES_4X4 = {3: interpolated(4, 3, _POINTS)}

# Bytes of transformed tiles that are worked on at a time: they stay in the cache, and in memory that the process holds.
BLOCK_BYTES = 16 << 20


def forward_by_winograd(x: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """Y = A^T [(G K G^T) (B^T X B)] A over tiles of 2x2 outputs."""
    return _filtered(TILES_2X2, x, kernel, geometry, contracted=0)


def forward_by_winograd_4x4(x: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """The same over tiles of 4x4."""
    return _filtered(TILES_4X4, x, kernel, geometry, contracted=0)


def input_grad_by_winograd(delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """The full convolution of delta with the flipped kernel, whose outputs are summed over and not its inputs."""
    return _filtered(TILES_2X2, delta, lax.rev(kernel, (0, 1)), dual(geometry), contracted=1)


def input_grad_by_winograd_4x4(delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """The same over tiles of 4x4."""
    return _filtered(TILES_4X4, delta, lax.rev(kernel, (0, 1)), dual(geometry), contracted=1)


def kernel_grad_by_winograd(x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """dK = G^T [sum over tiles (B^T X B)^T (A delta A^T)] G, tiles of 2x2 outputs."""
    return _summed(TILES_2X2, x, delta, geometry)


def kernel_grad_by_winograd_4x4(x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """The same over tiles of 4x4."""
    return _summed(TILES_4X4, x, delta, geometry)


def _filtered(tiles: Tiles, x: Array, kernel: Array, geometry: ConvGeometry, contracted: int) -> Array:
    """The convolution of `x`, whose channels meet channel axis `contracted` of the kernel."""
    tile = tiles[kernel.shape[0]]
    strips = _Strips(tile, x, kernel.shape[3 - contracted], geometry.window)
    filters = _by_product(np.kron(tile.g, tile.g), cast(kernel, strips.sum_type))

    def of_strips(inputs: Array) -> Array:
        return strips.outputs(_dot(strips.tiles(inputs), filters, (3, contracted + 2), geometry))

    return strips.joined(lax.map(of_strips, strips.blocks()))


def _summed(tiles: Tiles, x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """The kernel gradient."""
    tile = tiles[geometry.window.size[0]]
    strips = _Strips(tile, x, delta.shape[-1], geometry.window)

    def add(total: Array, block: tuple[Array, Array]) -> tuple[Array, None]:
        return total + _dot(strips.tiles(block[0]), strips.deltas(block[1]), (2, 2), geometry), None

    shape = jax.ShapeDtypeStruct((tile.cells, tile.cells, x.shape[-1], delta.shape[-1]), strips.sum_type)
    blocks = strips.blocks(), strips.blocks_of_outputs(delta)
    total, _ = lax.scan(add, zeros_varying_like(shape, x, delta), blocks)
    return _by_product(np.kron(tile.g, tile.g).T, total)


def fits(geometry: ConvGeometry, tiles: Tiles) -> bool:
    """Whether a convolution is of the kind: stride 1, no gaps in the input, no groups, precision not asked for."""
    window = geometry.window
    square = any(window.size == (taps, taps) for taps in tiles)
    plain = window.stride == window.input_dilation == (1, 1) and geometry.groups == 1
    return square and plain and _is_default(geometry.precision)


def _is_default(precision: Any) -> bool:
    return precision is None or lax.Precision.DEFAULT in (
        precision,
        *(precision if isinstance(precision, tuple) else ()),
    )


class _Strips:
    """Images cut into strips of some rows of tiles, so many at a time that their tiles stay in the cache.

    With a dilation of d a tile has every d-th output, and d tiles lie within each other along an axis.
    """

    def __init__(self, tile: Filter, x: Array, features_out: int, window: Window):
        self.tile, self.x, self.window, self.sum_type = tile, x, window, wide(x.dtype)
        self.batch, self.features_out = x.shape[0], features_out
        self.outputs_a_step = [tile.outputs * d for d in window.dilation]  # of tiles within each other
        # How many steps there are along each axis.
        self.high, self.wide = (-(-o // step) for o, step in zip(window.output, self.outputs_a_step, strict=True))
        bytes_a_cell = tile.cells**2 * self.sum_type.itemsize
        bytes_a_step = bytes_a_cell * self.wide * math.prod(window.dilation) * (x.shape[-1] + features_out)
        # Every block reads all filters, or adds to the sums of all.
        bytes_a_block = max(BLOCK_BYTES, bytes_a_cell * x.shape[-1] * features_out)
        self.steps = largest_divisor(self.high, max(1, bytes_a_block // bytes_a_step))
        self.count = self.high // self.steps
        self.size = largest_divisor(self.batch * self.count, max(1, bytes_a_block // (bytes_a_step * self.steps)))
        self.rows = self.steps * self.outputs_a_step[0]  # of outputs of a strip
        self.height, self.width = self.high * self.outputs_a_step[0], self.wide * self.outputs_a_step[1]

    def blocks(self) -> Array:
        """`(blocks, strips, rows of inputs, columns, in)`: strips share some rows with the next."""
        (top, _), (left, _) = self.window.padding
        shared, beside = ((self.tile.cells - self.tile.outputs) * d for d in self.window.dilation)
        rows, height, width = self.rows, self.height + shared, self.width + beside
        edges = [(top, height - top - self.x.shape[1], 0), (left, width - left - self.x.shape[2], 0)]
        padded = pad_axes(cast(self.x, self.sum_type), edges)
        strips = [padded[:, rows * s : rows * (s + 1) + shared] for s in range(self.count)]
        whole = padded if self.count == 1 else jnp.stack(strips, 1)
        return whole.reshape(-1, self.size, rows + shared, width, self.x.shape[-1])

    def blocks_of_outputs(self, delta: Array) -> Array:
        """`(blocks, strips, rows of outputs, columns, out)`."""
        edges = [(0, n - o, 0) for n, o in zip((self.height, self.width), self.window.output, strict=True)]
        padded = pad_axes(cast(delta, self.sum_type), edges)
        return padded.reshape(-1, self.size, self.rows, self.width, delta.shape[-1])

    def tiles(self, inputs: Array) -> Array:
        """B^T X B of every tile, `(cells, cells, tiles, in)`."""
        return self._by_tile(self.tile.b_transposed, inputs)

    def deltas(self, delta: Array) -> Array:
        """A delta A^T of every tile, `(cells, cells, tiles, out)`."""
        return self._by_tile(self.tile.a_transposed.T, delta)

    def _by_tile(self, matrix: np.ndarray, strips: Array) -> Array:
        """M X M^T of every tile."""
        down, right = (
            np.add.outer(np.arange(n) * step, np.arange(d)).ravel()
            for n, step, d in zip((self.steps, self.wide), self.outputs_a_step, self.window.dilation, strict=True)
        )
        apart, beside = self.window.dilation
        columns = compute_once(lambda x: _times(matrix, x, 1, down, apart), strips)
        sums, cells = _times(matrix, columns, 2, right, beside), self.tile.cells
        sums = sums.reshape(self.size, cells, len(down), cells, len(right), strips.shape[-1])
        return sums.transpose(1, 3, 0, 2, 4, 5).reshape(cells, cells, -1, strips.shape[-1])

    def outputs(self, products: Array) -> Array:
        """Y = A^T [products] A, laid out as strips."""
        matrix, cells, outputs = self.tile.a_transposed, self.tile.cells, self.tile.outputs
        tiles = products.reshape(cells, cells, -1, self.features_out)
        y = _times(matrix, compute_once(lambda p: _times(matrix, p, 0), tiles), 1)
        down, right = self.window.dilation
        y = y.reshape(outputs, outputs, self.size, self.steps, down, self.wide, right, self.features_out)
        return y.transpose(2, 3, 0, 4, 5, 1, 6, 7).reshape(self.size, self.rows, self.width, self.features_out)

    def joined(self, y: Array) -> Array:
        """The strips as images, without what a tile at the edge has too much."""
        images = y.reshape(self.batch, self.height, self.width, self.features_out)
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


def _times(matrix: np.ndarray, x: Array, axis: int, starts: Sequence[int] | np.ndarray = (0,), apart: int = 1) -> Array:
    """M x of the cells along `axis` that begin at each of `starts` and are so far `apart`, `(rows, starts)` there.

    A term for each number that a row has beside zeros: one expression is one loop, and compiled in one.
    """
    terms = np.count_nonzero(matrix, 1).max()
    cells = np.argsort(matrix == 0, axis=1, kind="stable")[:, :terms]
    factors = np.take_along_axis(matrix, cells, 1)
    rest = tuple(other for other in range(x.ndim) if other != axis)
    numbers = lax.GatherDimensionNumbers(rest, (axis,), (axis,))
    one_cell = tuple(1 if other == axis else extent for other, extent in enumerate(x.shape))

    def term(number: int) -> Array:  # in `lax`: an operator of `jnp` takes several times as long to trace
        index = np.add.outer(cells[:, number] * apart, starts).reshape(-1, 1).astype(np.int32)
        read = lax.gather(x, index, numbers, one_cell, mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS)
        factor = np.repeat(factors[:, number], len(starts)).astype(x.dtype)
        return read if (factor == 1).all() else lax.mul(read, lax.broadcast_in_dim(factor, read.shape, (axis,)))

    return reduce(lax.add, map(term, range(terms)))
