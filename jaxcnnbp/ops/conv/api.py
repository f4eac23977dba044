"""The document's convolution: `convolve` flips the kernel, `correlate` does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxcnnbp.geometry import Padding, window_of
from jaxcnnbp.geometry.parse import over_symbols, require_count, require_output
from jaxcnnbp.modes import switchable
from jaxcnnbp.ops import symbolic
from jaxcnnbp.ops._dtypes import as_array, require_same_dtype
from jaxcnnbp.ops._sharding import with_sharding_like
from jaxcnnbp.ops.conv.geometry import ConvGeometry
from jaxcnnbp.ops.conv.rule import conv
from jaxcnnbp.ops.layout import takes_layout
from jaxcnnbp.ops.pad import Border, border_of, pad_op


@takes_layout("x")
@switchable
def convolve(
    x: ArrayLike,
    kernel: ArrayLike,
    *,
    stride: Any = 1,
    padding: Padding = "VALID",
    padding_mode: str = "zeros",
    dilation: Any = 1,
    groups: int = 1,
    connections: ArrayLike | None = None,
    layout: str = "channels_last",
) -> Array:
    r"""True convolution: $y_j[u] = \sum_{i \in M_j} \sum_t x_i[u s + t d - p]\, k_{ij}[K - 1 - t]$.

    Args:
      x: `(batch, *spatial, in)`, with one spatial axis or more.
      kernel: `(*window, in // groups, out)`, of the dtype of `x`.
      stride: input positions from one output to the next, an int or one an axis.
      padding: `"VALID"`, `"SAME"`, `"SAME_LOWER"`, `"FULL"` (every overlap), an int, or one int or `(low, high)` pair
        an axis; negative padding crops.
      padding_mode: what padding holds, as PyTorch has it: `"zeros"`, `"circular"` (the input comes round again),
        `"reflect"` (mirrored at its last cell, which is not repeated) or `"replicate"` (its last cell).
      dilation: input positions from one tap to the next, an int or one an axis.
      groups: into how many the maps are split; each group of outputs sees its own group of inputs.
      connections: `(in, out)` of bool, the table $M_j$: which input map feeds which output map; all if None. A NaN of
        a map passes connections alone, unless the table itself is traced: then it is zeros in the kernel.
      layout: where `x` and the output have their channels: `"channels_last"`, `"channels_first"`, or letters such as
        `"NHWC"` and `"NCHW"`; the kernel is the same in all.

    Returns:
      `(batch, *output, out)` in the dtype of `x`; sums of narrow floats are held in float32. A NaN or an infinity
      reaches what its windows touch, here and in the gradients; in layers of 3x3 and 5x5 on CPUs where Winograd's
      filtering serves all of its tile of 4x4 at most, but not with `jax_debug_nans`, `jax_debug_infs` or, through
      `conv_general_dilated`, `precision="highest"`.

    Raises:
      TypeError: if the dtypes differ.
      ValueError: if shapes, groups or the window do not fit each other.

    Example:
      >>> import jax.numpy as jnp
      >>> x, kernel = jnp.array([1., 2., 3.]).reshape(1, 3, 1), jnp.array([1., 10.]).reshape(2, 1, 1)
      >>> convolve(x, kernel).ravel()
      Array([12., 23.], dtype=float32)

    Source: Bouvrie, *Notes on Convolutional Neural Networks* (2006), section 3.1.
    """
    return _convolution(x, kernel, stride, padding, padding_mode, dilation, groups, connections, mirrored=True)


@takes_layout("x")
@switchable
def correlate(
    x: ArrayLike,
    kernel: ArrayLike,
    *,
    stride: Any = 1,
    padding: Padding = "VALID",
    padding_mode: str = "zeros",
    dilation: Any = 1,
    groups: int = 1,
    connections: ArrayLike | None = None,
    layout: str = "channels_last",
) -> Array:
    r"""Correlation, the frameworks' convolution: $y_j[u] = \sum_{i \in M_j} \sum_t x_i[u s + t d - p]\, k_{ij}[t]$.

    Args and errors are those of `convolve`, and `convolve(x, k) == correlate(x, flip(k))`, in gradients too.

    Returns:
      `(batch, *output, out)` in the dtype of `x`; what is said of a NaN at `convolve` holds.

    Example:
      >>> import jax.numpy as jnp
      >>> x, kernel = jnp.array([1., 2., 3.]).reshape(1, 3, 1), jnp.array([1., 10.]).reshape(2, 1, 1)
      >>> correlate(x, kernel).ravel()
      Array([21., 32.], dtype=float32)

    Source: Bouvrie (2006), section 3.1, with the kernel not flipped.
    """
    return _convolution(x, kernel, stride, padding, padding_mode, dilation, groups, connections, mirrored=False)


def _convolution(
    x: ArrayLike,
    kernel: ArrayLike,
    stride: Any,
    padding: Padding,
    padding_mode: str,
    dilation: Any,
    groups: int,
    connections: ArrayLike | None,
    mirrored: bool,
) -> Array:
    x, kernel = as_array(x), as_array(kernel)
    check_operands(x, kernel, groups)
    if connections is not None:
        kernel = connect(kernel, connections, groups)
    geometry = conv_geometry(x, kernel, stride, padding, dilation, groups, mirrored, connections)
    border, geometry = bordered(geometry, padding_mode)
    rule = symbolic.conv if over_symbols(geometry.window) else conv
    return with_sharding_like(lambda x, kernel: rule(pad_op(x, border), kernel, geometry), x, kernel)


def conv_geometry(
    x: Array,
    kernel: Array,
    stride: Any,
    padding: Padding,
    dilation: Any,
    groups: int,
    mirrored: bool,
    connections: ArrayLike | None = None,
) -> ConvGeometry:
    """The geometry of a convolution in the document's words."""
    window = window_of(
        x.shape[1:-1], kernel.shape[:-2], stride=stride, padding=padding, dilation=dilation, names={"size": "kernel"}
    )
    geometry = ConvGeometry(require_output(window, "kernel"), groups, mirrored)
    return geometry if connections is None else replace(geometry, connections=_table_bytes(connections))


