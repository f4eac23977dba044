"""All taps of a window side by side, so that a convolution is one matrix product.

With `P = [positions x (taps, in)]` the patches and `K = [(taps, in) x out]` the kernel as it lies in memory:

    forward      Y  = P K
    input grad   dx = scatter(delta K^T)
    kernel grad  dK = P^T delta

The patches hold every input cell once a tap, so these forms are for images or batches small enough, and for blocks of
images. Where windows tile, as in stems and patch embeddings, they are the input transposed. Each has the signature and
the meaning of the plain form in `ops.conv.forms`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from jax import Array, lax

from jaxcnnbp.geometry.window import Ints, Window
from jaxcnnbp.ops._sharding import may_be_partitioned
from jaxcnnbp.ops.conv.forms import dot
from jaxcnnbp.ops.conv.geometry import ConvGeometry, dual, transposed_kernel
from jaxcnnbp.taps import Reader, gather, lay_blocks, pad_once, scatter, take_blocks

# Bytes of patches that one block of images makes: they stay in the cache, and small enough blocks take memory that the
# process holds already, where a large one is new pages from the system each time.
BLOCK_BYTES = 8 << 20


def forward_by_patches(x: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """Y = P K, block by block of images."""
    flat = kernel.reshape(-1, kernel.shape[-1])

    def of_images(x: Array) -> Array:
        return dot(patches(x, geometry), flat, ((1,), (0,)), geometry)

    y = by_blocks(of_images, patch_bytes(x, geometry), x)
    return y.reshape(geometry.output_shape(x.shape[0], kernel.shape[-1]))


def input_grad_by_patches_of_delta(delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """The convolution of delta, with zeros in the gaps of the stride, with the flipped kernel."""
    return forward_by_patches(delta, transposed_kernel(kernel, geometry), dual(geometry))


def input_grad_by_patches(delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """dx = scatter(delta K^T)."""
    flat = delta.reshape(-1, delta.shape[-1])
    sent = dot(flat, kernel.reshape(-1, kernel.shape[-1]), ((1,), (1,)), geometry)
    window, channels = geometry.window, kernel.shape[-2]
    if window.tiles or window.taps > 25:
        blocks = sent.reshape(*delta.shape[:-1], *window.size, channels)
        # Axis by axis there are as many additions, in a fraction of the operations.
        return lay_blocks(blocks, window) if window.tiles else _scattered_by_axis(blocks, window)
    by_tap = sent.reshape(*delta.shape[:-1], window.taps, channels)

    def sent_back(tap: Ints, read: Reader) -> Array:
        return read(lax.index_in_dim(by_tap, window.tap_number(tap), by_tap.ndim - 2, keepdims=False))

    return scatter(sent_back, window)


def kernel_grad_by_patches(x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """dK = P^T delta, summed over blocks of images."""

    def of_images(x: Array, delta: Array) -> Array:
        return dot(patches(x, geometry), delta.reshape(-1, delta.shape[-1]), ((0,), (0,)), geometry)

    sums = sum_over_images(of_images, patch_bytes(x, geometry), x, delta)
    return sums.reshape(geometry.kernel_shape(x.shape[-1], delta.shape[-1]))


def patches(x: Array, geometry: ConvGeometry) -> Array:
    """`[positions x (taps, in)]`."""
    if geometry.window.tiles:
        padded, window = pad_once(x, geometry.window)
        return take_blocks(padded, window).reshape(-1, window.taps * x.shape[-1])
    if _is_worth_axes(geometry.window, x.shape[-1]):
        return _patches_by_axis(x, geometry.window)
    taps = [p for _, p in gather(x, geometry.window)]
    return lax.concatenate(taps, x.ndim - 1).reshape(-1, len(taps) * x.shape[-1])


def _is_worth_axes(window: Window, channels: int) -> bool:
    """Where a few slices an axis compile in a fraction of the time of one a tap: 7x7 of 1, 2.4 -> 0.4 s.

    They take a third of the time to run as well, but with more channels the copies in between cost half as much again.
    """
    return window.taps > 25 or (window.taps > 9 and channels <= 8)


def _patches_by_axis(x: Array, window: Window) -> Array:
    padded, window = pad_once(x, window)
    for axis in reversed(range(window.rank)):
        step, stride, count = window.dilation[axis], window.stride[axis], window.output[axis]
        starts = [t * step for t in range(window.size[axis])]
        pieces = [lax.slice_in_dim(padded, a, a + (count - 1) * stride + 1, stride, axis + 1) for a in starts]
        padded = lax.concatenate(pieces, padded.ndim - 1)
    return padded.reshape(-1, padded.shape[-1])


def _scattered_by_axis(by_tap: Array, window: Window) -> Array:
    """The transpose: `(batch, *output, *size, channels)` -> `(batch, *spatial, channels)`."""
    rank, channels = window.rank, by_tap.shape[-1]
    for axis in reversed(range(rank)):
        shape, taps = by_tap.shape[: rank + 1], range(window.size[axis])
        each = [lax.index_in_dim(by_tap, t, rank + 1 + axis, keepdims=False).reshape(*shape, -1) for t in taps]

        def sent_back(tap: Ints, read: Reader, each: list[Array] = each, axis: int = axis) -> Array:
            return read(each[tap[axis]])

        spatial = (*window.output[:axis], *window.spatial[axis:])
        sums = scatter(sent_back, window.along(axis, spatial))
        by_tap = sums.reshape(shape[0], *spatial, *window.size[:axis], channels)
    return by_tap


def patch_bytes(x: Array, geometry: ConvGeometry) -> int:
    """Bytes of the patches of one image."""
    return math.prod(geometry.window.output) * geometry.window.taps * x.shape[-1] * x.dtype.itemsize


def sum_over_images(of_images: Callable[[Array, Array], Array], bytes_an_image: int, x: Array, delta: Array) -> Array:
    """The sum of `of_images` over blocks of images, the first of them smaller if they do not divide.

    The sum starts with the first block and not with zeros, so that inside `shard_map` it varies over the devices that
    the images vary over.
    """
    size = _images_a_block(x, bytes_an_image)
    first = x.shape[0] % size or size
    total = of_images(x[:first], delta[:first])
    count = (x.shape[0] - first) // size
    if count == 0:
        return total
    blocks = [a[first:].reshape(count, size, *a.shape[1:]) for a in (x, delta)]
    return lax.scan(lambda sum_, block: (sum_ + of_images(*block), None), total, tuple(blocks))[0]


def by_blocks(of_images: Callable[..., Array], bytes_an_image: int, *arrays: Array) -> Array:
    """`of_images(*arrays)` of one block of images after the other, `(blocks, ...)`; all are as large."""
    images = arrays[0].shape[0]
    size = largest_divisor(images, _images_a_block(arrays[0], bytes_an_image))
    if size == images:
        return of_images(*arrays)[None]
    return lax.map(lambda block: of_images(*block), tuple(a.reshape(-1, size, *a.shape[1:]) for a in arrays))


def _images_a_block(x: Array, bytes_an_image: int) -> int:
    """How many images make patches of `BLOCK_BYTES`; all of those on several devices, which a loop would gather."""
    if may_be_partitioned(x):
        return x.shape[0]
    return max(1, min(x.shape[0], BLOCK_BYTES // max(bytes_an_image, 1)))


def largest_divisor(n: int, limit: int) -> int:
    """The largest divisor of `n` up to `limit`."""
    return max(d for d in range(1, min(n, limit) + 1) if n % d == 0)
