"""Forms of the convolution rules for CPUs, where XLA's convolution gradients are slow.

Each has the signature and the meaning of the plain form in `conv_forms`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp
from jax import Array, lax

from jaxcnnbp.geometry.window import Ints, Window
from jaxcnnbp.ops.conv_forms import kernel_grad_by_taps
from jaxcnnbp.ops.conv_geometry import ConvGeometry
from jaxcnnbp.ops.numerics import cast, wide
from jaxcnnbp.taps import gather, pad_to_reach


def kernel_grad_by_image(x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """`kernel_grad_by_taps`, one image at a time: its patches stay in the cache from tap to tap."""
    padded, local = _pad_once(x, geometry)
    shape = geometry.kernel_shape(x.shape[-1], delta.shape[-1])
    return _sum_over_images(lambda image, d: kernel_grad_by_taps(image, d, local), padded, delta, shape)


def depthwise_kernel_grad_by_image(x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """`dk[t] = sum_u p[u, t] o delta[u]`, one image at a time into a sum a tap, column and channel.

    Summing into whole rows of (last spatial axis, channels) vectorises; a reduction to the channels alone does not.
    """
    padded, local = _pad_once(x, geometry)
    sum_type = wide(x.dtype)

    def rows_of(image: Array, d: Array) -> Array:
        d = cast(d, sum_type)
        products = [cast(p, sum_type) * d for _, p in gather(image, local.window)]
        return jnp.stack([jnp.sum(product, tuple(range(product.ndim - 2))) for product in products])

    row = delta.shape[-2:] if geometry.window.rank else delta.shape[-1:]
    by_column = _sum_over_images(rows_of, padded, delta, (geometry.window.taps, *row))
    return by_column.sum(1).reshape(geometry.kernel_shape(x.shape[-1], delta.shape[-1]))


def _pad_once(x: Array, geometry: ConvGeometry) -> tuple[Array, ConvGeometry]:
    """`x` padded, and the geometry of what is left to do."""
    padded = pad_to_reach(x, geometry.window)
    return padded, replace(geometry, window=unpadded_window(geometry.window, padded.shape[1:-1]))


def unpadded_window(window: Window, spatial: Ints) -> Window:
    """`window` over an input that has its padding and its gaps already."""
    neutral = (0, 0), 1
    padding, gaps = ((value,) * window.rank for value in neutral)
    return replace(window, spatial=tuple(spatial), padding=padding, input_dilation=gaps)


def _sum_over_images(of_image: Callable[[Array, Array], Array], x: Array, delta: Array, shape: Ints) -> Array:
    def add(total: Array, image: tuple[Array, Array]) -> tuple[Array, None]:
        one, its_delta = image
        return total + of_image(one[None], its_delta[None]), None

    return lax.scan(add, jnp.zeros(shape, wide(x.dtype)), (x, delta))[0]
