"""Forms of the convolution rules for CPUs, where XLA's gradients of convolutions are slow.

Each has the signature and the meaning of the plain form in `conv_forms`, and serves any number of spatial axes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp
from jax import Array, lax

from jaxcnnbp.geometry.window import Ints, Window, unpadded
from jaxcnnbp.ops.conv_forms import forward_by_lax, forward_by_taps, input_grad_by_taps
from jaxcnnbp.ops.conv_geometry import ConvGeometry, dual, flip, swap_group_channels, transposed_kernel
from jaxcnnbp.ops.numerics import cast, wide
from jaxcnnbp.taps import crop_to_input, gather, interleave, pad_to_reach, phase_counts, take_tap

# Positions that one matrix product of a kernel gradient sums over: enough to fill it, few enough for the cache.
BLOCK_POSITIONS = 4096


# Blocks of images that an elementwise form is computed in.
BLOCKS = 16


def forward_by_image(x: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """`forward_by_taps`, some images at a time, for one input channel a group: shifted products, no matrix."""
    return _over_images(lambda images: forward_by_taps(images, kernel, geometry), x)


def input_grad_by_image(delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """`input_grad_by_taps`, some images at a time, for depthwise convolutions."""
    return _over_images(lambda deltas: input_grad_by_taps(deltas, kernel, geometry), delta)


def kernel_grad_by_rows(x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """`dk[t]^T = delta^T p[t]`, a few images at a time, the taps of the last axis side by side in one product.

    Delta is transposed once a block and not the patches once a tap: XLA's matrix product is about twice as fast with
    both operands in the order it reads them.
    """
    padded, window = pad_once(x, geometry.window)
    features_in, features_out = x.shape[-1], delta.shape[-1]
    rows = list(itertools.product(*map(range, window.size[:-1])))

    def products(images: Array, its_delta: Array) -> Array:
        by_feature = lax.optimization_barrier(its_delta.reshape(-1, features_out).T)
        terms = [_product(by_feature, _row_patches(images, window, row), geometry) for row in rows]
        return jnp.stack(terms, 1)

    total = _sum_over_images(products, padded, delta, _images_a_block(delta))
    by_tap = total.reshape(features_out, window.taps, features_in).transpose(1, 2, 0)
    return by_tap.reshape(geometry.kernel_shape(features_in, features_out))


def depthwise_kernel_grad_by_image(x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """`dk[t] = sum_u p[u, t] o delta[u]`, one image at a time into a sum a tap, column and channel.

    Summing into whole rows of (last spatial axis, channels) vectorises; a reduction to the channels alone does not.
    """
    padded, window = pad_once(x, geometry.window)
    sum_type = wide(x.dtype)

    def rows_of(image: Array, d: Array) -> Array:
        d = cast(d, sum_type)
        products = [cast(p, sum_type) * d for _, p in gather(image, window)]
        return jnp.stack([jnp.sum(product, tuple(range(product.ndim - 2))) for product in products])

    by_column = _sum_over_images(rows_of, padded, delta, 1)
    return by_column.sum(1).reshape(geometry.kernel_shape(x.shape[-1], delta.shape[-1]))


def input_grad_by_phases(delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """One stride-1 convolution a phase of the stride: no multiplication by the zeros between the deltas.

    Padded position `n + low = s m + r` is reached by the taps `t = s q + r` alone, so phase r is the full convolution
    of delta with the flipped sub-kernel `k[r::s]`, and the phases interleave.
    """
    window = geometry.window
    transposed = swap_group_channels(kernel, geometry.groups)

    def phase(offset: Ints) -> Array | None:
        taps = transposed[tuple(slice(r, None, s) for r, s in zip(offset, window.stride, strict=True))]
        return None if taps.size == 0 else _full_convolution(delta, taps, geometry)

    return crop_to_input(interleave(phase, window), window)


def input_grad_by_depth_to_space(delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """All phases in one convolution, as channels, then spread over the positions: for few input channels.

    The kernel is filled up with zeros to a multiple of the stride; the products with them cost less than a convolution
    of few channels a phase would.
    """
    window = geometry.window
    fills = [(0, -k % s, 0) for k, s in zip(window.size, window.stride, strict=True)]
    filled = lax.pad(kernel, jnp.zeros((), kernel.dtype), [*fills, (0, 0, 0), (0, 0, 0)])
    features_in, features_out = kernel.shape[-2:]
    counts = [n // s for n, s in zip(filled.shape, window.stride, strict=False)]
    split = filled.reshape(*itertools.chain(*zip(counts, window.stride, strict=True)), features_in, features_out)
    rank = window.rank
    order = (*range(0, 2 * rank, 2), 2 * rank + 1, *range(1, 2 * rank, 2), 2 * rank)
    taps = split.transpose(order).reshape(*counts, features_out, math.prod(window.stride) * features_in)
    phases = _full_convolution(delta, taps, geometry)
    return crop_to_input(_spread_channels(phases, window.stride, features_in), window)


def transposed_forward(
    input_grad_form: Callable[[Array, Array, ConvGeometry], Array], x: Array, kernel: Array, geometry: ConvGeometry
) -> Array:
    """A convolution over a dilated input is the input gradient of a strided one: its `input_grad_form` serves."""
    return input_grad_form(x, transposed_kernel(kernel, geometry), dual(geometry))


def transposed_kernel_grad(
    kernel_grad_form: Callable[[Array, Array, ConvGeometry], Array], x: Array, delta: Array, geometry: ConvGeometry
) -> Array:
    """Its kernel gradient is the strided one's with `x` and delta exchanged: delta is sliced, nothing is dilated."""
    swapped = kernel_grad_form(delta, x, dual(geometry))
    return flip(swap_group_channels(swapped, geometry.groups), geometry.window.rank)


