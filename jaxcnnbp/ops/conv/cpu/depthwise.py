"""Depthwise convolutions on CPUs: no matrix in them, only products of shifted images.

With one input and one output channel a group, `k[t]` a row of weights, `o` elementwise along the channels:

    forward      y[u]  = sum_t p[u, t] o k[t]
    input grad   dx    = scatter(delta[u] o k[t])
    kernel grad  dk[t] = sum_u p[u, t] o delta[u]

Each form has the signature and the meaning of the plain form in `ops.conv.forms`.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnnbp.geometry.window import Ints, Window
from jaxcnnbp.ops._dtypes import cast, wide
from jaxcnnbp.ops._sharding import zeros_varying_like
from jaxcnnbp.ops.conv.cpu.im2col import by_blocks
from jaxcnnbp.ops.conv.forms import add_up, at_each_tap, forward_by_taps, scale_channels
from jaxcnnbp.ops.conv.geometry import ConvGeometry, dual, transposed_kernel
from jaxcnnbp.ops.conv.partitioned import (
    forward_by_tap_groups,
    kernel_grad_of_groups,
    unravel,
)
from jaxcnnbp.taps import at_outputs, lay, pad_axes, pad_once, reached, take_reached


def forward_by_shifts(x: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """Every tap's products over the outputs that it has an input cell for, laid into zeros and added up.

    The padding stays inside the one loop that XLA makes of this: written out around `x`, it would be a copy of it.
    """
    window, sum_type = geometry.window, wide(x.dtype)
    weights = at_each_tap(cast(kernel, sum_type))

    terms = list[Array]()
    for tap, spans in reached(window):
        p = cast(take_reached(x, window, tap, spans), sum_type)
        terms.append(lay(scale_channels(p, weights[tap]), window, spans))
    return add_up(terms or [jnp.zeros((x.shape[0], *window.output, x.shape[-1]), sum_type)])


def input_grad_by_shifts(delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """Every tap's products at the positions that it read, with gaps of the stride, added up."""
    window, sum_type = geometry.window, wide(delta.dtype)
    delta, weights = cast(delta, sum_type), at_each_tap(cast(kernel, sum_type))
    terms = list[Array]()
    for tap, _ in reached(window):
        first = [t * d - low for t, d, (low, _) in zip(tap, window.dilation, window.padding, strict=True)]
        last = [a + (o - 1) * s for a, o, s in zip(first, window.output, window.stride, strict=True)]
        rows = zip(first, last, window.spatial, window.stride, strict=True)
        edges = [(a, n - 1 - b, s - 1) for a, b, n, s in rows]
        terms.append(pad_axes(scale_channels(delta, weights[tap]), edges))
    return add_up(terms or [jnp.zeros((delta.shape[0], *window.spatial, delta.shape[-1]), sum_type)])


