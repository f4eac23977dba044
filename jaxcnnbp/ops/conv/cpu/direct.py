"""Direct convolution on CPUs: no matrix product, all taps of a few channels in one loop.

    forward      y[u, o]     = sum over taps t and channels i of p[u, t, i] k[t, i, o]
    input grad   dx          = the same of delta and the flipped kernel
    kernel grad  dk[t, i, o] = sum over columns of p[u, t, i] delta[u, o], and then over rows and images

Each loop sums a vector of output channels in registers, of one number of the input times a vector a tap and channel, or
where a convolution is depthwise of a vector of each. Groups, and a few channels of a depthwise convolution at a time,
are laid out one after the other, so that their weights stay in the cache or even in registers while the loop goes over
their image; oneDNN's `nChw16c` does the same.

Each form has the signature and the meaning of the plain form in `ops.conv.forms`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnnbp.geometry.window import Ints, Window
from jaxcnnbp.ops._dtypes import cast, wide
from jaxcnnbp.ops._xla_cpu import compute_once
from jaxcnnbp.ops.conv.cpu.im2col import largest_divisor
from jaxcnnbp.ops.conv.forms import add_up
from jaxcnnbp.ops.conv.geometry import ConvGeometry, dual, transposed_kernel
from jaxcnnbp.taps import pad_once, take_tap

REGISTERS = 32  # of vectors, where weights may stay
COLUMNS = 64  # that are written out at most, and summed in a register


def forward_direct(x: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """Block by block of channels, the sum of all products."""
    sum_type = wide(x.dtype)
    padded, window = pad_once(cast(x, sum_type), geometry.window)
    depth, features = kernel.shape[-2:]
    blocks = geometry.groups
    if depth == 1 < blocks:
        padded = _for_each_output(padded, features)
        blocks = features // _lanes(window.taps, features)
    images = jnp.moveaxis(padded.reshape(*padded.shape[:-1], blocks, -1), -2, 1)
    weights = jnp.moveaxis(cast(kernel, sum_type).reshape(window.taps, depth, blocks, -1), 2, 0)
    sums = partial(_sums_of_taps, window=window)
    # A function of its own: XLA would otherwise leave the images where they are, and only count differently.
    y = compute_once(sums, images, weights) if blocks > 1 else sums(images, weights)
    return jnp.moveaxis(y, 1, -2).reshape(geometry.output_shape(x.shape[0], features))


def input_grad_direct(delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """The full convolution of delta, with zeros in the gaps of the stride, with the flipped kernel."""
    return forward_direct(delta, transposed_kernel(kernel, geometry), dual(geometry))


def kernel_grad_direct(x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """A row of taps after the other: the sums of its products over columns, then those over rows and images."""
    sum_type, features = wide(x.dtype), delta.shape[-1]
    padded, window = pad_once(cast(x, sum_type), geometry.window)
    depthwise = geometry.groups == x.shape[-1] > 1
    if depthwise:
        padded = _for_each_output(padded, features)
    images, deltas, axis = _in_strips(padded, cast(delta, sum_type), window)
    if not depthwise:
        images, deltas = (a.reshape(*a.shape[:-1], geometry.groups, -1) for a in (images, deltas))
    sums = partial(_sums_of_columns, window=window, axis=axis)

    def of_row(row: Ints) -> Array:
        corner = (np.int32(t * d) for t, d in zip(row, window.dilation, strict=False))
        # A function of its own: XLA would otherwise sum over everything at once, a number at a time.
        return compute_once(sums, images, deltas, *corner).sum(tuple(range(axis)))

    by_tap = jnp.concatenate([of_row(row) for row in np.ndindex(*window.size[:-1])])
    by_group = by_tap.reshape(window.taps, geometry.groups, -1, features // geometry.groups)
    return jnp.moveaxis(by_group, 1, 2).reshape(geometry.kernel_shape(x.shape[-1], features))


def _lanes(taps: int, channels: int) -> int:
    """Channels of a depthwise convolution in a block: two vectors of 8 if the registers hold their weights, or one.

    All of them where neither divides their number.
    """
    wanted = 16 if 2 * taps <= REGISTERS else 8
    return next(n for n in (wanted, 8, channels) if channels % n == 0)


def has_strips(window: Window) -> bool:
    """Whether rows of outputs split into strips that are wide enough to be summed as one."""
    return window.rank > 0 and _columns(window) >= min(window.output[-1], 16)


def _columns(window: Window) -> int:
    """Outputs in a strip: all strips are equal, for the zeros that would fill one up must not meet a NaN."""
    return largest_divisor(max(window.output[-1], 1), COLUMNS)


def _for_each_output(x: Array, features: int) -> Array:
    """Every channel as often as there are outputs of it."""
    times = features // x.shape[-1]
    return x if times == 1 else jnp.repeat(x, times, -1)


def _sums_of_taps(images: Array, weights: Array, window: Window) -> Array:
    """`(batch, blocks, *spatial, in)` by `(blocks, taps, in / g, out)` to `(batch, blocks, *output, out)`."""
    batch, blocks, *_, width = images.shape
    _, _, depth, features = weights.shape
    shape = (batch, blocks, *window.output, features)
    last = len(shape) - 1

    # The blocks are one more axis, along which a window has one tap.
    fields = "size", "stride", "dilation", "input_dilation"
    one_more = {name: (1, *getattr(window, name)) for name in fields}
    over_blocks = replace(window, spatial=(blocks, *window.spatial), padding=((0, 0), *window.padding), **one_more)

    def products() -> Iterator[Array]:
        for n, tap in enumerate(over_blocks.tap_indices()):
            p = take_tap(images, over_blocks, tap)
            for i in range(depth):
                cells = p if width > depth else lax.index_in_dim(p, i, last, False)
                yield _times(cells, tuple(range(cells.ndim)), weights[:, n, i], (1, last), shape)

    return add_up(products())


def _in_strips(padded: Array, delta: Array, window: Window) -> tuple[Array, Array, int]:
    """Both with so many outputs side by side as are written out, and the cells that they read; and that axis.

    A wide image has an axis of strips before it.
    """
    width, axis = window.output[-1], window.rank
    columns = _columns(window)
    if columns >= width:
        return padded, delta, axis
    step = columns * window.stride[-1]
    cells = step - window.stride[-1] + window.extent[-1]
    images = [
        lax.slice_in_dim(padded, first, first + cells, 1, axis) for first in range(0, width // columns * step, step)
    ]
    return jnp.stack(images, axis), delta.reshape(*delta.shape[:axis], -1, columns, delta.shape[-1]), axis + 1


def _sums_of_columns(images: Array, deltas: Array, *corner: Array, window: Window, axis: int) -> Array:
    """Over `axis` of both: of delta's channels, or of `(groups, in / g, out / g)`, for every tap of the row."""
    channels = images.shape[axis + 1 :]
    spans = [(o - 1) * s + 1 for o, s in zip(window.output[:-1], window.stride, strict=False)]
    rest = images.ndim - window.rank
    start = (np.int32(0), *corner, *(np.int32(0),) * rest)
    rows = lax.dynamic_slice(images, start, (images.shape[0], *spans, *images.shape[window.rank :]))
    rows = lax.slice(rows, (0,) * rows.ndim, rows.shape, (1, *window.stride[:-1], *(1,) * rest))
    shape = (*rows.shape[:axis], window.size[-1], *channels, *deltas.shape[axis + 2 :])
    # Depthwise both have the same channels, else the groups in common.
    of_delta = (*range(axis), axis + 1, *range(axis + 3, len(shape)))

    def products() -> Iterator[Array]:
        for column in range(deltas.shape[axis]):
            first = column * window.stride[-1]
            cells = lax.slice_in_dim(rows, first, first + window.extent[-1], window.dilation[-1], axis)
            numbers = lax.index_in_dim(deltas, column, axis, False)
            yield _times(cells, tuple(range(cells.ndim)), numbers, of_delta, shape)

    return add_up(products())


def _times(a: Array, of_a: Ints, b: Array, of_b: Ints, shape: Ints) -> Array:
    """The products of both, whose axes are those of `shape`."""
    return lax.mul(*(lax.broadcast_in_dim(each, shape, axes) for each, axes in ((a, of_a), (b, of_b))))
