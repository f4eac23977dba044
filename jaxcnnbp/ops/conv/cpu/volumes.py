"""Convolutions over three and more spatial axes on CPUs, as convolutions over one axis less.

The taps of the first spatial axis become channels and its outputs become images: with `t = (i, r)` a tap and
`x_i[u] = x[u s + i d - low]` the input as tap i of the first axis reads it,

    y[u]  = sum_r sum_(i, c) x_i[u; r, c] k[i, r, c]

is a convolution of the `x_i` side by side, whose channels are the pairs (i, c). The kernel gradient is the same sum the
other way. XLA has a fast convolution over two axes and none over three. The `x_i` hold every input cell once a tap, so
forwards make them block by block of volumes. Each form has the signature and the meaning of the plain form in
`ops.conv.forms`.
"""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
from jax import Array

from jaxcnnbp.geometry.window import Window
from jaxcnnbp.ops.conv.cpu.im2col import by_blocks, patch_bytes, patches
from jaxcnnbp.ops.conv.geometry import ConvGeometry, Form, dual, transposed_kernel


def forward_by_slices(of_images: Form, x: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """`of_images` is the rule over one axis less."""
    folded = _first_into_channels(kernel)

    def of_volumes(x: Array) -> Array:
        return of_images(_taps_as_channels(x, geometry), folded, _without_first(geometry))

    y = by_blocks(of_volumes, patch_bytes(x, _first_only(geometry)), x)
    return y.reshape(geometry.output_shape(x.shape[0], kernel.shape[-1]))


def input_grad_by_slices(of_images: Form, delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """The convolution of delta with the flipped kernel: `of_images` is the forward rule over one axis less."""
    return forward_by_slices(of_images, delta, transposed_kernel(kernel, geometry), dual(geometry))


def kernel_grad_by_slices(of_images: Form, x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """`of_images` is the rule over one axis less."""
    images = delta.reshape(-1, *delta.shape[2:])
    folded = of_images(_taps_as_channels(x, geometry), images, _without_first(geometry))
    split = folded.reshape(*geometry.window.size[1:], geometry.window.size[0], x.shape[-1], delta.shape[-1])
    return jnp.moveaxis(split, geometry.window.rank - 1, 0)


def _taps_as_channels(x: Array, geometry: ConvGeometry) -> Array:
    """`(batch, depth, *rest, in)` -> `(batch * output depth, *rest, taps * in)`."""
    return patches(x, _first_only(geometry)).reshape(-1, *x.shape[2:-1], geometry.window.size[0] * x.shape[-1])


def _first_into_channels(kernel: Array) -> Array:
    """`(depth, *rest, in, out)` -> `(*rest, depth * in, out)`."""
    moved = jnp.moveaxis(kernel, 0, -3)
    return moved.reshape(*moved.shape[:-3], -1, kernel.shape[-1])


def _first_only(geometry: ConvGeometry) -> ConvGeometry:
    """The geometry of the first axis, the others passed through."""
    return replace(geometry, window=geometry.window.along(0))


def _without_first(geometry: ConvGeometry) -> ConvGeometry:
    """The geometry of the other axes."""
    w = geometry.window
    rest = Window(w.spatial[1:], w.size[1:], w.stride[1:], w.padding[1:], w.dilation[1:], w.input_dilation[1:])
    return replace(geometry, window=rest)