def forward_by_padding(x: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """The plain form: with many taps one padded copy costs less than as many edges."""
    sum_type = wide(x.dtype)
    return forward_by_taps(cast(x, sum_type), cast(kernel, sum_type), geometry)


def input_grad_by_padding(delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """The full convolution of delta, with zeros in the gaps of the stride, with the flipped kernel."""
    return forward_by_padding(delta, transposed_kernel(kernel, geometry), dual(geometry))


def forward_by_tap_rows(x: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """One row of taps after the other, in a loop, of as many images as stay in the cache from one to the next."""

    def of_images(x: Array) -> Array:
        return forward_by_tap_groups(x, kernel, geometry)

    outputs = math.prod(geometry.window.output) * kernel.shape[-1]
    y = by_blocks(of_images, (math.prod(x.shape[1:]) + outputs) * wide(x.dtype).itemsize, x)
    return y.reshape(geometry.output_shape(x.shape[0], kernel.shape[-1]))


def input_grad_by_tap_rows(delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """The full convolution of delta, with zeros in the gaps of the stride, with the flipped kernel."""
    return forward_by_tap_rows(delta, transposed_kernel(kernel, geometry), dual(geometry))


def kernel_grad_by_tap_rows(x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """`kernel_grad_by_rows` of one row of taps after the other."""
    return kernel_grad_of_groups(kernel_grad_by_rows, x, delta, geometry)


def kernel_grad_by_rows(x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """One row of outputs after the other, added into one row of sums a tap; x once for each output of its group.

    Whole rows of (last spatial axis, channels) add up vectorised, which a reduction to the channels alone does not; the
    last spatial axis is summed over in the end.
    """
    sum_type, channels = wide(x.dtype), delta.shape[-1]
    # Widened here: inside the loop XLA would widen every row for itself, and round it again.
    padded, window = pad_once(cast(x, sum_type), geometry.window)
    if channels > x.shape[-1]:
        padded = jnp.repeat(padded, channels // x.shape[-1], -1)
    delta = cast(delta, sum_type)
    lead = (x.shape[0], *window.output[:-1])
    images, deltas = _with_flat_rows(padded, window), _with_flat_rows(delta, window)
    rows = tuple(map(max, window.extent[:-1], (1,) * window.rank))
    ends = len(images.shape) - len(lead)

    def add_row(number: Array, sums: tuple[Array, ...]) -> tuple[Array, ...]:
        place = unravel(number, lead)
        corner = [place[0], *(i * s for i, s in zip(place[1:], window.stride, strict=False))]
        here = _block(images, corner, (1, *rows), ends)[0]
        row = _block(deltas, place, (1,) * len(lead), ends).reshape(sums[0].shape)
        return tuple(s + _line(here, t, window) * row for s, t in zip(sums, window.tap_indices(), strict=True))

    empty = zeros_varying_like(jax.ShapeDtypeStruct(deltas.shape[len(lead) :], sum_type), x, delta)
    sums = lax.fori_loop(0, math.prod(lead), add_row, (empty,) * window.taps)
    by_column = jnp.stack(sums).reshape(window.taps, window.output[-1], channels)
    return by_column.sum(1).reshape(geometry.kernel_shape(x.shape[-1], channels))


def kernel_grad_by_products(x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """Every tap's products with delta, over the outputs that it has an input cell for, summed: one pass for a GPU."""
    window, sum_type = geometry.window, wide(x.dtype)
    wide_delta, summed = cast(delta, sum_type), tuple(range(x.ndim - 1))
    sums = dict.fromkeys(window.tap_indices(), jnp.zeros(x.shape[-1:], sum_type))
    for tap, spans in reached(window):
        p = cast(take_reached(x, window, tap, spans), sum_type)
        sums[tap] = jnp.sum(p * at_outputs(wide_delta, spans), summed)
    return jnp.stack(list(sums.values())).reshape(geometry.kernel_shape(x.shape[-1], delta.shape[-1]))


def _with_flat_rows(a: Array, window: Window) -> Array:
    """With stride 1 the last spatial axis and the channels are one: a longer line to vectorise over."""
    return a.reshape(*a.shape[:-2], a.shape[-2] * a.shape[-1]) if window.stride[-1] == 1 else a


def _line(rows: Array, tap: Ints, window: Window) -> Array:
    """What the outputs of one row read with `tap`."""
    line = rows[tuple(t * d for t, d in zip(tap[:-1], window.dilation, strict=False))]
    start, count, stride = tap[-1] * window.dilation[-1], window.output[-1], window.stride[-1]
    if stride == 1:
        channels = line.shape[0] // window.spatial[-1]
        return line[start * channels : (start + count) * channels]
    return lax.slice(line, (start, 0), (start + (count - 1) * stride + 1, line.shape[-1]), (stride, 1))


def _block(a: Array, corner: list[Array], size: Ints, ends: int) -> Array:
    """The block of `size` at `corner` on the leading axes, whole on the `ends` last ones."""
    return lax.dynamic_slice(a, (*corner, *(np.zeros((), corner[0].dtype),) * ends), (*size, *a.shape[-ends:]))
