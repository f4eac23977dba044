"""Max and min pooling by the recorded winner.

    forward      y[u] = max_t p[u, t]          and the winner t*[u], the first tap that reaches it
    input grad   dx   = scatter(delta[u] where t == t*[u])

Positions outside the input never win, a NaN always does (of several the last, PyTorch's rule). The document's formula
gives delta to *every* maximal cell, its algorithm to the recorded one: `ties` is "first" for the algorithm, "all" for
the formula, "split" to share delta among the maximal cells, as `jnp.max` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnnbp.geometry import Window
from jaxcnnbp.geometry.window import Ints
from jaxcnnbp.hand_written import axis_in_front, hand_written, one_dispatch
from jaxcnnbp.ops._dtypes import cast, wide
from jaxcnnbp.ops._sharding import zeros_varying_like
from jaxcnnbp.ops._xla_cpu import compute_once, in_memory
from jaxcnnbp.ops.pool import tap_loop
from jaxcnnbp.ops.pool.cells import add_to_cells, read_cells
from jaxcnnbp.ops.pool.max_blocks import blocks_reached, send_to_blocks
from jaxcnnbp.ops.pool.window_max import along, extremes, extremes_and_taps, identity, is_short, steps
from jaxcnnbp.taps import MANY_TAPS, Reader, cells, gather, scatter

BITS = 32
# Where windows reach into no more blocks of a stride each than this, every tap is written out in one loop. With more, a
# CPU has sooner added by index; elsewhere that has no order, and waits its turn.
FEW_BLOCKS = 9
# With more phases of the stride than this, interleaving them takes longer than the blocks: 3x3x3/2, twice as long.
FEW_PHASES = 4
# With more than this, XLA takes minutes to compile phases axis after axis.
MOST_PHASES = 9


class Recorded(NamedTuple):
    """What a pool keeps of its input."""

    winners: Array | None  # "first": index of the winning tap, in the narrowest unsigned integer
    ties: tuple[Array, ...] | None  # else: one bit a tap, set where the tap holds the extreme value
    compared: tuple[Array, Array] | None = None  # else, of very many taps: the input and the extremes


@hand_written
@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def extreme_pool(x: Array, window: Window, kind: str, ties: str) -> tuple[Array, Array]:
    """`(batch, *spatial, channels)` -> the extreme values and their taps, `(batch, *output, channels)`.

    Without a gradient nobody asks for the taps, and they are dead code.
    """
    return axis_in_front(extremes(x, window, kind), extremes_and_taps(x, window, kind)[1])


@jax.named_scope("extreme_pool.winners")
def winners(x: Array, window: Window, kind: str) -> tuple[Array, Array]:
    """The same, from one fold; its derivative, which second order asks for, is read at the winners.

    The fold itself is differentiable as well: inside loops JAX forgets a `custom_jvp` in second order.
    """
    best, taps = extremes_and_taps(x, window, kind)
    return _read_from(x, best, taps, window), taps


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def _read_from(x: Array, best: Array, taps: Array, window: Window) -> Array:
    """`best`, which is `read_winners(x, taps)`."""
    return best


@_read_from.defjvp
def _read_from_jvp(window: Window, primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    x, best, taps = primals  # the output is a function of `x` in the next derivative too
    return _read_from(x, best, taps, window), read_winners(tangents[0], taps, window)


def extreme_pool_fwd(x: Array, window: Window, kind: str, ties: str) -> tuple[tuple[Array, Array], Recorded]:
    """:: x -> ((y, t*), recorded)."""
    x = x if ties == "first" else in_memory(x)  # compared with the extremes once more
    best, taps = winners(x, window, kind)
    return axis_in_front(best, taps), _recorded(x, best, taps, window, kind, ties)


def _recorded(x: Array, best: Array, taps: Array, window: Window, kind: str, ties: str) -> Recorded:
    if ties == "first":
        return Recorded(taps, None)
    if window.taps > MANY_TAPS:
        return Recorded(None, None, (x, best))
    return Recorded(None, tied_taps(x, best, window, kind))


def extreme_pool_bwd(window: Window, kind: str, ties: str, kept: Recorded, delta: tuple[Array, Array]) -> tuple[Array]:
    """:: (recorded, CT y) -> CT x; the taps are integers and carry no delta."""
    if kept.winners is not None:
        return (send_to_winners(delta[0], kept.winners, window),)
    if kept.compared is not None:
        return (send_to_equals(delta[0], *kept.compared, window, ties == "split"),)
    return (send_to_ties(delta[0], kept.ties or (), window, ties == "split"),)


@jax.named_scope("extreme_pool.send_to_winners")
def send_to_winners(delta: Array, taps: Array, window: Window) -> Array:
    """dx = scatter(delta[u] where t == t*[u]), in the form that stays quick to compile for this window."""
    reached, phases = prod(blocks_reached(window)), prod(window.stride)
    if reached <= FEW_BLOCKS:
        return _send_by_phases(delta, taps, [window]) if phases <= FEW_PHASES else send_to_blocks(delta, taps, window)
    if phases <= MOST_PHASES and is_short(window):
        return _send_by_phases(delta, taps, steps(window))
    by_index, by_blocks = (partial(form, window=window) for form in (_send_by_index, send_to_blocks))
    if reached > MANY_TAPS:
        return by_index(delta, taps)
    return lax.platform_dependent(delta, taps, cpu=by_index, default=by_blocks)


def _send_by_phases(delta: Array, taps: Array, parts: Sequence[Window]) -> Array:
    """The rule as it reads, for the whole window or the parts that `steps` takes it into, the last one first."""
    dtype, weight = delta.dtype, prod(part.taps for part in parts)
    *outer, last = reversed(parts)
    delta = cast(delta, wide(dtype))
    for step in outer:
        weight //= step.taps
        sent = compute_once(partial(_send_one_step, window=step, weight=weight), delta, taps)
        delta, taps = sent, compute_once(partial(_left_over, window=step, weight=weight), taps)
    return cast(_send_one_step(delta, taps, last, 1), dtype)


def _send_one_step(delta: Array, taps: Array, window: Window, weight: int) -> Array:
    def to_winner(tap: Ints, read: Reader) -> Array:
        return _where_won(_won_by(tap, read(taps), window, weight), read(delta))

    return scatter(to_winner, window)


def _left_over(taps: Array, window: Window, weight: int) -> Array:
    """Winner index within the remaining axes; outputs meeting in one cell agree on it, so `max` merges them."""

    def to_winner(tap: Ints, read: Reader) -> Array:
        number = read(taps)
        below = lax.sub(number, lax.full_like(number, window.tap_number(tap) * weight))
        return _where_won(_won_by(tap, number, window, weight), below)

    return scatter(to_winner, window, lax.max)


def _won_by(tap: Ints, taps: Array, window: Window, weight: int) -> Array:
    """Whether `taps` are those of `tap`, which counts in units of `weight`."""
    first = window.tap_number(tap) * weight
    if weight == 1:
        return lax.eq(taps, lax.full_like(taps, first))
    last = lax.full_like(taps, first + weight - 1)
    return lax.bitwise_and(lax.ge(taps, lax.full_like(taps, first)), lax.le(taps, last))


def _where_won(won: Array, value: Array) -> Array:
    return lax.select(won, value, lax.full_like(value, 0))


def _send_by_index(delta: Array, taps: Array, window: Window) -> Array:
    """One addition an output, to the cell that it recorded."""
    return add_to_cells(delta, flat_argmax(taps, window), window.spatial)


@jax.named_scope("extreme_pool.send_to_ties")
def send_to_ties(delta: Array, words: tuple[Array, ...], window: Window, split: bool) -> Array:
    """dx = scatter(delta[u] wherever tap t holds the extreme), each its share if `split`."""
    dtype, sum_type = delta.dtype, wide(delta.dtype)
    if split:
        holders = sum((cast(lax.population_count(w), sum_type) for w in words), start=jnp.zeros((), sum_type))
        delta = _shared(delta, holders)

    def to_holders(tap: Ints, read: Reader) -> Array:
        word, bit = divmod(window.tap_number(tap), BITS)
        holds = (read(words[word]) >> np.uint32(bit)) & np.uint32(1)
        return jnp.where(holds == 1, cast(read(delta), sum_type), jnp.zeros((), sum_type))

    return cast(scatter(to_holders, window), dtype)


@jax.named_scope("extreme_pool.send_to_equals")
def send_to_equals(delta: Array, x: Array, best: Array, window: Window, split: bool) -> Array:
    """The same in a loop over the taps, where a bit for each of them would be too many."""
    dtype, sum_type, taps = delta.dtype, wide(delta.dtype), tap_loop.tap_numbers(window)
    cells_there, inside = tap_loop.in_rows(x, window), tap_loop.cells_in_rows(window)

    def holds(tap: Array) -> Array:
        p = tap_loop.read(cells_there, tap, window)
        return _are_equal(p, best) & tap_loop.read(inside, tap, window)

    def send(sent: Array, tap: Array) -> tuple[Array, None]:
        return tap_loop.add(sent, jnp.where(holds(tap), delta, jnp.zeros((), sum_type)), tap, window), None

    if split:
        none = zeros_varying_like(jax.ShapeDtypeStruct(best.shape, sum_type), x, best)
        holders = lax.scan(lambda count, tap: (count + cast(holds(tap), sum_type), None), none, taps)[0]
        delta = _shared(delta, holders)
    delta = cast(delta, sum_type)
    nowhere = tap_loop.no_rows(x.shape[0], x.shape[-1], sum_type, window, x, delta)
    return cast(tap_loop.out_of_rows(lax.scan(send, nowhere, taps)[0], window), dtype)


def _shared(delta: Array, holders: Array) -> Array:
    """The share of each holder; a window that lies wholly on padding has none, and its delta goes nowhere."""
    return cast(delta, holders.dtype) / jnp.maximum(holders, jnp.ones((), holders.dtype))


def tied_taps(x: Array, best: Array, window: Window, kind: str) -> tuple[Array, ...]:
    """One bit a tap, set where the tap lies on the input and holds the extreme of its window."""
    words = [jnp.zeros(best.shape, jnp.uint32) for _ in range(-(-window.taps // BITS))]
    for index, (tap, p) in enumerate(gather(x, window, identity(x.dtype, kind))):
        holds = _are_equal(p, best)
        inside = _inside(window, tap)
        holds = holds if inside is None else holds & inside
        word, bit = divmod(index, BITS)
        words[word] = words[word] | (holds.astype(jnp.uint32) << np.uint32(bit))
    return tuple(words)


def _are_equal(p: Array, best: Array) -> Array:
    """Where a cell is the extreme; a NaN is any other."""
    return (p == best) | ((p != p) & (best != best))


def read_winners(x: Array, taps: Array, window: Window) -> Array:
    """x[t*[u]], the transpose of `send_to_winners`; 0 where a window lies wholly on padding."""
    return read_cells(x, flat_argmax(taps, window))


def where_cells(window: Window, y: Array, otherwise: float) -> Array:
    """`y`, but `otherwise` at windows that lie wholly on padding."""
    has_cells = cells(window, count_padding=False) > 0
    if has_cells.all():
        return y
    return jnp.where(jnp.asarray(has_cells)[None, ..., None], y, jnp.asarray(otherwise, y.dtype))


def flat_argmax(taps: Array, window: Window) -> Array:
    """Winning taps as flat indices into the spatial axes of one image and channel, int32, row-major."""
    remaining = taps.astype(jnp.int32)
    index, weight = jnp.zeros_like(remaining), 1
    for axis in reversed(range(window.rank)):
        tap, remaining = remaining % window.size[axis], remaining // window.size[axis]
        start = np.arange(window.output[axis], dtype=np.int32) * window.stride[axis] - window.padding[axis][0]
        position = (tap * window.dilation[axis] + along(start, axis, window.rank)) // window.input_dilation[axis]
        index, weight = index + position * weight, weight * window.spatial[axis]
        on_input = window.cells(axis) > 0
        if not on_input.all():
            index = jnp.where(along(on_input, axis, window.rank), index, np.int32(-(2**30)))
    return jnp.maximum(index, -1)


def _inside(window: Window, tap: Ints) -> Array | None:
    """Whether `tap` of each window lies on the input, None if it always does."""
    masks = [window.inside(axis)[:, t] for axis, t in enumerate(tap)]
    if all(mask.all() for mask in masks):
        return None
    return reduce(jnp.logical_and, (along(mask, axis, window.rank) for axis, mask in enumerate(masks)))


extreme_pool.defvjp(extreme_pool_fwd, extreme_pool_bwd)


@one_dispatch(1, 2, 3)
def extreme_pool_op(x: Array, window: Window, kind: str, ties: str) -> Array:
    """The values alone; the winners are not computed unless a gradient asks for them."""
    pooled: Any = extreme_pool(x, window, kind, ties)
    return pooled[0]


@one_dispatch(1, 2)
def argmax_pool_op(x: Array, window: Window, kind: str) -> tuple[Array, Array]:
    """The values and their flat indices."""
    pooled: Any = extreme_pool(x, window, kind, "first")
    return pooled[0], flat_argmax(lax.stop_gradient(pooled[1]), window)
