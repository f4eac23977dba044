"""Mean pooling and the block copy that carries its delta back.

    forward      y[u] = sum_t p[u, t] / m[u]            m[u] = number of cells that window u counts
    input grad   dx   = scatter(delta[u] / m[u])

The document's prose copies delta into the block, its derivative says 1/m: right is delta / m. Sums are separable, so
both directions go axis by axis: kh + kw additions an element rather than kh * kw.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnnbp.geometry import Window
from jaxcnnbp.geometry.window import dual
from jaxcnnbp.hand_written import hand_written
from jaxcnnbp.ops._dtypes import cast, wide
from jaxcnnbp.ops._xla_cpu import compute_once
from jaxcnnbp.ops.pool.joining import LONG, Operation, join_windows
from jaxcnnbp.taps import cells, gather, lay_blocks, pad_to_reach, scatter


@hand_written
@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def mean_pool(x: Array, window: Window, count_padding: bool) -> Array:
    """`(batch, *spatial, channels)` -> `(batch, *output, channels)`."""
    return mean_forward(x, window, count_padding)


@jax.named_scope("mean_pool.mean_forward")
def mean_forward(x: Array, window: Window, count_padding: bool) -> Array:
    """y[u] = sum_t p[u, t] / m[u]; a window without a cell is 0."""
    total = sum_windows(cast(x, wide(x.dtype)), window)
    return cast(_divide_by_cells(total, window, count_padding), x.dtype)


@jax.named_scope("mean_pool.mean_input_grad")
def mean_input_grad(delta: Array, window: Window, count_padding: bool) -> Array:
    """dx = scatter(delta[u] / m[u])."""
    shared = cast(delta, wide(delta.dtype))
    return cast(spread_windows(_divide_by_cells(shared, window, count_padding), window), delta.dtype)


def mean_pool_fwd(x: Array, window: Window, count_padding: bool) -> tuple[Array, None]:
    """:: x -> (y, nothing to keep)."""
    return mean_forward(x, window, count_padding), None


def mean_pool_bwd(window: Window, count_padding: bool, _: None, delta: Array) -> tuple[Array]:
    """:: CT y -> CT x."""
    return (mean_input_grad(delta, window, count_padding),)


mean_pool.defvjp(mean_pool_fwd, mean_pool_bwd)


@hand_written
@partial(jax.custom_vjp, nondiff_argnums=(1,))
def sum_pool(x: Array, window: Window) -> Array:
    """y[u] = sum_t p[u, t]."""
    return sum_forward(x, window)


@hand_written
@partial(jax.custom_vjp, nondiff_argnums=(1,))
def copy_to_windows(y: Array, window: Window) -> Array:
    """The transpose of `sum_pool`: every cell of window u gets y[u], and overlapping windows add up."""
    return copy_forward(y, window)


def sum_forward(x: Array, window: Window) -> Array:
    """`sum_windows`, held wide and cast once."""
    return cast(sum_windows(cast(x, wide(x.dtype)), window), x.dtype)


def copy_forward(y: Array, window: Window) -> Array:
    """`spread_windows`, likewise."""
    return cast(spread_windows(cast(y, wide(y.dtype)), window), y.dtype)


# Each is the other's transpose, and neither keeps anything.
sum_pool.defvjp(
    lambda x, window: (sum_forward(x, window), None),
    lambda window, _, delta: (copy_forward(delta, window),),
)
copy_to_windows.defvjp(
    lambda y, window: (copy_forward(y, window), None),
    lambda window, _, delta: (sum_forward(delta, window),),
)


def sum_windows(x: Array, window: Window) -> Array:
    """sum_t p[u, t], axis after axis."""
    if 0 in window.output:  # no window, and maybe no input that one would fit in
        return jnp.zeros((x.shape[0], *window.output, x.shape[-1]), x.dtype)
    if window.size == window.spatial and window.output == (1,) * window.rank and _one_window_a_cell(window):
        return x.sum(tuple(range(1, x.ndim - 1)), keepdims=True)
    by_axis = partial(_sum_by_axis, window=window)
    return by_axis(x) if window.tiles else compute_once(by_axis, x)


def _sum_by_axis(x: Array, window: Window) -> Array:
    for axis in range(window.rank):
        local = window.along(axis, x.shape[1:-1])
        long = window.size[axis] > LONG
        x = _sum_by_joining(x, local) if long else sum((p for _, p in gather(x, local)), start=jnp.zeros((), x.dtype))
    return x


def _sum_by_joining(x: Array, window: Window) -> Array:
    """The same for windows whose taps are too many to write out."""
    return join_windows(pad_to_reach(x, window), window, Operation(lax.add, lambda x, axis: x.sum(axis)))


def spread_windows(y: Array, window: Window) -> Array:
    """scatter(y[u]) to every tap, axis after axis."""
    if _one_window_a_cell(window):
        return _copy_blocks(y, window)
    by_axis = partial(_spread_by_axis, window=window)
    return by_axis(y) if window.tiles else compute_once(by_axis, y)


def _spread_by_axis(y: Array, window: Window) -> Array:
    for axis in reversed(range(window.rank)):
        spatial = tuple(window.spatial[a] if a == axis else n for a, n in enumerate(y.shape[1:-1]))
        local = window.along(axis, spatial)
        long = window.size[axis] > LONG
        y = _sum_by_joining(y, dual(local)) if long else scatter(lambda _, read, y=y: read(y), local)
    return y


def _one_window_a_cell(window: Window) -> bool:
    """Whether windows lie side by side from the first cell on."""
    gapless = all(step == 1 for step in window.input_dilation)
    return window.tiles and gapless and not any(map(any, window.padding))


def _copy_blocks(y: Array, window: Window) -> Array:
    """The Kronecker product with a block of ones, cut to the input or filled up with zeros."""
    spread = lax.expand_dims(y, range(window.rank + 1, 2 * window.rank + 1))
    return lay_blocks(jnp.broadcast_to(spread, (*y.shape[:-1], *window.size, y.shape[-1])), window)


def _divide_by_cells(y: Array, window: Window, count_padding: bool) -> Array:
    """y[u] / m[u], and 0 where m[u] is 0."""
    counted = cells(window, count_padding)
    if (counted == counted.flat[0]).all() and counted.flat[0] > 0:
        return y / jnp.asarray(counted.flat[0], y.dtype)
    m = jnp.asarray(np.maximum(counted, 1), y.dtype)[None, ..., None]
    return jnp.where(jnp.asarray(counted > 0)[None, ..., None], y / m, jnp.zeros((), y.dtype))