def _table_bytes(connections: ArrayLike) -> bytes | None:
    """The table as `ConvGeometry` holds it, None where it is known only when the program runs."""
    return None if isinstance(connections, Tracer) else np.asarray(connections, np.bool_).tobytes()


def bordered(geometry: ConvGeometry, padding_mode: str) -> tuple[Border | None, ConvGeometry]:
    """The border that `padding_mode` makes of the padding, and the convolution over the input with it."""
    border, window = border_of(geometry.window, padding_mode)
    return border, replace(geometry, window=window)


def check_operands(x: Array, kernel: Array, groups: int) -> None:
    """Refuses an input and a kernel that do not belong together."""
    if x.ndim < 3:
        raise ValueError(f"`x` (shape={x.shape}) must be (batch, *spatial, in); add the axes that are missing.")
    if kernel.ndim != x.ndim:
        raise ValueError(
            f"`kernel` (shape={kernel.shape}) must be (*window, in // groups, out) with as many window axes as `x`"
            f" (shape={x.shape}) has spatial ones, {x.ndim - 2}."
        )
    require_same_dtype(kernel, "kernel", x, "x")
    require_count(groups, "groups")
    if kernel.shape[-2] * groups != x.shape[-1]:
        raise ValueError(
            f"`kernel` (shape={kernel.shape}) takes {kernel.shape[-2]} input channels a group, {groups} groups, but"
            f" `x` (shape={x.shape}) has {x.shape[-1]} channels; they must be equal: check the order of the"
            " arguments and the layout (channels last)."
        )
    if kernel.shape[-1] % groups:
        raise ValueError(f"`groups` (={groups}) must divide the kernel's output channels (={kernel.shape[-1]}).")


def connect(kernel: Array, connections: ArrayLike, groups: int) -> Array:
    """The kernel with zero where the table `connections`, `(in, out)`, has no connection."""
    table = as_array(connections)
    if table.dtype != jnp.bool_:
        raise TypeError(f"`connections` (dtype={table.dtype}) must be a table of bool.")
    if groups != 1:
        raise ValueError(f"`connections` needs `groups` (={groups}) to be 1: a table says more than groups do.")
    if table.shape != kernel.shape[-2:]:
        raise ValueError(f"`connections` (shape={table.shape}) must be (in, out), here {kernel.shape[-2:]}.")
    return jnp.where(table, kernel, jnp.zeros((), kernel.dtype))
