"""The plain forms of the three convolution rules, and the forms that leave the work to `lax.conv_general_dilated`.

With `p[u, t] = gather(x)` (`taps`), `g` groups and all sums over channels inside a group:

    forward      y[u]  = sum_t p[u, t] k[t]
    input grad   dx    = scatter(delta[u] k[t]^T)
    kernel grad  dk[t] = sum_u p[u, t]^T delta[u]

Every form has the signature of its rule. Arrays are `(batch, *spatial, channels)`, kernels `(*window, in / g, out)`,
not mirrored. Sums are held in `wide` precision.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from functools import reduce
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnnbp.geometry.window import Ints, Window
from jaxcnnbp.ops import lax_itself
from jaxcnnbp.ops._dtypes import cast, wide
from jaxcnnbp.ops.conv.geometry import (
    ConvGeometry,
    dimension_numbers,
    dual,
    flip,
    swap_group_channels,
    transposed_kernel,
)
from jaxcnnbp.taps import Reader, gather, scatter, without_crop


def forward_by_taps(x: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """The meaning of a convolution: one matrix product a tap."""
    matrices = at_each_tap(kernel)
    return add_up(mix_channels(p, matrices[tap], geometry) for tap, p in gather(x, geometry.window))


def input_grad_by_taps(delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """The meaning of the input gradient: every tap sends `delta k^T` back to the cell it read."""
    transposed = at_each_tap(swap_group_channels(kernel, geometry.groups))

    def sent_back(tap: Ints, read: Reader) -> Array:
        return mix_channels(read(delta), transposed[tap], geometry)

    return scatter(sent_back, geometry.window)


def kernel_grad_by_taps(x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """The meaning of the kernel gradient: each tap's patch times delta, summed over batch and positions."""
    rows = [correlate_channels(p, delta, geometry) for _, p in gather(x, geometry.window)]
    return jnp.stack(rows).reshape(geometry.kernel_shape(x.shape[-1], delta.shape[-1]))


