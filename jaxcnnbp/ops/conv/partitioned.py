"""Convolutions of images that may lie over several devices in whatever way, as matrix products a tap.

XLA splits a convolution over rows, columns or channels by giving each device a part of its window, and then adds up the
parts of *all* devices, also of those that hold copies: the sum comes out as many times too large as there are copies.
That is so wherever the positions are spread and anything beside them: another axis of the mesh for channels, or one
that is not used. Slices, pads and matrix products it splits rightly in every way, and each device still works on its
own part: rows at the edges are exchanged, and sums over positions are added up once.

Each form has the signature and the meaning of the plain form in `ops.conv.forms`. While a program is traced nobody
knows where its arrays will lie, so these serve all of them wherever there is more than one device.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnnbp.geometry import Window
from jaxcnnbp.geometry.window import Ints
from jaxcnnbp.ops._dtypes import wide
from jaxcnnbp.ops._sharding import zeros_varying_like
from jaxcnnbp.ops._xla_cpu import compute_once
from jaxcnnbp.ops.conv import forms as plain
from jaxcnnbp.ops.conv.geometry import ConvGeometry, Form, dual, transposed_kernel
from jaxcnnbp.taps import MANY_TAPS, pad_once


def forward_by_tap_groups(x: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """`forward_by_taps` of one group of taps after the other, in a loop: all of them would take long to compile."""
    padded, window = pad_once(x, geometry.window)
    one = _one_group(geometry, window)
    groups = kernel.reshape(-1, *one.window.size, *kernel.shape[-2:])

    def add(number: Array, total: Array) -> Array:
        # Fused into the sum, a read whose place only the running program knows would keep its loop scalar.
        p, taps = compute_once(partial(_read, window=window), padded, number), compute_once(_at, groups, number)
        return total + plain.forward_by_taps(p, taps, one)

    shape = geometry.output_shape(x.shape[0], kernel.shape[-1])
    empty = zeros_varying_like(jax.ShapeDtypeStruct(shape, wide(x.dtype)), x, kernel)
    return lax.fori_loop(0, groups.shape[0], add, empty)


def input_grad_by_tap_groups(delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """The full convolution of delta, with zeros in the gaps of the stride, with the flipped kernel."""
    return forward_by_tap_groups(delta, transposed_kernel(kernel, geometry), dual(geometry))


def kernel_grad_by_tap_groups(x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """`kernel_grad_by_taps` of one group of taps after the other."""
    return kernel_grad_of_groups(plain.kernel_grad_by_taps, x, delta, geometry)


def kernel_grad_of_groups(form: Form, x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """`form` of one group of taps after the other."""
    padded, window = pad_once(x, geometry.window)
    one = _one_group(geometry, window)
    numbers = jnp.arange(math.prod(window.size[: _lead(window)]))
    read = partial(_read, window=window)
    by_group = lax.map(lambda number: form(compute_once(read, padded, number), delta, one), numbers)
    return by_group.reshape(geometry.kernel_shape(x.shape[-1], delta.shape[-1]))


def _lead(window: Window) -> int:
    """Over how many axes the loop goes: all but the last, and that too if it is long by itself."""
    return window.rank if window.size[-1] > MANY_TAPS else window.rank - 1


def _one_group(geometry: ConvGeometry, window: Window) -> ConvGeometry:
    """What is left to read of `_read`: one tap on the axes of the loop."""
    lead, ones = _lead(window), (1,) * window.rank

    def rest(of_loop: Ints, own: Ints) -> Ints:
        return (*of_loop[:lead], *own[lead:])

    left = Window(
        rest(window.output, window.spatial),
        rest(ones, window.size),
        rest(ones, window.stride),
        ((0, 0),) * window.rank,
        rest(ones, window.dilation),
        ones,
    )
    return replace(geometry, window=left)


def _at(groups: Array, number: Array) -> Array:
    return lax.dynamic_index_in_dim(groups, number, 0, keepdims=False)


def _read(padded: Array, number: Array, window: Window) -> Array:
    """What the outputs read with the taps of group `number`, on the axes of the loop."""
    taps = unravel(number, window.size[: _lead(window)])
    for axis, tap in enumerate(taps, start=1):
        stride, count = window.stride[axis - 1], window.output[axis - 1]
        span = lax.dynamic_slice_in_dim(padded, tap * window.dilation[axis - 1], (count - 1) * stride + 1, axis)
        padded = lax.slice_in_dim(span, 0, None, stride, axis)
    return padded


def unravel(number: Array | int, shape: Ints) -> list[Array]:
    """The multi-index of a flat one; the first axis may be longer than it says."""
    index, number = [], jnp.asarray(number)  # under `jax.disable_jit` a loop counts in Python
    for n in reversed(shape[1:]):
        count = np.asarray(n, number.dtype)
        index.append(lax.rem(number, count))
        number = lax.div(number, count)
    return [number, *index[::-1]] if shape else []
