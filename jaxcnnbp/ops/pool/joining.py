"""Long windows joined out of shorter ones, in a loop whose steps grow with the logarithm of the taps.

Along one axis, with `o` any associative operation and W(k)[n] what joins the k positions `n, n + d, ..., n + (k-1) d`:

    W(a + b)[n] = W(a)[n] o W(b)[n + a d]        W(1) = x

so that the powers of two come from doubling, and k from those in its binary digits. Where windows move by a stride,
whole strides are joined first, and then only as many of these as a window spans.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnnbp.geometry import Window
from jaxcnnbp.hand_written import unify_varying_axes

# Taps along one axis beyond which they are not written out one by one: compiling them would take too long.
LONG = 64


class Operation(NamedTuple):
    """An associative operation on arrays, or on a tree of them."""

    two: Callable[[Any, Any], Any]
    whole_axis: Callable[[Any, int], Any]  # all along an axis, which is gone then


def join_windows(parts: Any, window: Window, operation: Operation) -> Any:
    """What `operation` makes of all taps of every window over `parts`, which are padded to its reach."""
    for axis in reversed(range(window.rank)):
        row = window.size[axis], window.stride[axis], window.dilation[axis], window.output[axis]
        parts = _along(parts, axis + 1, *row, operation)
    return parts


def _along(parts: Any, axis: int, size: int, stride: int, dilation: int, count: int, operation: Operation) -> Any:
    stride = size if count == 1 else stride
    if dilation > 1 or stride == 1:
        return _each(_doubled(parts, axis, size, dilation, operation), axis, 0, count, stride)
    whole, rest = divmod(size, stride)
    pieces = []
    if whole:
        blocks = operation.whole_axis(_blocks(parts, axis, stride, stride, whole + count - 1), axis + 1)
        pieces.append(_each(_doubled(blocks, axis, whole, 1, operation), axis, 0, count, 1))
    if rest:
        after = _each(parts, axis, whole * stride, None, 1)
        pieces.append(operation.whole_axis(_blocks(after, axis, stride, rest, count), axis + 1))
    return pieces[0] if len(pieces) == 1 else operation.two(*pieces)


def _doubled(parts: Any, axis: int, size: int, dilation: int, operation: Operation) -> Any:
    """W(size) at every position that has one, anything at the others.

    A loop, because XLA would fuse the steps and compute each again in every step that reads it.
    """
    steps = _steps(size)
    if not steps:
        return parts
    lengths, doubles = (np.array(column) for column in zip(*steps, strict=True))
    parts = _as_joined(parts, operation)

    def step(joined: Any, row: tuple[Array, Array]) -> tuple[Any, None]:
        offset, is_double = row
        after = jax.tree.map(lambda a, b: _later(jnp.where(is_double, a, b), offset, reach, axis), joined, parts)
        return operation.two(joined, after), None

    reach = dilation * max(lengths)
    return lax.scan(step, parts, (jnp.asarray(lengths * dilation, jnp.int32), jnp.asarray(doubles)))[0]


def _steps(size: int) -> list[tuple[int, bool]]:
    """`(length so far, whether it is doubled or grows by one)`, from 1 to `size`."""
    steps, length = [], 1
    for digit in bin(size)[3:]:  # the first digit is W(1)
        steps += [(length, True), (2 * length, False)][: 1 + int(digit)]
        length = 2 * length + int(digit)
    return steps


def _as_joined(parts: Any, operation: Operation) -> Any:
    """`parts` in the shapes that joined ones have, different on the same devices."""
    leaves, tree = jax.tree.flatten(parts)
    shapes = jax.tree.leaves(jax.eval_shape(operation.two, parts, parts))
    return tree.unflatten(
        unify_varying_axes(*(jnp.broadcast_to(a, s.shape) for a, s in zip(leaves, shapes, strict=True)))
    )


def _later(x: Array, offset: Array, reach: int, axis: int) -> Array:
    """`x[n + offset]` at n; `reach` is the largest offset."""
    beyond = [(0, reach if a == axis else 0, 0) for a in range(x.ndim)]
    return lax.dynamic_slice_in_dim(lax.pad(x, jnp.zeros((), x.dtype), beyond), offset, x.shape[axis], axis)


def _each(parts: Any, axis: int, start: int, count: int | None, stride: int) -> Any:
    """`count` positions from `start` on."""

    def cut(x: Array) -> Array:
        stop = None if count is None else start + (count - 1) * stride + 1
        return lax.slice_in_dim(x, start, stop, stride, axis)

    return jax.tree.map(cut, parts)


def _blocks(parts: Any, axis: int, stride: int, size: int, count: int) -> Any:
    """The first `size` positions of `count` strides, `(..., count, size, ...)`."""

    def split(x: Array) -> Array:
        have = x.shape[axis]
        fill = [(0, count * stride - have if a == axis else 0, 0) for a in range(x.ndim)]
        filled = lax.pad(x, jnp.zeros((), x.dtype), fill)  # beyond the last position no block of a window reaches
        rows = filled.reshape(*x.shape[:axis], count, stride, *x.shape[axis + 1 :])
        return lax.slice_in_dim(rows, 0, size, axis=axis + 1)

    return jax.tree.map(split, parts)
