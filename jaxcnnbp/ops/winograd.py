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
signature and the meaning of the plain form in `conv_forms`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxcnnbp.geometry.window import Window
from jaxcnnbp.ops.conv_geometry import ConvGeometry, dual
from jaxcnnbp.ops.conv_patches import largest_divisor
from jaxcnnbp.ops.devices import alike_zeros
from jaxcnnbp.ops.numerics import cast, wide

Grid = list[list[Array]]
Sums = Callable[[list[Array]], list[Array]]

# Bytes of transformed tiles that are worked on at a time: they stay in the cache, and in memory that the process holds.
BLOCK_BYTES = 16 << 20


def forward_by_winograd(x: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """Y = A^T [(G K G^T) (B^T X B)] A."""
    taps = [[kernel[i, j] for j in range(3)] for i in range(3)]
    return _filtered(x, taps, geometry, kernel.shape[-1], contracted=0)


def input_grad_by_winograd(delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """The full convolution of delta with the flipped kernel, whose outputs are summed over and not its inputs."""
    flipped = [[kernel[2 - i, 2 - j] for j in range(3)] for i in range(3)]
    return _filtered(delta, flipped, dual(geometry), kernel.shape[-2], contracted=1)


def _filtered(x: Array, taps: Grid, geometry: ConvGeometry, features_out: int, contracted: int) -> Array:
    """The convolution of `x`, whose channels meet axis `contracted` of every tap."""
    strips = _Strips(x, geometry.window, features_out)
    products = _on_both_axes(_g, [[cast(tap, strips.sum_type) for tap in row] for row in taps])

    def of_strips(inputs: Array) -> Array:
        tiles = _on_both_axes(_b_transposed, strips.tiles(inputs))
        rows = zip(tiles, products, strict=True)
        mixed = [[_dot(v, u, (1, contracted), geometry) for v, u in zip(*row, strict=True)] for row in rows]
        return strips.outputs(_on_both_axes(_a_transposed, mixed))

    return strips.joined(lax.map(of_strips, strips.blocks()))


def kernel_grad_by_winograd(x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """dK = G^T [sum over tiles (B^T X B)^T (A delta A^T)] G."""
    strips = _Strips(x, geometry.window, delta.shape[-1])

    def add(sums: Grid, block: tuple[Array, Array]) -> tuple[Grid, None]:
        tiles = _on_both_axes(_b_transposed, strips.tiles(block[0]))
        deltas = _on_both_axes(_a, strips.pairs(block[1]))
        rows = zip(tiles, deltas, strict=True)
        more = [[_dot(v, d, (0, 0), geometry) for v, d in zip(*row, strict=True)] for row in rows]
        return jax.tree.map(jnp.add, sums, more), None

    shape = jax.ShapeDtypeStruct((x.shape[-1], delta.shape[-1]), strips.sum_type)
    nothing = [[alike_zeros(shape, x, delta)] * 4] * 4
    total, _ = lax.scan(add, nothing, (strips.blocks(), strips.blocks_of_outputs(delta)))
    return jnp.stack([jnp.stack(row) for row in _on_both_axes(_g_transposed, total)])


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
        padded = lax.pad(cast(self.x, self.sum_type), jnp.zeros((), self.sum_type), [(0, 0, 0), *edges, (0, 0, 0)])
        step = 2 * self.rows
        strips = [padded[:, step * s : step * s + step + 2] for s in range(self.count)]
        whole = padded if self.count == 1 else jnp.stack(strips, 1)
        return whole.reshape(-1, self.size, step + 2, width, self.x.shape[-1])

    def blocks_of_outputs(self, delta: Array) -> Array:
        """`(blocks, strips, 2 rows, 2 tiles, out)`."""
        edges = [(0, 2 * n - o, 0) for n, o in zip((self.high, self.wide), self.window.output, strict=True)]
        padded = lax.pad(cast(delta, self.sum_type), jnp.zeros((), self.sum_type), [(0, 0, 0), *edges, (0, 0, 0)])
        return padded.reshape(-1, self.size, 2 * self.rows, 2 * self.wide, delta.shape[-1])

    def tiles(self, inputs: Array) -> Grid:
        """The 4x4 cells of every tile, each `[tiles x in]`; tiles overlap by two."""
        height, width = 2 * self.rows, 2 * self.wide
        cells = [[inputs[:, a : a + height - 1 : 2, b : b + width - 1 : 2] for b in range(4)] for a in range(4)]
        return [[cell.reshape(-1, cell.shape[-1]) for cell in row] for row in cells]

    def pairs(self, delta: Array) -> Grid:
        """The 2x2 cells of every tile of outputs, each `[tiles x out]`."""
        return [[delta[:, a::2, b::2].reshape(-1, delta.shape[-1]) for b in range(2)] for a in range(2)]

    def outputs(self, cells: Grid) -> Array:
        """2x2 cells of every tile, laid side by side: columns first, then rows."""
        line = (self.size, self.rows, 1, 2 * self.wide * self.features_out)
        rows = [lax.concatenate(row, 1).reshape(line) for row in cells]
        return lax.concatenate(rows, 2).reshape(self.size, 2 * self.rows, 2 * self.wide, self.features_out)

    def joined(self, y: Array) -> Array:
        """The strips as images, without what an odd output has too much."""
        images = y.reshape(self.batch, 2 * self.high, 2 * self.wide, self.features_out)
        return images[:, : self.window.output[0], : self.window.output[1]]


def _dot(a: Array, b: Array, contracted: tuple[int, int], geometry: ConvGeometry) -> Array:
    of_a, of_b = contracted
    return lax.dot_general(a, b, (((of_a,), (of_b,)), ((), ())), geometry.precision)


def _on_both_axes(sums: Sums, grid: Grid) -> Grid:
    """`sums` along the columns of `grid`, then along its rows."""
    columns = [sums([row[b] for row in grid]) for b in range(len(grid[0]))]
    return [sums([column[i] for column in columns]) for i in range(len(columns[0]))]


def _b_transposed(x: list[Array]) -> list[Array]:
    return [x[0] - x[2], x[1] + x[2], x[2] - x[1], x[1] - x[3]]


def _a_transposed(m: list[Array]) -> list[Array]:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _a(d: list[Array]) -> list[Array]:
    return [d[0], d[0] + d[1], d[0] - d[1], -d[1]]


def _g(k: list[Array]) -> list[Array]:
    return [k[0], (k[0] + k[1] + k[2]) / 2, (k[0] - k[1] + k[2]) / 2, k[2]]


def _g_transposed(m: list[Array]) -> list[Array]:
    return [m[0] + (m[1] + m[2]) / 2, (m[1] - m[2]) / 2, (m[1] + m[2]) / 2 + m[3]]
