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
from jax import Array, lax
from jax.core import eval_jaxpr
from jax.extend.core import ClosedJaxpr, Jaxpr

from jaxcnnbp.geometry import Window
from jaxcnnbp.hand_written import hand_written, unify_varying_axes
from jaxcnnbp.ops._dtypes import cast, wide
from jaxcnnbp.ops.pool import tap_loop

Leaves = tuple[Array, ...]
Carry = tuple[Leaves, Leaves, Leaves]  # what goes back from tap to tap: d a_t, d consts, d p


class Folded(NamedTuple):
    """What the backward pass needs."""

    prefixes: Leaves  # a_0 .. a_{T-1} stacked, a leaf each; 0 before the first cell, where they are `inits`
    begun: Array  # whether a cell came before tap t
    operands: Leaves
    inits: Leaves
    consts: Leaves  # what the reducer closes over


def fold_windows(operands: Leaves, inits: Leaves, reducer: ClosedJaxpr, window: Window) -> Leaves:
    """`(batch, *spatial, channels)` each -> `(batch, *output, channels)` each."""
    parts = (operands, inits, tuple(map(jnp.asarray, reducer.consts)))
    return _fold(*parts, reducer.jaxpr, window)


@hand_written
@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _fold(operands: Leaves, inits: Leaves, consts: Leaves, reducer: Jaxpr, window: Window) -> Leaves:
    return fold_fwd(operands, inits, consts, reducer, window)[0]


def fold_fwd(operands: Leaves, inits: Leaves, consts: Leaves, reducer: Jaxpr, window: Window) -> tuple[Leaves, Folded]:
    """:: (x, init, consts) -> (y, folded)."""
    combine, on_input = elementwise(reducer), tap_loop.cells_in_rows(window)
    rows = _in_rows(operands, inits, window)
    shapes = ((x.shape[0], *window.output, x.shape[-1]) for x in operands)
    start = tuple(map(jnp.broadcast_to, inits, shapes))

    def step(carry: tuple[Leaves, Array], tap: Array) -> tuple[tuple[Leaves, Array], tuple[Leaves, Array]]:
        prefix, begun = carry
        is_cell = tap_loop.read(on_input, tap, window)
        after = _where(is_cell, combine(consts, prefix, _read(rows, tap, window)), prefix)
        # An initial value may be infinite, which `debug_infs` takes for a fault in whatever is kept.
        kept = _where(begun, prefix, tuple(map(jnp.zeros_like, prefix)))
        return (after, begun | is_cell), (kept, begun)

    first = unify_varying_axes(*start, *operands)[: len(start)], jnp.zeros((1, *window.output, 1), bool)
    (y, _), (prefixes, begun) = lax.scan(step, first, tap_loop.tap_numbers(window))
    return y, Folded(prefixes, begun, operands, inits, consts)


def fold_bwd(reducer: Jaxpr, window: Window, kept: Folded, delta: Leaves) -> tuple[Any, Any, Any]:
    """:: (folded, CT y) -> (CT x, CT init, CT consts)."""
    combine, is_cell = elementwise(reducer), tap_loop.cells_in_rows(window)
    rows = _in_rows(kept.operands, kept.inits, window)

    def step(carry: Carry, row: tuple[Array, Leaves, Array]) -> tuple[Carry, None]:
        (d_next, d_consts, d_rows), (tap, after_first, begun) = carry, row
        prefix = _where(begun, after_first, kept.inits)
        on_input = tap_loop.read(is_cell, tap, window)
        d_out = _where(on_input, d_next, tuple(map(jnp.zeros_like, d_next)))
        more, d_left, d_right = _pull_back(combine, (kept.consts, prefix, _read(rows, tap, window)), d_out)
        d_consts = tuple(a + b for a, b in zip(d_consts, more, strict=True))
        d_rows = tuple(tap_loop.add(to, cast(d, to.dtype), tap, window) for to, d in zip(d_rows, d_right, strict=True))
        return (_where(on_input, d_left, d_next), d_consts, d_rows), None

    start = tuple(map(_as_number, delta, (prefix[0] for prefix in kept.prefixes)))
    nothing = start, tuple(map(jnp.zeros_like, kept.consts)), tuple(jnp.zeros_like(x, wide(x.dtype)) for x in rows)
    taps = tap_loop.tap_numbers(window)
    (d_first, d_consts, d_rows), _ = lax.scan(step, nothing, (taps, kept.prefixes, kept.begun), reverse=True)
    dx = (cast(tap_loop.out_of_rows(d, window), x.dtype) for d, x in zip(d_rows, kept.operands, strict=True))
    return _gradients(dx), _gradients(cast(d.sum(), d.dtype) for d in d_first), _gradients(d_consts)


def _in_rows(operands: Leaves, inits: Leaves, window: Window) -> Leaves:
    """The operands as the loop reads them; off the input they hold the initial value."""
    return tuple(tap_loop.in_rows(x, window, init) for x, init in zip(operands, inits, strict=True))


def _read(rows: Leaves, tap: Array, window: Window) -> Leaves:
    return tuple(tap_loop.read(x, tap, window) for x in rows)


def elementwise(reducer: Jaxpr) -> Callable[[Leaves, Leaves, Leaves], Leaves]:
    """The reducer of scalars, on arrays."""

    def combine(consts: Leaves, left: Leaves, right: Leaves) -> Leaves:
        def scalars(*each: Array) -> Leaves:
            return tuple(eval_jaxpr(reducer, consts, *each))

        flat = [x.reshape(-1) for x in (*left, *right)]
        return tuple(y.reshape(left[0].shape) for y in jax.vmap(scalars)(*flat))

    return combine


def _pull_back(combine: Callable[..., Leaves], primals: tuple[Leaves, ...], d_out: Leaves) -> tuple[Leaves, ...]:
    """Both partial derivatives of the reducer, applied to `d_out`; integers have none and carry zeros."""

    def floats(*primals: Leaves) -> list[Array]:
        return list(filter(_is_float, combine(*primals)))

    _, pull = jax.vjp(floats, *primals)
    return jax.tree.map(_as_number, pull(list(filter(_is_float, d_out))), primals)


def _where(on_input: Array, a: Sequence[Array], b: Sequence[Array]) -> Leaves:
    return tuple(jnp.where(on_input, x, y) for x, y in zip(a, b, strict=True))


def _as_number(d: Any, like: Array) -> Array:
    return jnp.zeros_like(like) if d.dtype == jax.dtypes.float0 else d


def _gradients(deltas: Iterable[Array]) -> tuple[Array | None, ...]:
    return tuple(d if _is_float(d) else None for d in deltas)


def _is_float(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


_fold.defvjp(fold_fwd, fold_bwd)
