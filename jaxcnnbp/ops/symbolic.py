"""Windows over extents that are symbols of `jax.export`: how many there are is known when the program is called.

The rules of this package count cells and outputs while they are traced. Here lax does it, and JAX's autodiff writes the
gradient. lax itself has none for a convolution whose padding it must work out from symbols, and none for a reducer that
is no pool's, which is folded tap by tap; over an input that the windows fit exactly there is nothing to work out, so it
is padded, or cut, to that first:

    extent'  =  (max(o, 1) - 1) * stride + (k - 1) * dilation + 1        o = number of windows

Only "at least one window" can be promised of symbols. Where a call has none, the one over padding alone is cut off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import max_dim
from jax.export import is_symbolic_dim

from jaxcnnbp.geometry import Window
from jaxcnnbp.geometry.parse import require_numbers, sized_by_ints
from jaxcnnbp.geometry.window import Ints
from jaxcnnbp.ops import lax_itself
from jaxcnnbp.ops._dtypes import cast, wide
from jaxcnnbp.ops.conv.geometry import ConvGeometry, as_correlation, dimension_numbers
from jaxcnnbp.ops.pool.cells import argmax
from jaxcnnbp.ops.pool.window_max import identity

Leaves = tuple[Array, ...]


def fitted(x: Array, window: Window, fill: Any = 0) -> Array:
    """`x` with its padding and gaps, ending where the last window ends."""
    rows = zip(window.padding, window.output, window.stride, window.extent, window.dilated, strict=True)
    pairs = [(low, (max_dim(o, 1) - 1) * s + e - n - low) for (low, _), o, s, e, n in rows]
    around = [(low, high, i - 1) for (low, high), i in zip(pairs, window.input_dilation, strict=True)]
    padded = lax.pad(x, jnp.asarray(fill, x.dtype), [(0, 0, 0), *around, (0, 0, 0)])
    crops = any(not is_symbolic_dim(low) and low < 0 for low, _ in pairs)
    # XLA would join it to a convolution, which on CPUs reads memory that is not its own where it is to crop.
    return lax.optimization_barrier(padded) if crops else padded


def _existing(y: Array, window: Window) -> Array:
    """`y` without the window that stands for none."""
    cut = [(0, o - max_dim(o, 1), 0) for o in window.output]
    return lax.pad(y, jnp.zeros((), y.dtype), [(0, 0, 0), *cut, (0, 0, 0)])


def conv(x: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """y[u] = sum_t p[u, t] k[t]."""
    window = geometry.window
    y = lax_itself.conv_general_dilated(
        fitted(x, window),
        as_correlation(kernel, geometry),
        window.stride,
        "VALID",
        rhs_dilation=window.dilation,
        dimension_numbers=dimension_numbers(window.rank),
        feature_group_count=geometry.groups,
        precision=geometry.precision,
        preferred_element_type=None if geometry.output_dtype is None else jnp.dtype(geometry.output_dtype),
    )
    return _existing(y, window)


def reduce(x: Array, window: Window, start: Any, combine: Callable[..., Any]) -> Array:
    """`combine` over every window, from its identity `start`."""
    size, stride, dilation = ((1, *each, 1) for each in (window.size, window.stride, window.dilation))
    start = np.asarray(start, x.dtype)
    whole = fitted(x, window, start)
    y = lax_itself.reduce_window(whole, start, combine, size, stride, "VALID", window_dilation=dilation)
    return _existing(y, window)


def extreme_pool(x: Array, window: Window, kind: str, ties: str) -> Array:
    """y[u] = max_t p[u, t]; delta goes to the first maximal cell."""
    if ties != "first":
        require_numbers(window, f"`ties` (={ties!r})", "use 'first'")
    start = identity(x.dtype, kind)
    if all(d == 1 for d in window.dilation):
        return reduce(x, window, start, lax.max if kind == "max" else lax.min)
    # lax has no gradient for windows with gaps.
    taps = jnp.stack(list(_taps(fitted(x, window, start), window)))
    where = (lax.argmax if kind == "max" else lax.argmin)(taps, 0, np.int32)
    return _existing(jnp.take_along_axis(taps, where[None], 0)[0], window)


def _taps(whole: Array, window: Window) -> Any:
    """What each tap reads of the fitted input."""
    for tap in window.tap_indices():
        starts = [t * d for t, d in zip(tap, window.dilation, strict=True)]
        rows = zip(starts, window.output, window.stride, strict=True)
        limits = [first + (max_dim(o, 1) - 1) * s + 1 for first, o, s in rows]
        ends = (whole.shape[0], *limits, whole.shape[-1])
        yield lax.slice(whole, (0, *starts, 0), ends, (1, *window.stride, 1))


def fold(xs: Leaves, inits: Leaves, combine: Callable[[Leaves, Leaves], Leaves], window: Window) -> Leaves:
    """a_{t+1} = a_t o p[u, t] from `inits` on, and a_t where tap t lies off the input."""
    cells, prefix = jnp.ones((1, *window.spatial, 1), bool), inits
    wholes = (fitted(x, window, fill) for x, fill in zip((cells, *xs), (False, *inits), strict=True))
    for is_cell, *right in zip(*(_taps(whole, window) for whole in wholes), strict=True):
        before = tuple(jnp.broadcast_to(a, p.shape) for a, p in zip(prefix, right, strict=True))
        after = combine(before, tuple(right))
        prefix = tuple(jnp.where(is_cell, a, b) for a, b in zip(after, before, strict=True))
    return tuple(_existing(y, window) for y in prefix)


def sum_pool(x: Array, window: Window) -> Array:
    """y[u] = sum_t p[u, t]."""
    return cast(reduce(cast(x, wide(x.dtype)), window, 0, lax.add), x.dtype)


def mean_pool(x: Array, window: Window, count_padding: bool) -> Array:
    """y[u] = sum_t p[u, t] / m[u]; a window without a cell is 0."""
    total = reduce(cast(x, wide(x.dtype)), window, 0, lax.add)
    if count_padding:
        return cast(total / jnp.asarray(window.taps, total.dtype), x.dtype)
    cells = reduce(jnp.ones((1, *window.spatial, 1), total.dtype), window, 0, lax.add)
    return cast(total / jnp.maximum(cells, 1), x.dtype)


def has_symbols(x: Array) -> bool:
    """Whether a spatial extent of `x` is a symbol."""
    return not sized_by_ints(x.shape[1:-1])


def require_whole(spatial: Ints, outputs: Ints, said: Any) -> None:
    """Refuses windows whose number or size would be a symbol; `said` is the user's `output_shape`."""
    for n, m in zip(spatial, outputs, strict=True):
        if m != n and (is_symbolic_dim(m) or (is_symbolic_dim(n) and m != 1)):
            raise ValueError(
                f"`output_shape` (={said!r}) must be 1 or None where the extent (={n}) is a symbol of `jax.export`."
            )


