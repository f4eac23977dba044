"""The convolutions by lax primitives alone, for `mode("autodiff")`; `reference` has the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcnnbp.geometry import window_of
from jaxcnnbp.geometry.parse import over_symbols
from jaxcnnbp.hand_written import unify_varying_axes
from jaxcnnbp.modes import alternatives
from jaxcnnbp.ops import lax_itself, symbolic
from jaxcnnbp.ops.conv.api import connect
from jaxcnnbp.ops.conv.geometry import ConvGeometry, dimension_numbers
from jaxcnnbp.ops.conv.lax_layout import padding_in_numbers
from jaxcnnbp.ops.pad import border_of
from jaxcnnbp.taps import pad_axes

_AUTODIFF = alternatives["autodiff"]


def stands_for(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes a function the autodiff twin of the public function `name`."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        _AUTODIFF[name] = function
        return function

    return register


for _name in ("conv", "conv_transpose"):
    _AUTODIFF[_name] = getattr(lax_itself, _name)


@stands_for("conv_general_dilated")
def _conv_general_dilated(
    lhs, rhs, window_strides, padding, lhs_dilation=None, rhs_dilation=None, dimension_numbers=None, *others, **more
):
    own = (window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers)
    pairs = padding_in_numbers(np.shape(lhs), np.shape(rhs), *own)
    return lax_itself.conv_general_dilated(
        lhs, rhs, window_strides, pairs, lhs_dilation, rhs_dilation, dimension_numbers, *others, **more
    )


@stands_for("conv_with_general_padding")
def _conv_with_general_padding(lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, *others, **more):
    pairs = padding_in_numbers(np.shape(lhs), np.shape(rhs), window_strides, padding, lhs_dilation, rhs_dilation, None)
    return lax_itself.conv_with_general_padding(
        lhs, rhs, window_strides, pairs, lhs_dilation, rhs_dilation, *others, **more
    )


@stands_for("conv_input_grad")
def _conv_input_grad(delta, kernel, input_shape, *parameters, **named):
    kernel = jnp.asarray(kernel)
    return _transposed(lambda x: _convolved(x, kernel, *parameters, **named), input_shape, kernel, delta)


@stands_for("conv_kernel_grad")
def _conv_kernel_grad(x, delta, kernel_shape, *parameters, **named):
    x = jnp.asarray(x)
    return _transposed(lambda kernel: _convolved(x, kernel, *parameters, **named), kernel_shape, x, delta)


def _transposed(linear, shape, other, delta):
    """The transpose of a function of one array of `shape`, in the dtype of the `other` operand, at `delta`."""
    # Inside `shard_map` as varying as the operands: what is one array for all devices would be summed over them.
    anywhere, delta, _ = unify_varying_axes(jnp.zeros(shape, other.dtype), jnp.asarray(delta), other)
    return jax.vjp(linear, anywhere)[1](delta)[0]


def _convolved(x, kernel, window_strides=None, padding="VALID", *others, **more):
    strides = (1,) * (x.ndim - 2) if window_strides is None else window_strides
    return _conv_general_dilated(x, kernel, strides, padding, *others, **more)


@stands_for("correlate")
def correlate(x, kernel, *, stride=1, padding="VALID", padding_mode="zeros", dilation=1, groups=1, connections=None):
    """As `jaxcnnbp.correlate`."""
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    kernel = kernel if connections is None else connect(kernel, connections, groups)
    window = window_of(x.shape[1:-1], kernel.shape[:-2], stride=stride, padding=padding, dilation=dilation)
    border, window = border_of(window, padding_mode)
    if over_symbols(window):
        return symbolic.conv(x, kernel, ConvGeometry(window, groups))
    x = x if border is None else _padded(x, border.pairs, padding_mode)
    return lax_itself.conv_general_dilated(
        x, kernel, window.stride, window.padding, None, window.dilation, dimension_numbers(window.rank), groups
    )


def _padded(x: Array, pairs: Any, padding_mode: str) -> Array:
    name = {"circular": "wrap", "reflect": "reflect", "replicate": "edge"}[padding_mode]
    x = cropped(x, pairs) if name == "wrap" else x
    x = jnp.pad(x, [(0, 0), *((max(low, 0), max(high, 0)) for low, high in pairs), (0, 0)], name)
    return x if name == "wrap" else cropped(x, pairs)


def cropped(x: Array, pairs: Any) -> Array:
    """What negative padding leaves of `(batch, *spatial, channels)`."""
    return pad_axes(x, [(min(low, 0), min(high, 0), 0) for low, high in pairs])


@stands_for("convolve")
def convolve(x, kernel, **options):
    """As `jaxcnnbp.convolve`."""
    kernel = jnp.asarray(kernel)
    return correlate(x, jnp.flip(kernel, tuple(range(kernel.ndim - 2))), **options)
