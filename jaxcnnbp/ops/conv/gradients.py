"""The two gradients of a convolution, and that of its bias, as ordinary functions in lax's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxcnnbp.modes import switchable
from jaxcnnbp.ops._dtypes import as_array, require_inexact
from jaxcnnbp.ops._sharding import with_sharding_by
from jaxcnnbp.ops.conv.lax_layout import LaxConvolution, checked_by_lax, lax_convolution, padding_in_numbers
from jaxcnnbp.ops.conv.rule import input_grad_op, kernel_grad_op
from jaxcnnbp.ops.dense import sum_to_channels


@switchable
def conv_input_grad(
    delta: ArrayLike,
    kernel: ArrayLike,
    input_shape: Sequence[int],
    window_strides: Sequence[int] | None = None,
    padding: str | Sequence[tuple[int, int]] = "VALID",
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
) -> Array:
    """Delta carried back through a convolution: dx[n] = sum of delta[u] k[t] over all n(u, t) = n.

    Args:
      delta: gradient of the loss by the convolution's output, in the output's layout.
      kernel: the convolution's kernel.
      input_shape: whole shape of the convolution's input; the output's alone does not tell it.
      window_strides: as the convolution's, ones if None.
      padding, lhs_dilation, rhs_dilation, dimension_numbers, feature_group_count, batch_group_count, precision: as
        `conv_general_dilated` took them.

    Returns:
      dx of shape `input_shape`, in the dtype of `kernel`.

    Raises:
      TypeError: for integers.
      ValueError: if `delta` has not the shape of the convolution's output.

    Example:
      >>> import jax.numpy as jnp
      >>> delta, kernel = jnp.array([[[1., 1.]]]), jnp.array([[[1., 10.]]])
      >>> conv_input_grad(delta, kernel, (1, 1, 3))
      Array([[[ 1., 11., 10.]]], dtype=float32)

    Source: Bouvrie (2006), section 3.1; for stride 1 the full convolution of delta with the flipped kernel.
    """
    delta, kernel = as_array(delta), as_array(kernel)
    plan = _gradient_plan(
        delta,
        tuple(input_shape),
        kernel.shape,
        kernel,
        window_strides=window_strides,
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        batch_group_count=batch_group_count,
        precision=precision,
    )

    def rule(delta: Array, kernel: Array) -> Array:
        return plan.input_out(input_grad_op(plan.output_in(delta), plan.kernel_in(kernel), plan.geometry))

    return with_sharding_by(rule, lambda of_delta, _: plan.input_axes(of_delta), delta, kernel)


@switchable
def conv_kernel_grad(
    x: ArrayLike,
    delta: ArrayLike,
    kernel_shape: Sequence[int],
    window_strides: Sequence[int] | None = None,
    padding: str | Sequence[tuple[int, int]] = "VALID",
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
) -> Array:
    """The patch-times-delta rule: dk[t] = sum_u x[n(u, t)] delta[u].

    Args:
      x: the convolution's input.
      delta: gradient of the loss by the convolution's output, in the output's layout.
      kernel_shape: whole shape of the kernel.
      window_strides: as the convolution's, ones if None.
      padding, lhs_dilation, rhs_dilation, dimension_numbers, feature_group_count, batch_group_count, precision: as
        `conv_general_dilated` took them.

    Returns:
      dk of shape `kernel_shape`, in the dtype of `x`.

    Raises:
      TypeError: for integers.
      ValueError: if `delta` has not the shape of the convolution's output.

    Example:
      >>> import jax.numpy as jnp
      >>> x, delta = jnp.array([[[1., 2., 3.]]]), jnp.array([[[1., 10.]]])
      >>> conv_kernel_grad(x, delta, (1, 1, 2))
      Array([[[21., 32.]]], dtype=float32)

    Source: Bouvrie (2006), section 3.1.
    """
    x, delta = as_array(x), as_array(delta)
    plan = _gradient_plan(
        delta,
        x.shape,
        tuple(kernel_shape),
        x,
        window_strides=window_strides,
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        batch_group_count=batch_group_count,
        precision=precision,
    )

    def rule(x: Array, delta: Array) -> Array:
        return plan.kernel_out(kernel_grad_op(plan.input_in(x), plan.output_in(delta), plan.geometry))

    return with_sharding_by(rule, lambda *_: (), x, delta)


def conv_bias_grad(delta: ArrayLike, feature_axis: int = -1) -> Array:
    """The bias gradient: db = sum of delta over the batch and all positions.

    Args:
      delta: gradient of the loss by the output, any layout.
      feature_axis: the axis of its channels.

    Returns:
      `(out,)` in the dtype of `delta`; narrow floats are summed in float32.

    Raises:
      TypeError: for integers.

    Example:
      >>> import jax.numpy as jnp
      >>> conv_bias_grad(jnp.ones((2, 3, 3, 4)))
      Array([18., 18., 18., 18.], dtype=float32)

    Source: Bouvrie (2006), section 3.1.
    """
    delta = as_array(delta)
    require_inexact(delta, "delta")
    last = jnp.moveaxis(delta, feature_axis, -1)
    return with_sharding_by(sum_to_channels, lambda of_delta: of_delta[-1:], last)


def _gradient_plan(
    delta: Array, input_shape: Any, kernel_shape: Any, operand: Array, **parameters: Any
) -> LaxConvolution:
    require_inexact(delta, "delta")
    parameters["window_strides"] = parameters["window_strides"] or (1,) * (len(input_shape) - 2)
    parameters["preferred_element_type"] = None
    words = ("window_strides", "padding", "lhs_dilation", "rhs_dilation", "dimension_numbers")
    parameters["padding"] = padding_in_numbers(input_shape, kernel_shape, *(parameters[word] for word in words))
    expected = _output_of(operand.dtype, input_shape, kernel_shape, parameters)
    if delta.shape != expected:
        raise ValueError(
            f"`delta` (shape={delta.shape}) must have the shape of the convolution's output, {expected}, for an input"
            f" of shape {tuple(input_shape)} and a kernel of shape {tuple(kernel_shape)}."
        )
    return lax_convolution(input_shape, kernel_shape, **parameters)


def _output_of(dtype: np.dtype, input_shape: Any, kernel_shape: Any, parameters: dict[str, Any]) -> tuple[int, ...]:
    x, kernel = (jax.ShapeDtypeStruct(tuple(shape), dtype) for shape in (input_shape, kernel_shape))
    return checked_by_lax(x, kernel, **parameters).shape