def pad_once(x: Array, window: Window) -> tuple[Array, Window]:
    """`x` with its padding and gaps, and the window over it that is left."""
    return pad_to_reach(x, window), unpadded(window)


def _over_images(of_images: Callable[[Array], Array], x: Array) -> Array:
    """`of_images` over blocks of the batch, in a loop that XLA computes once.

    Written without the loop, elementwise operations are fused into every reader of their result and computed there
    again: four times by a 2x2 pool. `optimization_barrier` does not keep XLA's CPU backend from it.
    """
    batch = x.shape[0]
    blocks = max((n for n in range(1, BLOCKS + 1) if batch % n == 0), default=1)
    blocks = batch if blocks == 1 else blocks
    y = lax.map(of_images, x.reshape(blocks, batch // blocks, *x.shape[1:]))
    return y.reshape(batch, *y.shape[2:])


def _row_patches(images: Array, window: Window, row: Ints) -> Array:
    """`[positions x (taps of the last axis, channels)]` for one tap of the other axes."""
    taps = [take_tap(images, window, (*row, t)) for t in range(window.size[-1])]
    return lax.concatenate(taps, taps[0].ndim - 1).reshape(-1, len(taps) * images.shape[-1])


def _product(a: Array, b: Array, geometry: ConvGeometry) -> Array:
    return lax.dot(a, b, precision=geometry.precision, preferred_element_type=wide(a.dtype))


def _images_a_block(delta: Array) -> int:
    positions = math.prod(delta.shape[1:-1])
    return max(1, min(delta.shape[0], BLOCK_POSITIONS // max(positions, 1)))


def _sum_over_images(of_images: Callable[[Array, Array], Array], x: Array, delta: Array, size: int) -> Array:
    """The sum of `of_images` over blocks of `size` images, the first of them smaller if they do not divide.

    The sum starts with the first block and not with zeros, so that inside `shard_map` it varies over the devices that
    the images vary over.
    """
    first = x.shape[0] % size or size
    total = of_images(x[:first], delta[:first])
    count = (x.shape[0] - first) // size
    if count == 0:
        return total
    blocks = [a[first:].reshape(count, size, *a.shape[1:]) for a in (x, delta)]
    return lax.scan(lambda sum_, block: (sum_ + of_images(*block), None), total, tuple(blocks))[0]


def _full_convolution(delta: Array, taps: Array, geometry: ConvGeometry) -> Array:
    """`y[m] = sum_q delta[m - q] taps[q]` for every m below the number of positions of a phase."""
    window = geometry.window
    counts = phase_counts(window)
    size = taps.shape[: window.rank]
    pairs = [(q - 1, m - o) for q, m, o in zip(size, counts, window.output, strict=True)]
    ones = (1,) * window.rank
    plain = Window(window.output, tuple(size), ones, tuple(pairs), ones, ones)
    return forward_by_lax(delta, flip(taps, window.rank), replace(geometry, window=plain, output_dtype=None))


def _spread_channels(phases: Array, stride: Ints, features: int) -> Array:
    """`(batch, *m, (*stride, features))` -> `(batch, *(m * stride), features)`."""
    batch, *counts, _ = phases.shape
    rank = len(stride)
    split = phases.reshape(batch, *counts, *stride, features)
    order = (0, *itertools.chain(*((1 + a, 1 + rank + a) for a in range(rank))), 1 + 2 * rank)
    return split.transpose(order).reshape(batch, *(m * s for m, s in zip(counts, stride, strict=True)), features)
