"""The block by name: convolution, bias, activation and pool in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxcnnbp.geometry import Padding, window_of
from jaxcnnbp.geometry.parse import over_symbols, require_output
from jaxcnnbp.geometry.window import Ints
from jaxcnnbp.modes import switchable
from jaxcnnbp.ops import symbolic
from jaxcnnbp.ops._dtypes import as_array, require_inexact, require_same_dtype
from jaxcnnbp.ops._sharding import with_sharding_like
from jaxcnnbp.ops.activation import FAMILIES, RULES
from jaxcnnbp.ops.block import Block, Pool, block
from jaxcnnbp.ops.conv.api import bordered, check_operands, connect, conv_geometry
from jaxcnnbp.ops.dense import add_bias
from jaxcnnbp.ops.layout import takes_layout

Shape = int | Sequence[int]

KINDS = ("max", "min", "mean")
_POOL_NAMES = {"size": "pool", "stride": "pool_strides", "padding": "pool_padding", "dilation": "pool_dilation"}


@takes_layout("x")
@switchable
def conv_block(
    x: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    stride: Any = 1,
    padding: Padding = "VALID",
    padding_mode: str = "zeros",
    dilation: Any = 1,
    groups: int = 1,
    connections: ArrayLike | None = None,
    true_convolution: bool = False,
    activation: str | None = "relu",
    activation_argument: float | bool | None = None,
    pool: Shape | None = None,
    pool_strides: Shape | None = None,
    pool_padding: Padding = "VALID",
    pool_dilation: Shape | None = None,
    pool_kind: str = "max",
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    layout: str = "channels_last",
) -> Array:
    """Convolution, bias, activation and pool as one rule: y = pool(f(x * k + b)).

    The values and gradients are those of `correlate`, `add_bias`, the activation and the pool one after another, but
    the backward pass needs neither the activation nor its input in their full size. With a max or min pool it keeps
    beside `x` and `kernel` the winners, a byte each, and y; without a pool y; with a mean pool one bit a cell of relu
    or leaky relu, and for the other activations what their derivative is written from. If several cells of a window
    have the same f(x * k + b) by rounding, the delta goes to the one whose x * k is largest (of a min pool, smallest).

    Args:
      x: `(batch, *spatial, in)`, real floats.
      kernel: `(*window, in // groups, out)`, of the dtype of `x`.
      bias: `(out,)`, of the dtype of `x`; none if None.
      stride, padding, padding_mode, dilation, groups, connections: of the convolution, as `correlate` takes them.
      true_convolution: whether the kernel is flipped, as in `convolve`.
      activation: name of an activation of this package, such as `"relu"`; none if None.
      activation_argument: its second argument, if it has one: the slope of leaky relu, whether gelu is approximate.
      pool: taps of the pool, an int or one an axis; no pool if None.
      pool_strides, pool_padding, pool_dilation, ceil_mode: as `max_pool` takes `strides`, `padding`, `window_dilation`
        and `ceil_mode`: the strides are ones if None.
      pool_kind: `"max"`, `"min"` or `"mean"`.
      count_include_pad: as `avg_pool` takes it, for a mean.
      layout: of `x` and the output, as `correlate` takes it.

    Returns:
      `(batch, *output, out)` in the dtype of `x`; sums of narrow floats are held in float32.

    Raises:
      TypeError, ValueError: with the argument and its value.

    Example:
      >>> import jax.numpy as jnp
      >>> x, kernel = jnp.array([1., 2., -3., 4., 0.]).reshape(1, 5, 1), jnp.array([1., 1.]).reshape(2, 1, 1)
      >>> conv_block(x, kernel, jnp.array([0.5]), pool=2, pool_strides=2).ravel()
      Array([3.5, 4.5], dtype=float32)

    Source: `ops.block`; Bouvrie (2006), section 3, for the rules that it joins.
    """
    x, kernel = as_array(x), as_array(kernel)
    check_operands(x, kernel, groups)
    _require_real(x)
    bias = None if bias is None else _checked_bias(as_array(bias), kernel)
    kernel = kernel if connections is None else connect(kernel, connections, groups)
    geometry = conv_geometry(x, kernel, stride, padding, dilation, groups, bool(true_convolution), connections)
    border, geometry = bordered(geometry, padding_mode)
    pooled = parse_block_pool(
        geometry.window.output,
        pool,
        pool_strides=pool_strides,
        pool_padding=pool_padding,
        pool_dilation=pool_dilation,
        pool_kind=pool_kind,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
    )
    plan = Block(geometry, bias is not None, *parse_activation(activation, activation_argument), pooled, border)
    operands = (x, kernel) if bias is None else (x, kernel, bias)
    rule = _parts_in_turn if over_symbols(geometry.window) else block
    return with_sharding_like(lambda x, kernel, bias=None: rule(x, kernel, bias, plan), *operands)


def _parts_in_turn(x: Array, kernel: Array, bias: Array | None, plan: Block) -> Array:
    """The parts one after another."""
    y = symbolic.conv(x, kernel, plan.geometry)
    y = y if bias is None else add_bias(y, bias)
    y = plan.rule.op(y)
    if plan.pool is None:
        return y
    if plan.pool.kind == "mean":
        return symbolic.mean_pool(y, plan.pool.window, plan.pool.count_padding)
    return symbolic.extreme_pool(y, plan.pool.window, plan.pool.kind, "first")


def parse_activation(activation: Any, argument: Any) -> tuple[str, float | bool | None]:
    """The name and the argument of an activation, as `ops.activation.rule_named` takes them."""
    name = "identity" if activation is None else activation
    if not isinstance(name, str) or name not in (*RULES, *FAMILIES):
        known = ", ".join(sorted((*RULES, *FAMILIES)))
        raise ValueError(f"`activation` (={activation!r}) is none; use None or one of {known}.")
    if name in RULES and argument is not None:
        raise ValueError(f"`activation_argument` (={argument!r}) is not for {name!r}, which has none; leave it out.")
    if argument is None or isinstance(argument, bool | int | float):
        return name, argument
    if isinstance(argument, np.number | np.bool_):
        return name, argument.item()
    raise TypeError(f"`activation_argument` (={argument!r}) must be a Python number, or a bool for gelu.")


def parse_block_pool(
    spatial: Ints,
    pool: Any,
    *,
    pool_strides: Any = None,
    pool_padding: Any = "VALID",
    pool_dilation: Any = None,
    pool_kind: str = "max",
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Pool | None:
    """The pool over a convolution's output of extents `spatial`."""
    if pool_kind not in KINDS:
        raise ValueError(f"`pool_kind` (={pool_kind!r}) is unknown; use one of {', '.join(map(repr, KINDS))}.")
    if pool is None:
        _refuse_without_pool(
            pool_strides=pool_strides,
            pool_padding=None if pool_padding == "VALID" else pool_padding,
            pool_dilation=pool_dilation,
            pool_kind=None if pool_kind == "max" else pool_kind,
            ceil_mode=ceil_mode or None,
            count_include_pad=None if count_include_pad else count_include_pad,
        )
        return None
    window = window_of(
        spatial,
        pool,
        stride=1 if pool_strides is None else pool_strides,
        padding=pool_padding,
        dilation=1 if pool_dilation is None else pool_dilation,
        ceil_mode=bool(ceil_mode),
        names=_POOL_NAMES,
    )
    return Pool(require_output(window, "pool"), pool_kind, bool(count_include_pad))


def _refuse_without_pool(**given: Any) -> None:
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"`{name}` (={value!r}) needs a `pool`; give its window, or leave it out.")


def _require_real(x: Array) -> None:
    require_inexact(x, "x")
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise TypeError(f"`x` (dtype={x.dtype}) must be real to have an activation and a maximum; use `correlate`.")


def _checked_bias(bias: Array, kernel: Array) -> Array:
    require_same_dtype(bias, "bias", kernel, "kernel")
    if bias.shape != kernel.shape[-1:]:
        raise ValueError(f"`bias` (shape={bias.shape}) must be (out,), here {kernel.shape[-1:]}.")
    return bias
