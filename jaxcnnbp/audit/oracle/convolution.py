"""Convolutions and their gradients, one tap after the other.

Inside this file inputs are `(batch, channels, *spatial)` and kernels `(out, in / groups, *window)`. With `p`
what the windows read with tap `t`,

    y += k[:, :, t] p,    dx[cells of t] += k[:, :, t]^T delta,    dk[:, :, t] = p delta^T.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnnbp.audit.oracle.axes import Axis, axes_of, several, taps, windows
from jaxcnnbp.audit.oracle.borders import bordered, unbordered
from jaxcnnbp.audit.oracle.rule import Arrays, apply, register, rule_of


class DimensionNumbers(NamedTuple):
    """Where the axes are: `(batch, channels, *spatial)` of input and output, `(out, in, *window)`."""

    x: tuple[int, ...]
    kernel: tuple[int, ...]
    y: tuple[int, ...]


# --- one group


def correlation(x: np.ndarray, kernel: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
    """`y[n, o, u] = sum_{c, t} x[n, c, u * stride + t * dilation - low] k[o, c, t]`."""
    y = np.zeros((len(x), len(kernel), *windows(axes)), np.result_type(x, kernel))
    for tap in taps(axes):
        y[tap.windows] += np.einsum("nc...,oc->no...", x[tap.cells], kernel[(..., *tap.index)], optimize=True)
    return y


def correlation_gradients(x: np.ndarray, kernel: np.ndarray, delta: np.ndarray, axes: Sequence[Axis]) -> Arrays:
    """The gradients of `correlation` with respect to `x` and `kernel`."""
    dtype = np.result_type(x, kernel, delta)
    dx, dk = np.zeros(x.shape, dtype), np.zeros(kernel.shape, dtype)
    for tap in taps(axes):
        d = delta[tap.windows]
        dx[tap.cells] += np.einsum("no...,oc->nc...", d, kernel[(..., *tap.index)], optimize=True)
        patch = x[tap.cells].reshape(*x.shape[:2], -1)
        dk[(..., *tap.index)] = np.einsum("ncp,nop->oc", patch, d.reshape(*d.shape[:2], -1), optimize=True)
    return dx, dk


# --- groups


def _blocks(x: np.ndarray, kernel: np.ndarray, groups: int, batches: int) -> Any:
    """For every group its part of `x`, and its part of `kernel` along the outputs."""
    rows, channels, outs = len(x) // batches, x.shape[1] // groups, len(kernel) // (groups * batches)
    for index in range(groups * batches):
        g, b = (index, 0) if batches == 1 else (0, index)
        images = slice(b * rows, (b + 1) * rows), slice(g * channels, (g + 1) * channels)
        yield images, slice(index * outs, (index + 1) * outs)


def _forward(x, kernel, *, layout, stride, padding, lhs_dilation, rhs_dilation, groups, batches) -> Arrays:
    x, kernel = np.transpose(x, layout.x), np.transpose(kernel, layout.kernel)
    x = _spread(x, lhs_dilation)
    axes = axes_of(x.shape[2:], kernel.shape[2:], stride, padding, rhs_dilation)
    parts = [correlation(x[i], kernel[k], axes) for i, k in _blocks(x, kernel, groups, batches)]
    return (np.transpose(np.concatenate(parts, 1), np.argsort(layout.y)),)


def _backward(x, kernel, delta, *, layout, stride, padding, lhs_dilation, rhs_dilation, groups, batches) -> Arrays:
    x, kernel, delta = (np.transpose(a, order) for a, order in zip((x, kernel, delta), layout, strict=True))
    wide = _spread(x, lhs_dilation)
    axes = axes_of(wide.shape[2:], kernel.shape[2:], stride, padding, rhs_dilation)
    dx, dk = (np.zeros(a.shape, np.result_type(x, kernel, delta)) for a in (wide, kernel))
    for i, k in _blocks(wide, kernel, groups, batches):
        dx[i], dk[k] = correlation_gradients(wide[i], kernel[k], delta[:, k], axes)
    dx = dx[_cells_of_spread(x, lhs_dilation)]
    return np.transpose(dx, np.argsort(layout.x)), np.transpose(dk, np.argsort(layout.kernel))


def _input_grad(delta, kernel, *, input_shape, **options) -> Arrays:
    return _backward(np.zeros(input_shape), kernel, delta, **options)[:1]


def _input_grad_backward(delta, kernel, d, *, input_shape, **options) -> Arrays:
    """It is linear in both, and its transpose in `delta` is the convolution of `d`, the delta of dx."""
    return *_forward(d, kernel, **options), _backward(d, kernel, delta, **options)[1]


def _kernel_grad(x, delta, *, kernel_shape, **options) -> Arrays:
    return _backward(x, np.zeros(kernel_shape), delta, **options)[1:]


def _kernel_grad_backward(x, delta, d, *, kernel_shape, **options) -> Arrays:
    return _backward(x, d, delta, **options)[0], *_forward(x, d, **options)


def _cells_of_spread(x: np.ndarray, dilation: Sequence[int]) -> Any:
    return (..., *np.ix_(*(np.arange(n) * d for n, d in zip(x.shape[2:], dilation, strict=True))))


def _spread(x: np.ndarray, dilation: Sequence[int]) -> np.ndarray:
    """`x` with `dilation - 1` zeros between its cells."""
    extents = [max((n - 1) * d + 1, 0) for n, d in zip(x.shape[2:], dilation, strict=True)]
    wide = np.zeros((*x.shape[:2], *extents), x.dtype)
    wide[_cells_of_spread(x, dilation)] = x
    return wide


# --- the public functions


@register
def conv_general_dilated(lhs: Any, rhs: Any, *parameters: Any, **named: Any) -> Any:
    """As `jax.lax.conv_general_dilated`."""
    return apply(rule_of(_forward, _backward, **_options(np.shape(lhs), np.shape(rhs), *parameters, **named)), lhs, rhs)


@register
def conv_input_grad(delta: Any, kernel: Any, input_shape: Any, *parameters: Any, **named: Any) -> Any:
    """As `jaxcnnbp.conv_input_grad`."""
    options = _options(input_shape, np.shape(kernel), *parameters, **named)
    options["preferred_element_type"] = jnp.result_type(kernel)
    return apply(rule_of(_input_grad, _input_grad_backward, input_shape=input_shape, **options), delta, kernel)


@register
def conv_kernel_grad(x: Any, delta: Any, kernel_shape: Any, *parameters: Any, **named: Any) -> Any:
    """As `jaxcnnbp.conv_kernel_grad`."""
    options = _options(np.shape(x), kernel_shape, *parameters, **named)
    return apply(rule_of(_kernel_grad, _kernel_grad_backward, kernel_shape=kernel_shape, **options), x, delta)


def _options(
    input_shape: Any,
    kernel_shape: Any,
    window_strides: Any = None,
    padding: Any = "VALID",
    lhs_dilation: Any = None,
    rhs_dilation: Any = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
    out_sharding: Any = None,
) -> dict[str, Any]:
    """What lax's parameters say; `precision` and `out_sharding` have no meaning here."""
    del precision, out_sharding
    numbers = lax.conv_dimension_numbers(tuple(input_shape), tuple(kernel_shape), dimension_numbers)
    rank = len(input_shape) - 2
    return dict(
        layout=DimensionNumbers(tuple(numbers.lhs_spec), tuple(numbers.rhs_spec), tuple(numbers.out_spec)),
        stride=several(window_strides, rank),
        padding=padding,
        lhs_dilation=several(lhs_dilation, rank),
        rhs_dilation=several(rhs_dilation, rank),
        groups=feature_group_count,
        batches=batch_group_count,
        preferred_element_type=preferred_element_type,
    )


