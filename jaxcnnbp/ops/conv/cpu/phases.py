"""Strided and transposed convolutions on CPUs, without the zeros that a dilated delta or input has.

Each has the signature and the meaning of the plain form in `ops.conv.forms`, and serves any number of spatial axes.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import jax.numpy as jnp
from jax import Array, lax

from jaxcnnbp.geometry.window import Window
from jaxcnnbp.ops.conv.geometry import ConvGeometry, Form, dual, flip, swap_group_channels, transposed_kernel
from jaxcnnbp.taps import lay_blocks, phase_counts


def input_grad_by_depth_to_space(forward_form: Form, delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """All phases of the stride in one convolution, as channels, then spread over the positions.

    Padded position `n + low = s m + r` is reached by the taps `t = s q + r` alone, so phase r is the full convolution
    of delta with the flipped sub-kernel `k[r::s]`. The kernel is filled up with zeros to a multiple of the stride; the
    products with them cost less than a convolution a phase would.
    """
    window = geometry.window
    fills = [(0, -k % s, 0) for k, s in zip(window.size, window.stride, strict=True)]
    filled = lax.pad(kernel, jnp.zeros((), kernel.dtype), [*fills, (0, 0, 0), (0, 0, 0)])
    rank, groups = window.rank, geometry.groups
    counts = [n // s for n, s in zip(filled.shape, window.stride, strict=False)]
    split = filled.reshape(*itertools.chain(*zip(counts, window.stride, strict=True)), kernel.shape[-2], groups, -1)
    channel = 2 * rank  # then group, feature
    order = (*range(0, channel, 2), channel + 2, channel + 1, *range(1, channel, 2), channel)
    taps = split.transpose(order).reshape(*counts, kernel.shape[-1] // groups, -1)
    phases = _full_convolution(forward_form, delta, taps, geometry)
    by_group = phases.reshape(*phases.shape[:-1], groups, *window.stride, kernel.shape[-2])
    return lay_blocks(jnp.moveaxis(by_group, rank + 1, -2), window)


def transposed_forward(input_grad_form: Form, x: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """A convolution over a dilated input is the input gradient of a strided one: its `input_grad_form` serves."""
    return input_grad_form(x, transposed_kernel(kernel, geometry), dual(geometry))


def transposed_kernel_grad(kernel_grad_form: Form, x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """Its kernel gradient is the strided one's with `x` and delta exchanged: delta is sliced, nothing is dilated."""
    swapped = kernel_grad_form(delta, x, dual(geometry))
    return flip(swap_group_channels(swapped, geometry.groups), geometry.window.rank)


def _full_convolution(forward_form: Form, delta: Array, taps: Array, geometry: ConvGeometry) -> Array:
    """`y[m] = sum_q delta[m - q] taps[q]` for every m below the number of positions of a phase."""
    window = geometry.window
    counts = phase_counts(window)
    size = taps.shape[: window.rank]
    pairs = [(q - 1, m - o) for q, m, o in zip(size, counts, window.output, strict=True)]
    ones = (1,) * window.rank
    plain = Window(window.output, tuple(size), ones, tuple(pairs), ones, ones)
    return forward_form(delta, flip(taps, window.rank), replace(geometry, window=plain, output_dtype=None))