def forward_by_eigen(x: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """lax's convolution with an output that is larger than the input on one axis, and cropped to what was asked for.

    XLA has two convolutions on CPUs and takes Eigen's for such an output, elsewhere YNNPACK's, which may take twice as
    long (`IsConvolutionOpSupportedByYnn`, https://github.com/openxla/xla, xla/backends/cpu/ynn_support.cc).
    """
    window = geometry.window
    more = [n - o + 1 for n, o in zip(window.dilated, window.output, strict=True)]
    axis = min(range(window.rank), key=lambda a: more[a] / window.output[a])
    low, high = window.padding[axis]
    padding = (*window.padding[:axis], (low, high + more[axis]), *window.padding[axis + 1 :])
    y = forward_by_lax(x, kernel, replace(geometry, window=replace(window, padding=padding)))
    return lax.slice_in_dim(y, 0, window.output[axis], 1, axis + 1)


def input_grad_by_eigen(delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """The full convolution of delta with the flipped kernel, likewise."""
    return forward_by_eigen(delta, transposed_kernel(kernel, geometry), dual(geometry))


def forward_by_lax(x: Array, kernel: Array, geometry: ConvGeometry, layout: Any = None) -> Array:
    """`lax`'s own convolution, of arrays with channels last unless `layout` says otherwise."""
    x, window = without_crop(x, geometry.window)
    # Not `reach`: cuDNN pads both ends alike, and for a padding that ends with the last window XLA copies the input.
    padding = window.reach if any(low < 0 or high < 0 for low, high in window.padding) else window.padding
    return lax_itself.conv_general_dilated(
        x,
        kernel,
        window.stride,
        padding,
        window.input_dilation,
        window.dilation,
        layout or dimension_numbers(window.rank),
        feature_group_count=geometry.groups,
        precision=geometry.precision,
        preferred_element_type=geometry.output_dtype,
    )


def input_grad_by_lax(delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """The full convolution of delta, with zeros in the gaps of the stride, with the flipped kernel (`dual`)."""
    if geometry.groups > 1:
        return input_grad_as_forward(delta, kernel, geometry)
    # The layout says that in and out change places: nothing has to be moved for it.
    numbers, last = dimension_numbers(geometry.window.rank), geometry.window.rank + 1
    exchanged = numbers._replace(rhs_spec=(last - 1, last, *range(last - 1)))
    return forward_by_lax(delta, flip(kernel, geometry.window.rank), dual(geometry), exchanged)


def input_grad_as_forward(delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """The same, the kernel laid out as a forward one's.

    On CPUs XLA exchanges the channels itself, but inside loops it runs the exchanged layout as a plain loop instead.
    """
    return forward_by_lax(delta, transposed_kernel(kernel, geometry), dual(geometry))


def kernel_grad_by_lax(x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """A convolution whose window is delta: batch and channels of `x` change places, stride and dilation too."""
    x, window = without_crop(x, geometry.window)
    rank, last = window.rank, window.rank + 1
    spatial = tuple(range(1, last))
    numbers = lax.ConvDimensionNumbers((last, 0, *spatial), (last, 0, *spatial), (rank, last, *range(rank)))
    return _convolved_with_delta(x, delta, window, geometry, numbers)


def kernel_grad_as_forward(x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """The same, operands and gradient laid out as a forward convolution's; for CPUs, as `input_grad_as_forward`."""
    x, window = without_crop(x, geometry.window)
    images, filters = jnp.moveaxis(x, (0, -1), (-1, 0)), jnp.moveaxis(delta, 0, -2)
    grad = _convolved_with_delta(images, filters, window, geometry, dimension_numbers(window.rank))
    return jnp.moveaxis(grad, 0, -2)


def _convolved_with_delta(
    x: Array, delta: Array, window: Window, geometry: ConvGeometry, numbers: lax.ConvDimensionNumbers
) -> Array:
    return lax_itself.conv_general_dilated(
        x,
        delta,
        window.dilation,
        window.reach,
        window.input_dilation,
        window.stride,
        numbers,
        batch_group_count=geometry.groups,
        precision=geometry.precision,
    )


def dot(a: Array, b: Array, contracted: tuple[Ints, Ints], geometry: ConvGeometry) -> Array:
    """The products of `a` and `b`, summed over the axes that are `contracted` in each."""
    return lax.dot_general(a, b, (contracted, ((), ())), geometry.precision, wide(a.dtype))


# So many additions in a row wait for each other. Each takes four cycles, and a processor finds other work only so many
# instructions ahead: the 27 products of a 3x3 window over 3 channels took 1.4 times as long in a single row.
CHAIN = 3


def add_up(terms: Iterable[Array]) -> Array:
    """Their sum, of rows of a few."""
    left = iter(terms)
    chains = iter(lambda: tuple(itertools.islice(left, CHAIN)), ())
    return reduce(lax.add, (reduce(lax.add, chain) for chain in chains))


# What follows is written out once a tap, in `lax`: an operator of `jnp` takes several times as long to trace.


def at_each_tap(kernel: Array) -> dict[Ints, Array]:
    """k[t] for every tap t."""
    *size, rows, columns = kernel.shape
    taps = list(np.ndindex(*size))
    matrices = lax.split(lax.reshape(kernel, (len(taps) * rows, columns)), (rows,) * len(taps))
    return dict(zip(taps, matrices, strict=True))


def mix_channels(p: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """`[... x in] * [in / g x out] -> [... x out]`, each group of outputs from its group of inputs."""
    if geometry.groups == 1:
        return dot(p, kernel, ((p.ndim - 1,), (0,)), geometry)
    groups, depth = geometry.groups, kernel.shape[0]
    if depth == 1:
        return scale_channels(p, kernel)
    split = p.reshape(*p.shape[:-1], groups, depth)
    by_group = kernel.reshape(depth, groups, -1)
    numbers = (((split.ndim - 1,), (0,)), ((split.ndim - 2,), (1,)))
    mixed = lax.dot_general(split, by_group, numbers, geometry.precision, wide(p.dtype))
    return jnp.moveaxis(mixed, 0, -2).reshape(*p.shape[:-1], kernel.shape[1])


def correlate_channels(p: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """`[... x in]^T * [... x out] -> [in / g x out]`, summed over batch and positions, group by group."""
    summed = tuple(range(p.ndim - 1))
    if geometry.groups == 1:
        return dot(p, delta, (summed, summed), geometry)
    groups = geometry.groups
    a = p.reshape(*p.shape[:-1], groups, -1)
    b = delta.reshape(*delta.shape[:-1], groups, -1)
    by_group = lax.dot_general(
        a, b, ((summed, summed), ((p.ndim - 1,), (p.ndim - 1,))), geometry.precision, wide(p.dtype)
    )
    return jnp.moveaxis(by_group, 0, 1).reshape(a.shape[-1], -1)


def scale_channels(p: Array, weights: Array) -> Array:
    """Depthwise: `[... x g] * [1 x g * m] -> [... x g * m]`."""
    groups, channels = p.shape[-1], weights.shape[-1]
    if channels != groups:
        each = lax.broadcast_in_dim(p, (*p.shape, channels // groups), range(p.ndim))
        p = lax.reshape(each, (*p.shape[:-1], channels))
    p, weights = cast(p, wide(p.dtype)), cast(weights, wide(p.dtype))
    return lax.mul(p, lax.broadcast_in_dim(weights, p.shape, (0, p.ndim - 1)))