@register
def conv(
    lhs: Any,
    rhs: Any,
    window_strides: Any,
    padding: Any,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> Any:
    """As `jax.lax.conv`."""
    return conv_general_dilated(lhs, rhs, window_strides, padding, preferred_element_type=preferred_element_type)


@register
def conv_with_general_padding(
    lhs: Any,
    rhs: Any,
    window_strides: Any,
    padding: Any,
    lhs_dilation: Any,
    rhs_dilation: Any,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> Any:
    """As `jax.lax.conv_with_general_padding`."""
    others = dict(lhs_dilation=lhs_dilation, rhs_dilation=rhs_dilation, preferred_element_type=preferred_element_type)
    return conv_general_dilated(lhs, rhs, window_strides, padding, **others)


@register
def conv_transpose(
    lhs: Any,
    rhs: Any,
    strides: Any,
    padding: Any,
    rhs_dilation: Any = None,
    dimension_numbers: Any = None,
    transpose_kernel: bool = False,
    precision: Any = None,
    preferred_element_type: Any = None,
    use_consistent_padding: bool = False,
) -> Any:
    """As `jax.lax.conv_transpose`: an input with gaps of the stride, correlated with the kernel."""
    rank = np.ndim(lhs) - 2
    letters = dimension_numbers or ("N" + "HWD"[:rank] + "C", "HWD"[:rank] + "IO", "N" + "HWD"[:rank] + "C")
    numbers = lax.conv_dimension_numbers(np.shape(lhs), np.shape(rhs), letters)
    outs, ins, *window = numbers.rhs_spec
    dilation = several(rhs_dilation, rank)
    extents = [(np.shape(rhs)[w] - 1) * d + 1 for w, d in zip(window, dilation, strict=True)]
    if isinstance(padding, str) or use_consistent_padding:
        words = [padding] * rank if isinstance(padding, str) else padding
        padding = [_transposed_padding(*row) for row in zip(words, extents, strides, strict=True)]
    if transpose_kernel:
        rhs = np.flip(rhs, tuple(window)) if isinstance(rhs, np.ndarray) else lax.rev(rhs, window)
        rhs = rhs.swapaxes(outs, ins)
    others = dict(dimension_numbers=numbers, preferred_element_type=preferred_element_type)
    return conv_general_dilated(lhs, rhs, (1,) * rank, padding, strides, dilation, **others)


def _transposed_padding(padding: Any, extent: int, stride: int) -> tuple[int, int]:
    """The padding that undoes what `padding` does to the forward convolution, as `jax.lax` defines it."""
    if not isinstance(padding, str):
        return extent - 1 - padding[0], extent - 1 - padding[1]
    if padding == "VALID":
        return extent - 1, stride - 1 + max(extent - stride, 0)
    total = extent + stride - 2
    low = extent - 1 if stride > extent - 1 else -(-total // 2)
    return low, total - low


DEFAULTS: dict[str, Any] = dict(stride=1, padding="VALID", padding_mode="zeros", dilation=1, groups=1, connections=None)


@register
def correlate(x: Any, kernel: Any, **options: Any) -> Any:
    """As `jaxcnnbp.correlate`."""
    return _image(x, kernel, False, options)


@register
def convolve(x: Any, kernel: Any, **options: Any) -> Any:
    """As `jaxcnnbp.convolve`: the kernel is flipped on all spatial axes."""
    return _image(x, kernel, True, options)


def _image(x: Any, kernel: Any, flip: bool, options: dict[str, Any]) -> Any:
    rank = np.ndim(x) - 2
    return apply(rule_of(_image_forward, _image_backward, rank=rank, flip=flip, **DEFAULTS | options), x, kernel)


def _image_forward(x, kernel, *, flip, connections, **options) -> Arrays:
    kernel = _flipped(_connected(kernel, connections), options["rank"], flip)
    x, _, rest = _bordered(x, kernel, **options)
    return _forward(x, kernel, **rest)


def _image_backward(x, kernel, delta, *, flip, connections, **options) -> Arrays:
    kernel = _flipped(_connected(kernel, connections), options["rank"], flip)
    x, sources, rest = _bordered(x, kernel, **options)
    dx, dk = _backward(x, kernel, delta, **rest)
    return unbordered(dx, sources), _connected(_flipped(dk, options["rank"], flip), connections)


def _bordered(x, kernel, *, rank, stride, padding, padding_mode, dilation, groups) -> Any:
    """`x` with its border, where its cells come from, and what `_forward` and `_backward` are told."""
    x, padding, sources = bordered(x, kernel.shape[:rank], stride, padding, padding_mode, dilation)
    image = (0, rank + 1, *range(1, rank + 1))
    layout = DimensionNumbers(image, (rank + 1, rank, *range(rank)), image)
    options = dict(stride=stride, padding=padding, rhs_dilation=dilation, lhs_dilation=(1,) * rank)
    return x, sources, dict(layout=layout, groups=groups, batches=1, **options)


def _connected(kernel: np.ndarray, connections: Any) -> np.ndarray:
    return kernel if connections is None else kernel * np.asarray(connections, bool)


def _flipped(kernel: np.ndarray, rank: int, flip: bool) -> np.ndarray:
    return np.flip(kernel, tuple(range(rank))) if flip else kernel
