"""The pools by name: parse, call one rule, put the batch axes back."""

from __future__ import annotations

from collections.abc import Sequence

from jax import Array
from jax.typing import ArrayLike

from jaxcnnbp.geometry import Padding
from jaxcnnbp.geometry.parse import over_symbols, require_numbers
from jaxcnnbp.modes import switchable
from jaxcnnbp.ops import symbolic
from jaxcnnbp.ops._sharding import with_sharding_like
from jaxcnnbp.ops.layout import takes_layout
from jaxcnnbp.ops.pool.max import argmax_pool_op, extreme_pool_op
from jaxcnnbp.ops.pool.mean import mean_pool
from jaxcnnbp.ops.pool.parse import check_ties, parse_pool, require_ordered, split_batch, with_mean

Shape = int | Sequence[int]


@takes_layout("inputs", window="window_shape")
@switchable
def max_pool(
    inputs: ArrayLike,
    window_shape: Shape,
    strides: Shape | None = None,
    padding: Padding = "VALID",
    *,
    window_dilation: Shape | None = None,
    ceil_mode: bool = False,
    ties: str = "first",
    layout: str = "channels_last",
) -> Array:
    """Max pooling, y[u] = max_t x[n(u, t)]; delta goes to the recorded winner.

    Args:
      inputs: `(*batch, *spatial, channels)`.
      window_shape: taps an axis; its length says how many spatial axes there are, and an int is for all axes of
        `(batch, *spatial, channels)`.
      strides: input positions from one window to the next, ones if None (as `flax.linen`).
      padding: `"VALID"`, `"SAME"`, `"SAME_LOWER"`, `"FULL"`, an int, or one int or `(low, high)` pair an axis;
        padding never wins.
      window_dilation: input positions from one tap to the next, ones if None.
      ceil_mode: also the last, partial window counts, if it begins on the input or the low padding (PyTorch's rule).
      ties: which of several maximal cells get delta: `"first"` the first, `"all"` each the whole delta (the
        document's formula), `"split"` equal shares.
      layout: where `inputs` and the output have their channels: `"channels_last"`, `"channels_first"`, or letters such
        as `"NHWC"` and `"NCHW"`.

    Returns:
      `(*batch, *output, channels)` in the dtype of `inputs`. A NaN in a window is its maximum, and its winner.

    Raises:
      TypeError, ValueError: with the argument and its value.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> x = jnp.array([1., 3., 3., 2.]).reshape(1, 4, 1)
      >>> jax.grad(lambda x: max_pool(x, (2,), (2,)).sum())(x).ravel()
      Array([0., 1., 1., 0.], dtype=float32)

    Source: Bouvrie (2006), section 3.2; `ops.pool.max`.
    """
    return _extreme("max", inputs, window_shape, strides, padding, window_dilation, ceil_mode, ties)


@takes_layout("inputs", window="window_shape")
@switchable
def min_pool(
    inputs: ArrayLike,
    window_shape: Shape,
    strides: Shape | None = None,
    padding: Padding = "VALID",
    *,
    window_dilation: Shape | None = None,
    ceil_mode: bool = False,
    ties: str = "first",
    layout: str = "channels_last",
) -> Array:
    """Min pooling, y[u] = min_t x[n(u, t)]; delta goes to the recorded winner.

    Args, Returns and Raises are those of `max_pool`.

    Example:
      >>> import jax.numpy as jnp
      >>> min_pool(jnp.array([1., 3., 3., 2.]).reshape(1, 4, 1), (2,), (2,)).ravel()
      Array([1., 2.], dtype=float32)

    Source: `ops.pool.max`.
    """
    return _extreme("min", inputs, window_shape, strides, padding, window_dilation, ceil_mode, ties)


@takes_layout("inputs", window="window_shape")
@switchable
def avg_pool(
    inputs: ArrayLike,
    window_shape: Shape,
    strides: Shape | None = None,
    padding: Padding = "VALID",
    count_include_pad: bool = True,
    *,
    window_dilation: Shape | None = None,
    ceil_mode: bool = False,
    layout: str = "channels_last",
) -> Array:
    """Mean pooling, y[u] = sum_t x[n(u, t)] / m[u]; delta / m goes to every cell of the window.

    Args:
      inputs: `(*batch, *spatial, channels)`.
      window_shape: taps an axis.
      strides: as `max_pool`.
      padding: as `max_pool`.
      count_include_pad: whether m counts cells of the padding; never those beyond it, that only `ceil_mode` reads.
      window_dilation: as `max_pool`.
      ceil_mode, layout: as `max_pool`.

    Returns:
      `(*batch, *output, channels)` in the dtype of `inputs`, of integers in JAX's default float, as Flax; summed in
      float32 or wider. A window that counts no cell is 0, with zero gradient.

    Raises:
      TypeError, ValueError: with the argument and its value.

    Example:
      >>> import jax.numpy as jnp
      >>> avg_pool(jnp.array([1., 3., 5.]).reshape(1, 3, 1), (2,), (2,), ceil_mode=True).ravel()
      Array([2., 5.], dtype=float32)

    Source: Bouvrie (2006), section 3.2; `ops.pool.mean`.
    """
    x, window = parse_pool(inputs, window_shape, strides, padding, window_dilation, ceil_mode)
    x = with_mean(x)
    rule = symbolic.mean_pool if over_symbols(window) else mean_pool
    return split_batch(with_sharding_like(lambda x: rule(x, window, bool(count_include_pad)), x), inputs, window.rank)


@takes_layout("inputs", window="window_shape")
@switchable
def max_pool_with_argmax(
    inputs: ArrayLike,
    window_shape: Shape,
    strides: Shape | None = None,
    padding: Padding = "VALID",
    *,
    window_dilation: Shape | None = None,
    ceil_mode: bool = False,
    layout: str = "channels_last",
) -> tuple[Array, Array]:
    """Max pooling and where each maximum was found.

    Args and Raises are those of `max_pool`, with `ties="first"`.

    Returns:
      The values, and int32 indices of the same shape: the flat, row-major position among the spatial axes of one
      image and channel, as PyTorch's `return_indices`; -1 for a window that lies wholly on padding.

    Example:
      >>> import jax.numpy as jnp
      >>> values, argmax = max_pool_with_argmax(jnp.array([1., 3., 3., 2.]).reshape(1, 4, 1), (2,), (2,))
      >>> argmax.ravel()
      Array([1, 2], dtype=int32)

    Source: `ops.pool.max`.
    """
    x, window = parse_pool(inputs, window_shape, strides, padding, window_dilation, ceil_mode)
    require_numbers(window, "`max_pool_with_argmax`", "use `max_pool`")
    require_ordered(x)
    values, argmax = with_sharding_like(lambda x: argmax_pool_op(x, window, "max"), x)
    return split_batch(values, inputs, window.rank), split_batch(argmax, inputs, window.rank)


def _extreme(
    kind: str,
    inputs: ArrayLike,
    window_shape: Shape,
    strides: Shape | None,
    padding: Padding,
    window_dilation: Shape | None,
    ceil_mode: bool,
    ties: str,
) -> Array:
    check_ties(ties)
    x, window = parse_pool(inputs, window_shape, strides, padding, window_dilation, ceil_mode)
    require_ordered(x)
    rule = symbolic.extreme_pool if over_symbols(window) else extreme_pool_op
    return split_batch(with_sharding_like(lambda x: rule(x, window, kind, ties), x), inputs, window.rank)
