"""`conv`, `conv1d`, `conv_transpose`, `max_pool`, `mean_pool`: one layer, one image, every number explained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from jaxcnnbp.explain.explanation import Explanation
from jaxcnnbp.explain.numbers import numbers_of, with_channels
from jaxcnnbp.explain.passes import delta_for, explained, forward, forward_pool, forward_transposed
from jaxcnnbp.geometry import Padding, Window, parse_padding, per_axis, window_of
from jaxcnnbp.geometry.parse import require_output
from jaxcnnbp.geometry.window import Ints
from jaxcnnbp.ops.conv.api import check_operands
from jaxcnnbp.ops.pool.parse import check_ties


def conv(
    x: Any = (6, 6),
    kernel: Any = (3, 3),
    delta: Any = None,
    *,
    stride: Any = 1,
    padding: Padding = "VALID",
    dilation: Any = 1,
    flip: bool = False,
    seed: int = 0,
    select: Mapping[str, Ints] | None = None,
) -> Explanation:
    """A convolution and both its gradients, number by number.

    Args:
      x: one image, `(height, width)` or `(height, width, in)`; a tuple of ints is a shape to fill with small
        whole numbers.
      kernel: `(height, width)` or `(height, width, in, out)`, or its shape.
      delta: gradient of the loss by the output, `(height, width)` or `(height, width, out)`; drawn if None.
      stride: input positions from one output to the next, an int or one an axis.
      padding: as `jaxcnnbp.convolve` takes it.
      dilation: input positions from one tap to the next.
      flip: whether the kernel is flipped: true convolution instead of correlation.
      seed: of the numbers that are drawn.
      select: what text and pictures pick out, an index each for "y", "dk", "dx"; the middle by default.

    Returns:
      An `Explanation`: shows itself in a notebook; `print`, `to_html`, `save_html`, `plot`.

    Raises:
      TypeError, ValueError: as `jaxcnnbp.convolve`, and for a layer too large to be looked at cell by cell.

    Example:
      >>> shown = conv([[1, 2], [3, 4]], [[1, 10]], [[1], [2]])
      >>> shown.arrays["dk"].ravel(), shown.gaps["dk"]
      (array([ 7., 10.], dtype=float32), 0.0)

    Source: Bouvrie (2006), section 3.1; `jaxcnnbp.ops.conv.rule`.
    """
    return _convolution("conv", 2, x, kernel, delta, stride, padding, dilation, flip, seed, select)


def conv1d(
    x: Any = (8,),
    kernel: Any = (3,),
    delta: Any = None,
    *,
    stride: Any = 1,
    padding: Padding = "VALID",
    dilation: Any = 1,
    flip: bool = False,
    seed: int = 0,
    select: Mapping[str, Ints] | None = None,
) -> Explanation:
    """A convolution along one axis: `x` `(positions[, in])`, `kernel` `(taps[, in, out])`.

    Args, Returns and Raises are those of `conv`.

    Example:
      >>> conv1d([1, 2, 3], [1, 10]).arrays["y"].ravel()
      array([21., 32.], dtype=float32)

    Source: `conv`.
    """
    return _convolution("conv", 1, x, kernel, delta, stride, padding, dilation, flip, seed, select)


def conv_transpose(
    x: Any = (3, 3),
    kernel: Any = (3, 3),
    delta: Any = None,
    *,
    stride: Any = 2,
    padding: Padding = "VALID",
    dilation: Any = 1,
    flip: bool = True,
    seed: int = 0,
    select: Mapping[str, Ints] | None = None,
) -> Explanation:
    """A transposed convolution: every input cell stamps the kernel into the output, `stride` apart.

    Args:
      x: as in `conv`.
      kernel: `(height, width)` or `(height, width, in, out)`, or its shape.
      delta: as in `conv`.
      stride: output positions from one input cell to the next.
      padding: that of the convolution which this one transposes, as PyTorch means it: it makes the output smaller.
        "VALID" is none, "FULL" the most that `dilation * (kernel - 1)` allows; also an int, or (low, high) pairs.
      dilation: output positions from one tap to the next.
      flip: True stamps the kernel as it stands (PyTorch, Keras, `transpose_kernel=True` of lax); False is lax's
        default, which stamps it flipped.
      seed: as in `conv`.
      select: as in `conv`.

    Returns:
      An `Explanation`.

    Raises:
      TypeError, ValueError: as `conv`.

    Example:
      >>> conv_transpose([[1, 2]], [[1, 10]], stride=2).arrays["y"].ravel()
      array([ 1., 10.,  2., 20.], dtype=float32)

    Source: Dumoulin and Visin, *A guide to convolution arithmetic for deep learning* (2016), section 4.
    """
    return _convolution("conv-transpose", 2, x, kernel, delta, stride, padding, dilation, flip, seed, select)


def max_pool(
    x: Any = (6, 6),
    window: Any = 2,
    delta: Any = None,
    *,
    stride: Any = None,
    padding: Padding = "VALID",
    dilation: Any = 1,
    ties: str = "first",
    ceil_mode: bool = False,
    seed: int = 0,
    select: Mapping[str, Ints] | None = None,
) -> Explanation:
    """Max pooling: the winner of every window, and delta carried back to it.

    Args:
      x: one image, `(height, width)` or `(height, width, channels)`, or its shape.
      window: taps, an int or one an axis.
      delta: gradient of the loss by the output; drawn if None.
      stride: from one window to the next; the window's size if None.
      padding, dilation, ties, ceil_mode: as `jaxcnnbp.max_pool` takes them.
      seed: as in `conv`.
      select: as in `conv`, for "y" and "dx".

    Returns:
      An `Explanation`.

    Raises:
      TypeError, ValueError: as `jaxcnnbp.max_pool`, and for a layer too large to be looked at.

    Example:
      >>> max_pool([[1, 5], [3, 5]], 2, [[7]]).arrays["dx"][..., 0]
      array([[0., 7.],
             [0., 0.]], dtype=float32)

    Source: Bouvrie (2006), section 3.2; `jaxcnnbp.ops.pool.max`.
    """
    check_ties(ties)
    options = {"ties": ties, "ceil_mode": bool(ceil_mode)}
    return _pool("max-pool", x, window, delta, stride, padding, dilation, options, seed, select)


def mean_pool(
    x: Any = (6, 6),
    window: Any = 2,
    delta: Any = None,
    *,
    stride: Any = None,
    padding: Padding = "VALID",
    dilation: Any = 1,
    count_include_pad: bool = True,
    ceil_mode: bool = False,
    seed: int = 0,
    select: Mapping[str, Ints] | None = None,
) -> Explanation:
    """Mean pooling: how many cells each window counts, and delta / m carried back to them.

    Args:
      x, window, delta, stride, padding, dilation, ceil_mode, seed, select: as in `max_pool`.
      count_include_pad: whether cells of the padding count.

    Returns:
      An `Explanation`.

    Raises:
      TypeError, ValueError: as `jaxcnnbp.avg_pool`, and for a layer too large to be looked at.

    Example:
      >>> mean_pool([[1, 5], [3, 3]], 2, [[8]]).arrays["dx"][..., 0]
      array([[2., 2.],
             [2., 2.]], dtype=float32)

    Source: Bouvrie (2006), section 3.2; `jaxcnnbp.ops.pool.mean`.
    """
    options = {"count_padding": bool(count_include_pad), "ceil_mode": bool(ceil_mode)}
    return _pool("mean-pool", x, window, delta, stride, padding, dilation, options, seed, select)


def _convolution(
    kind: str,
    rank: int,
    x: Any,
    kernel: Any,
    delta: Any,
    stride: Any,
    padding: Padding,
    dilation: Any,
    flip: bool,
    seed: int,
    select: Mapping[str, Ints] | None,
) -> Explanation:
    x = with_channels("x", numbers_of("x", x, seed), rank, 1)
    kernel = with_channels("kernel", numbers_of("kernel", kernel, seed), rank, 2).astype(x.dtype)
    check_operands(jax.ShapeDtypeStruct((1, *x.shape), x.dtype), kernel, 1)  # pyright: ignore[reportArgumentType]
    of_window = _transposed_window if kind == "conv-transpose" else _plain_window
    window = require_output(of_window(x.shape[:-1], kernel.shape[:rank], stride, padding, dilation), "kernel")
    settings = {"flip": bool(flip)}
    run = (forward_transposed if kind == "conv-transpose" else forward)(window, flip)
    arrays = {"x": x, "kernel": kernel, "delta": delta_for(delta, window, kernel.shape[-1], x.dtype, seed)}
    return explained(kind, window, settings, arrays, run, select)


def _pool(
    kind: str,
    x: Any,
    size: Any,
    delta: Any,
    stride: Any,
    padding: Padding,
    dilation: Any,
    options: dict[str, Any],
    seed: int,
    select: Mapping[str, Ints] | None,
) -> Explanation:
    x = numbers_of("x", x, seed)
    x = with_channels("x", x, 1 if x.ndim == 1 else 2, 1)
    spatial = x.shape[:-1]
    stride = per_axis(size, len(spatial), "window") if stride is None else stride
    asked = dict(stride=stride, padding=padding, dilation=dilation, ceil_mode=options["ceil_mode"])
    window = window_of(spatial, size, **asked, names={"size": "window"})
    window = require_output(window, "window")
    arrays = {"x": x, "delta": delta_for(delta, window, x.shape[-1], x.dtype, seed)}
    return explained(kind, window, options, arrays, forward_pool(kind, window, options), select)


def _plain_window(spatial: Ints, size: Ints, stride: Any, padding: Padding, dilation: Any) -> Window:
    return window_of(spatial, size, stride=stride, padding=padding, dilation=dilation, names={"size": "kernel"})


def _transposed_window(spatial: Ints, size: Ints, stride: Any, padding: Padding, dilation: Any) -> Window:
    """The window over the spread-out input; `padding` is that of the convolution which is transposed."""
    if isinstance(padding, str) and padding.upper() not in ("VALID", "FULL"):
        raise ValueError(
            f"`padding` (={padding!r}) must be 'VALID', 'FULL', an int or pairs: the output has no input yet."
        )
    bare = window_of(spatial, size, dilation=dilation, input_dilation=stride, names={"input_dilation": "stride"})
    pairs = parse_padding(padding, bare.spatial, bare.extent, bare.stride)
    turned = [(e - 1 - low, e - 1 - high) for e, (low, high) in zip(bare.extent, pairs, strict=True)]
    return window_of(spatial, size, padding=turned, dilation=bare.dilation, input_dilation=bare.input_dilation)