def require_no_argmax(return_argmax: bool) -> None:
    """Refuses positions, which are numbers of cells."""
    if return_argmax:
        raise ValueError(
            "`return_argmax` (=True) needs spatial extents that are numbers, not symbols of `jax.export`; leave it out."
        )


def adaptive_mean(x: Array, outputs: Ints) -> Array:
    """`(batch, *spatial, channels)` -> `(batch, *outputs, channels)`, axis after axis."""
    mean = _each_axis(cast(x, wide(x.dtype)), outputs, lambda part, axis: part.mean(axis, keepdims=True))
    return cast(mean, x.dtype)


def adaptive_max(x: Array, outputs: Ints) -> Array:
    """The same for the maximum; delta goes to the first."""
    return _each_axis(x, outputs, _first_max)


def _first_max(part: Array, axis: int) -> Array:
    return jnp.take_along_axis(part, argmax(part, axis), axis)


def _each_axis(x: Array, outputs: Ints, join: Callable[[Array, int], Array]) -> Array:
    for axis in reversed(range(1, x.ndim - 1)):
        n, m = x.shape[axis], outputs[axis - 1]
        if is_symbolic_dim(n):  # all of it, or each position alone
            x = join(x, axis) if not is_symbolic_dim(m) else x
            continue
        spans = [(u * n // m, -((u + 1) * n // -m)) for u in range(m)]
        x = jnp.concatenate([join(lax.slice_in_dim(x, *span, axis=axis), axis) for span in spans], axis)
    return x
