"""lax's convolutions with this package's backward rules: the parameters, layouts and errors are lax's own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

from jaxcnnbp._compat import with_weak_type
from jaxcnnbp.geometry.parse import sized_by_ints
from jaxcnnbp.modes import switchable
from jaxcnnbp.ops import lax_itself
from jaxcnnbp.ops._dtypes import as_array
from jaxcnnbp.ops._sharding import with_sharding
from jaxcnnbp.ops.conv.lax_layout import checked_by_lax, lax_convolution, padding_in_numbers


@switchable
def conv_general_dilated(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
    out_sharding: Any = None,
) -> Array:
    """`jax.lax.conv_general_dilated` with hand-written gradients; every parameter and error is lax's.

    A word of padding also serves an input with gaps, where lax refuses it (jax issue 4216).

    Args:
      lhs: the input, by default `(batch, in, *spatial)`.
      rhs: the kernel, by default `(out, in // groups, *window)`.
      window_strides: input positions from one output to the next.
      padding: `"SAME"`, `"SAME_LOWER"`, `"VALID"`, or `(low, high)` pairs, also negative. Over an input with gaps the
        words mean what they mean over any input of its extent: `SAME` gives `ceil(((n - 1) * dilation + 1) / stride)`.
      lhs_dilation: positions from one input cell to the next.
      rhs_dilation: positions from one tap to the next.
      dimension_numbers: the layouts, as lax takes them.
      feature_group_count: groups of channels.
      batch_group_count: groups of images.
      precision: as lax takes it.
      preferred_element_type: dtype of the output.
      out_sharding: sharding of the output, as lax takes it.

    Returns:
      The output in the layout asked for. Integer inputs are convolved by lax; they have no gradient.

    Raises:
      TypeError, ValueError: as lax does.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> x, kernel = jnp.ones((1, 1, 3)), jnp.array([[[1., 2.]]])
      >>> jax.grad(lambda k: conv_general_dilated(x, k, (1,), "VALID").sum())(kernel)
      Array([[[2., 2.]]], dtype=float32)

    Source: the relation n * lhs_dilation = u * stride + t * rhs_dilation - low and its transpose, `ops.conv.rule`.
    """
    lhs, rhs = as_array(lhs), as_array(rhs)
    padding = padding_in_numbers(
        lhs.shape, rhs.shape, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers
    )
    parameters: dict[str, Any] = dict(
        window_strides=window_strides,
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        batch_group_count=batch_group_count,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )
    out = checked_by_lax(lhs, rhs, **parameters, out_sharding=out_sharding)
    if conv_by_lax_because(lhs, rhs, parameters["dimension_numbers"]):
        return lax_itself.conv_general_dilated(lhs, rhs, **parameters, out_sharding=out_sharding)
    return convolved(lhs, rhs, out, **parameters)


def convolved(lhs: Array, rhs: Array, out: Any, **parameters: Any) -> Array:
    """The convolution that lax's parameters describe, by its rule; `out` is the type of the output."""
    plan = lax_convolution(lhs.shape, rhs.shape, **parameters)
    return with_weak_type(with_sharding(plan, lhs, rhs, sharding=out.sharding), out)


def conv_by_lax_because(lhs: Any, rhs: Any, dimension_numbers: Any) -> str | None:
    """Why a convolution that lax accepts is left to it, None if it is not; the operands may be their types alone."""
    if not jnp.issubdtype(lhs.dtype, jnp.inexact):
        return f"{lhs.dtype} has no gradient"
    if 0 in rhs.shape:
        return "the kernel is empty"
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    in_channels = lhs.shape[numbers.lhs_spec[1]]
    return None if sized_by_ints((in_channels, *rhs.shape)) else "the kernel has an extent that is symbolic"


@switchable
def conv(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: str,
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
) -> Array:
    """`jax.lax.conv` with hand-written gradients: `(batch, in, *spatial)` by `(out, in, *window)`.

    Args, Returns and Raises are those of `conv_general_dilated`.

    Example:
      >>> import jax.numpy as jnp
      >>> conv(jnp.ones((1, 1, 3)), jnp.ones((1, 1, 2)), (1,), "VALID")
      Array([[[2., 2.]]], dtype=float32)

    Source: `conv_general_dilated`.
    """
    return conv_general_dilated(
        lhs, rhs, window_strides, padding, precision=precision, preferred_element_type=preferred_element_type
    )


