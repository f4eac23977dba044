"""The windows of any reducer, folded tap by tap.

    forward      a_0 = init,  a_{t+1} = a_t o p[u, t]  (a_t where tap t lies off the input),  y[u] = a_T
    backward     from d a_T = delta[u], for t = T-1 .. 0:
                     d p[u, t] = (d o / d right)(a_t, p[u, t]) d a_{t+1}
                     d a_t     = (d o / d left) (a_t, p[u, t]) d a_{t+1}
    input grad   dx = scatter(d p),   d init = sum_u d a_0

Every prefix `a_t` is kept, and nothing is divided by: a product with a zero in it has the right gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import eval_jaxpr
from jax.extend.core import ClosedJaxpr, Jaxpr

from jaxcnnbp.geometry import Window
from jaxcnnbp.hand_written import hand_written
from jaxcnnbp.ops.numerics import cast
from jaxcnnbp.taps import gather, scatter

Leaves = tuple[Array, ...]


class Folded(NamedTuple):
    """What the backward pass needs."""

    prefixes: Leaves  # a_0 .. a_{T-1} stacked, a leaf each
    taps: Leaves  # p[., 0] .. p[., T-1] stacked
    consts: Leaves  # what the reducer closes over


def fold_windows(operands: Leaves, inits: Leaves, reducer: ClosedJaxpr, window: Window) -> Leaves:
    """`(batch, *spatial, channels)` each -> `(batch, *output, channels)` each."""
    return _fold_op(operands, inits, tuple(map(jnp.asarray, reducer.consts)), reducer.jaxpr, window)


@hand_written
@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _fold(operands: Leaves, inits: Leaves, consts: Leaves, reducer: Jaxpr, window: Window) -> Leaves:
    return fold_fwd(operands, inits, consts, reducer, window)[0]


def fold_fwd(operands: Leaves, inits: Leaves, consts: Leaves, reducer: Jaxpr, window: Window) -> tuple[Leaves, Folded]:
    """:: (x, init, consts) -> (y, folded)."""
    combine = elementwise(reducer)
    taps = tuple(_stacked(x, init, window) for x, init in zip(operands, inits, strict=True))
    start = tuple(jnp.broadcast_to(init, p.shape[1:]) for init, p in zip(inits, taps, strict=True))

    def step(prefix: Leaves, tap: tuple[Leaves, Array]) -> tuple[Leaves, Leaves]:
        p, on_input = tap
        return _where(on_input, combine(consts, prefix, p), prefix), prefix

    y, prefixes = lax.scan(step, start, (taps, on_input_by_tap(window)))
    return y, Folded(prefixes, taps, consts)


def fold_bwd(reducer: Jaxpr, window: Window, kept: Folded, delta: Leaves) -> tuple[Any, Any, Any]:
    """:: (folded, CT y) -> (CT x, CT init, CT consts)."""
    combine = elementwise(reducer)

    def step(carry: tuple[Leaves, Leaves], tap: tuple[Leaves, Leaves, Array]) -> tuple[tuple[Leaves, Leaves], Leaves]:
        (d_next, d_consts), (prefix, p, on_input) = carry, tap
        d_out = _where(on_input, d_next, tuple(map(jnp.zeros_like, d_next)))
        more, d_left, d_right = _pull_back(combine, (kept.consts, prefix, p), d_out)
        d_consts = tuple(a + b for a, b in zip(d_consts, more, strict=True))
        return (_where(on_input, d_left, d_next), d_consts), d_right

    start = tuple(map(_as_number, delta, (prefix[0] for prefix in kept.prefixes)))
    rows = kept.prefixes, kept.taps, on_input_by_tap(window)
    (d_first, d_consts), d_taps = lax.scan(step, (start, tuple(map(jnp.zeros_like, kept.consts))), rows, reverse=True)
    dx = (_scattered(d, window) for d in d_taps)
    return _gradients(dx), _gradients(cast(d.sum(), d.dtype) for d in d_first), _gradients(d_consts)


def elementwise(reducer: Jaxpr) -> Callable[[Leaves, Leaves, Leaves], Leaves]:
    """The reducer of scalars, on arrays."""

    def combine(consts: Leaves, left: Leaves, right: Leaves) -> Leaves:
        def scalars(*each: Array) -> Leaves:
            return tuple(eval_jaxpr(reducer, consts, *each))

        flat = [x.reshape(-1) for x in (*left, *right)]
        return tuple(y.reshape(left[0].shape) for y in jax.vmap(scalars)(*flat))

    return combine


def on_input_by_tap(window: Window) -> Array:
    """`(taps, 1, *output, 1)` of bool: whether a tap of a window falls on an input cell."""
    masks = np.ones((1,) * (2 * window.rank), bool)
    for axis in range(window.rank):
        inside = window.inside(axis).T
        shape = [1] * (2 * window.rank)
        shape[axis], shape[window.rank + axis] = inside.shape
        masks = masks & inside.reshape(shape)
    return jnp.asarray(masks.reshape(window.taps, 1, *window.output, 1))


def _pull_back(combine: Callable[..., Leaves], primals: tuple[Leaves, ...], d_out: Leaves) -> tuple[Leaves, ...]:
    """Both partial derivatives of the reducer, applied to `d_out`; integers have none and carry zeros."""
    _, pull = jax.vjp(combine, *primals)
    wanted = tuple(d if _is_float(d) else np.zeros(d.shape, jax.dtypes.float0) for d in d_out)
    return jax.tree.map(_as_number, pull(wanted), primals)


def _stacked(x: Array, fill: Any, window: Window) -> Array:
    return jnp.stack([p for _, p in gather(x, window, fill)])


def _scattered(d_taps: Array, window: Window) -> Array:
    index = {tap: i for i, tap in enumerate(window.tap_indices())}
    return cast(scatter(lambda tap, read: read(d_taps[index[tap]]), window), d_taps.dtype)


def _where(on_input: Array, a: Sequence[Array], b: Sequence[Array]) -> Leaves:
    return tuple(jnp.where(on_input, x, y) for x, y in zip(a, b, strict=True))


def _as_number(d: Any, like: Array) -> Array:
    return jnp.zeros_like(like) if d.dtype == jax.dtypes.float0 else d


def _gradients(deltas: Iterable[Array]) -> tuple[Array | None, ...]:
    return tuple(d if _is_float(d) else None for d in deltas)


def _is_float(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


_fold.defvjp(fold_fwd, fold_bwd)
_fold_op = jax.jit(_fold, static_argnums=(3, 4), inline=True)