@switchable
def conv_with_general_padding(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None,
    rhs_dilation: Sequence[int] | None,
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
) -> Array:
    """`jax.lax.conv_with_general_padding` with hand-written gradients: as `conv`, with pairs and dilations.

    Args, Returns and Raises are those of `conv_general_dilated`.

    Example:
      >>> import jax.numpy as jnp
      >>> conv_with_general_padding(jnp.ones((1, 1, 3)), jnp.ones((1, 1, 2)), (1,), [(1, 0)], None, None)
      Array([[[1., 2., 2.]]], dtype=float32)

    Source: `conv_general_dilated`.
    """
    return conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        lhs_dilation,
        rhs_dilation,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )


@switchable
def conv_transpose(
    lhs: Array,
    rhs: Array,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    transpose_kernel: bool = False,
    precision: Any = None,
    preferred_element_type: DTypeLike | None = None,
    use_consistent_padding: bool = False,
) -> Array:
    """`jax.lax.conv_transpose` with hand-written gradients: the input gradient of a convolution, as a forward.

    Args:
      lhs: the input, by default channels last.
      rhs: the kernel, by default `(*window, in, out)`.
      strides: output positions from one input to the next.
      padding: `"SAME"`, `"VALID"`, or pairs: of the padded, dilated input, or with `use_consistent_padding` those of
        the convolution that this one transposes.
      rhs_dilation: positions from one tap to the next.
      dimension_numbers: as lax takes them.
      transpose_kernel: whether to flip the kernel and exchange its channels.
      precision: as lax takes it.
      preferred_element_type: dtype of the output.
      use_consistent_padding: what pairs mean, see `padding`.

    Returns:
      The output in the layout asked for.

    Raises:
      TypeError, ValueError: as lax does.

    Example:
      >>> import jax.numpy as jnp
      >>> conv_transpose(jnp.array([[[1.], [2.]]]), jnp.array([[[1.]], [[10.]]]), (2,), "VALID").ravel()
      Array([10.,  1., 20.,  2.], dtype=float32)

    Source: Dumoulin and Visin, *A guide to convolution arithmetic for deep learning* (2016), section 4.
    """
    lhs, rhs = as_array(lhs), as_array(rhs)
    parameters: dict[str, Any] = dict(
        strides=strides,
        padding=padding,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        transpose_kernel=transpose_kernel,
        precision=precision,
        preferred_element_type=preferred_element_type,
        use_consistent_padding=use_consistent_padding,
    )
    jax.eval_shape(partial(lax_itself.conv_transpose, **parameters), lhs, rhs)  # for lax's errors
    rank = lhs.ndim - 2
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers or _transpose_layout(rank))
    window_axes = numbers.rhs_spec[2:]
    rhs_dilation = (1,) * rank if rhs_dilation is None else rhs_dilation
    if use_consistent_padding or (isinstance(padding, str) and padding in ("SAME", "VALID")):
        extents = [(rhs.shape[a] - 1) * d + 1 for a, d in zip(window_axes, rhs_dilation, strict=True)]
        each = [padding] * rank if isinstance(padding, str) else padding
        padding = [_transposed_padding(e, s, p) for e, s, p in zip(extents, strides, each, strict=True)]
    if transpose_kernel:
        rhs = jnp.flip(rhs, window_axes).swapaxes(numbers.rhs_spec[0], numbers.rhs_spec[1])
    return conv_general_dilated(
        lhs,
        rhs,
        (1,) * rank,
        padding,
        strides,
        rhs_dilation,
        numbers,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )


def _transpose_layout(rank: int) -> tuple[str, str, str]:
    axes = "HWD"[:rank]
    return f"N{axes}C", f"{axes}IO", f"N{axes}C"


def _transposed_padding(extent: int, stride: int, padding: Any) -> tuple[int, int]:
    """The padding of a convolution over the dilated input that transposes one of `padding`."""
    if padding == "SAME":
        total = extent + stride - 2
        low = extent - 1 if stride > extent - 1 else -(-total // 2)
    elif padding == "VALID":
        total, low = extent + stride - 2 + max(extent - stride, 0), extent - 1
    else:
        low, high = padding
        return extent - 1 - low, extent - 1 - high
    return low, total - low
