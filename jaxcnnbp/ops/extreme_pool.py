"""Max and min pooling by the recorded winner.

    forward      y[u] = max_t p[u, t]          and the winner t*[u], the first tap that reaches it
    input grad   dx   = scatter(delta[u] where t == t*[u])

Positions outside the input never win, a NaN always does (of several the last, PyTorch's rule). The document's formula
gives delta to *every* maximal cell, its algorithm to the recorded one: `ties` is "first" for the algorithm, "all" for
the formula, "split" to share delta among the maximal cells, as `jnp.max` does.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial, reduce
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike

from jaxcnnbp.custom_vjp import axis_in_front, custom_vjp
from jaxcnnbp.geometry import Window
from jaxcnnbp.geometry.window import Ints, keep_axes, unpadded
from jaxcnnbp.ops import lax_itself
from jaxcnnbp.ops.apart import computed_apart
from jaxcnnbp.ops.devices import may_be_partitioned
from jaxcnnbp.ops.numerics import cast, wide
from jaxcnnbp.taps import Reader, crop_to_input, gather, pad_to_reach, phase_counts, scatter, take_tap

BITS = 32
# With more taps than this, each axis is folded for itself and the compiler may not fuse them again: it would
# compute the inner fold once for every tap of the outer.
FEW_TAPS = 16
# With more phases of the stride, or more taps, XLA takes minutes to compile the plain form.
FEW_PHASES, MANY_TAPS = 9, 256


class Recorded(NamedTuple):
    """What a pool keeps of its input."""

    winners: Array | None  # "first": index of the winning tap, in the narrowest unsigned integer
    ties: tuple[Array, ...] | None  # else: one bit a tap, set where the tap holds the extreme value


@partial(custom_vjp, nondiff_argnums=(1, 2, 3))
def extreme_pool(x: Array, window: Window, kind: str, ties: str) -> tuple[Array, Array]:
    """`(batch, *spatial, channels)` -> the extreme values and their taps, `(batch, *output, channels)`.

    Where there is padding the values are lax's, which needs no padded copy of `x`; without a gradient nobody asks for
    the taps, and they are dead code.
    """
    best, taps = folded_winners(x, window, kind)
    y = extreme_by_lax(x, window, kind) if any(map(any, window.reach)) else best
    return axis_in_front(y, taps)


def extreme_by_lax(x: Array, window: Window, kind: str) -> Array:
    """The extreme values alone."""
    size, stride, dilation, gaps = (
        (1, *v, 1) for v in (window.size, window.stride, window.dilation, window.input_dilation)
    )
    start = np.asarray(identity(x.dtype, kind), x.dtype)
    reducer = lax.max if kind == "max" else lax.min
    return lax_itself.reduce_window(x, start, reducer, size, stride, ((0, 0), *window.reach, (0, 0)), gaps, dilation)


@jax.named_scope("extreme_pool.winners")
def winners(x: Array, window: Window, kind: str) -> tuple[Array, Array]:
    """`folded_winners`, which the many readers of a backward pass do not compute again."""
    if x.size == 0 or may_be_partitioned(x):
        return folded_winners(x, window, kind)
    return computed_apart(lambda x: folded_winners(x, window, kind), x, guard=x)


def folded_winners(x: Array, window: Window, kind: str) -> tuple[Array, Array]:
    """The extreme value of each window and the tap that holds it, axis after axis, the last first.

    Folding row-major order axis by axis keeps it: the first (for NaN the last) extreme of the first (last) extreme
    row is the first (last) extreme of the window.
    """
    if window.taps > MANY_TAPS:
        return _winners_by_reduction(x, window, kind)
    best = pad_to_reach(x, window, identity(x.dtype, kind))
    taps = jnp.zeros(best.shape, tap_dtype(window.taps))
    for axis in reversed(range(window.rank)):
        best, taps = _fold_axis(best, taps, window, axis, kind)
        if window.taps > FEW_TAPS:
            best, taps = lax.optimization_barrier((best, taps))
    return best, taps


def _winners_by_reduction(x: Array, window: Window, kind: str) -> tuple[Array, Array]:
    """The same for windows whose taps are too many to write out: one reduction over pairs of a value and its place.

    Of equal values the first place wins, of NaNs the last; a place on the padding comes after all others.
    """
    beats = lax.gt if kind == "max" else lax.lt
    padded, local = pad_to_reach(x, window, identity(x.dtype, kind)), unpadded(window)
    nowhere = np.int32(np.iinfo(np.int32).max)
    places = np.where(_on_input(window), np.arange(prod(local.spatial), dtype=np.int32).reshape(local.spatial), nowhere)

    def later(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
        (p, i), (q, j) = a, b
        p_nan, q_nan = p != p, q != q
        wins = beats(q, p) | (q_nan & (~p_nan | (j > i))) | ((p == q) & (j < i))
        return jnp.where(wins, q, p), jnp.where(wins, j, i)

    size, stride, dilation = ((1, *v, 1) for v in (local.size, local.stride, local.dilation))
    operands = lax.stop_gradient(padded), jnp.broadcast_to(jnp.asarray(places)[None, ..., None], padded.shape)
    starts = np.asarray(identity(x.dtype, kind), x.dtype), nowhere
    _, place = lax_itself.reduce_window(operands, starts, later, size, stride, "VALID", None, dilation)
    taps = _taps_of_places(place, local)
    cell = flat_argmax(taps, local)
    columns = padded.reshape(padded.shape[0], -1, padded.shape[-1])
    best = jnp.take_along_axis(columns, cell.reshape(cell.shape[0], -1, cell.shape[-1]), 1).reshape(cell.shape)
    return best, taps.astype(tap_dtype(window.taps))


def _taps_of_places(place: Array, window: Window) -> Array:
    """Flat positions on an unpadded input as the taps that fall there; beyond it as tap 0."""
    index, weight = jnp.zeros((), jnp.int32), 1
    rest = jnp.where(place < prod(window.spatial), place, 0)
    found = place < prod(window.spatial)
    for axis in reversed(range(window.rank)):
        position, rest = rest % window.spatial[axis], rest // window.spatial[axis]
        start = np.arange(window.output[axis], dtype=np.int32) * window.stride[axis]
        tap = (position - _along(start, axis, window.rank)) // window.dilation[axis]
        index, weight = index + tap * weight, weight * window.size[axis]
    return jnp.where(found, index, 0)


def _on_input(window: Window) -> np.ndarray:
    """`(*padded,)` of bool: which positions of the padded input hold an input cell."""
    masks = []
    for (low, high), n, step in zip(window.reach, window.dilated, window.input_dilation, strict=True):
        position = np.arange(low + n + high) - low
        masks.append((position >= 0) & (position < n) & (position % step == 0))
    return reduce(np.logical_and.outer, masks)


def extreme_pool_fwd(x: Array, window: Window, kind: str, ties: str) -> tuple[tuple[Array, Array], Recorded]:
    """:: x -> ((y, t*), recorded)."""
    best, taps = winners(x, window, kind)
    recorded = Recorded(taps, None) if ties == "first" else Recorded(None, tied_taps(x, best, window, kind))
    return axis_in_front(best, taps), recorded


def extreme_pool_bwd(window: Window, kind: str, ties: str, kept: Recorded, delta: tuple[Array, Array]) -> tuple[Array]:
    """:: (recorded, CT y) -> CT x; the taps are integers and carry no delta."""
    if kept.winners is not None:
        return (send_to_winners(delta[0], kept.winners, window),)
    return (send_to_ties(delta[0], kept.ties or (), window, ties == "split"),)


@jax.named_scope("extreme_pool.send_to_winners")
def send_to_winners(delta: Array, taps: Array, window: Window) -> Array:
    """dx = scatter(delta[u] where t == t*[u]), in the form that stays quick to compile for this window."""
    if prod(window.stride) <= FEW_PHASES and window.taps <= MANY_TAPS:
        return _send_by_phases(delta, taps, window)
    return (_send_to_blocks if window.tiles else _send_by_index)(delta, taps, window)


def _send_by_phases(delta: Array, taps: Array, window: Window) -> Array:
    """The rule as it reads."""
    sum_type = wide(delta.dtype)

    def to_winner(tap: Ints, read: Reader) -> Array:
        won = read(taps) == jnp.asarray(np.ravel_multi_index(tap, window.size), taps.dtype)
        return jnp.where(won, cast(read(delta), sum_type), jnp.zeros((), sum_type))

    return cast(scatter(to_winner, window), delta.dtype)


def _send_to_blocks(delta: Array, taps: Array, window: Window) -> Array:
    """Windows that do not overlap: each is a block of positions, and the winner's is picked by its number.

    With `n + low = s u + r` and r < k the tap, block u is compared with the numbers of the taps; positions r >= k lie
    between windows and have none.
    """
    rank, counts = window.rank, phase_counts(window)
    rest = [(0, m - o, 0) for m, o in zip(counts, window.output, strict=True)]
    fill = [(0, 0, 0), *rest, (0, 0, 0)]
    delta, taps = (lax.pad(a, jnp.zeros((), a.dtype), fill) for a in (delta, taps.astype(jnp.int32)))
    offsets = np.indices(window.stride)
    inside = (offsets < np.reshape(window.size, (-1, *(1,) * rank))).all(0)
    numbers = np.where(inside, np.ravel_multi_index(tuple(offsets), window.size, mode="clip"), -1)
    batch, channels = delta.shape[0], delta.shape[-1]
    pairs = [n for m, s in zip(counts, window.stride, strict=True) for n in (m, s)]
    laid = (batch, *(n if a % 2 == 0 else 1 for a, n in enumerate(pairs)), channels)
    numbers = numbers.reshape([1, *(1 if a % 2 == 0 else n for a, n in enumerate(pairs)), 1])
    won = taps.reshape(laid) == jnp.asarray(numbers, taps.dtype)
    positions = [m * s for m, s in zip(counts, window.stride, strict=True)]
    sent = jnp.where(won, delta.reshape(laid), jnp.zeros((), delta.dtype)).reshape(batch, *positions, channels)
    return crop_to_input(sent, window)


def _send_by_index(delta: Array, taps: Array, window: Window) -> Array:
    """One addition an output, to the cell that it recorded."""
    batch, channels, count = delta.shape[0], delta.shape[-1], prod(window.spatial)
    cell = flat_argmax(taps, window).reshape(batch, prod(window.output), channels)
    target = jnp.where(cell < 0, count, cell)
    start = jnp.zeros((batch, count, channels), wide(delta.dtype))
    columns = jnp.arange(channels)[None, :]

    def of_image(start: Array, target: Array, delta: Array) -> Array:
        return start.at[target, columns].add(delta, mode="drop")

    # Image by image in the eyes of the compiler, which else gathers images that are spread over devices.
    sent = jax.vmap(of_image)(start, target, cast(delta.reshape(cell.shape), start.dtype))
    return cast(sent.reshape(batch, *window.spatial, channels), delta.dtype)


@jax.named_scope("extreme_pool.send_to_ties")
def send_to_ties(delta: Array, words: tuple[Array, ...], window: Window, split: bool) -> Array:
    """dx = scatter(delta[u] wherever tap t holds the extreme), each its share if `split`."""
    dtype, sum_type = delta.dtype, wide(delta.dtype)
    if split:
        holders = sum((cast(lax.population_count(w), sum_type) for w in words), start=jnp.zeros((), sum_type))
        # A window that lies wholly on padding has no holder, and its delta goes nowhere.
        delta = cast(delta, sum_type) / jnp.maximum(holders, jnp.ones((), sum_type))

    def to_holders(tap: Ints, read: Reader) -> Array:
        word, bit = divmod(int(np.ravel_multi_index(tap, window.size)), BITS)
        holds = (read(words[word]) >> np.uint32(bit)) & np.uint32(1)
        return jnp.where(holds == 1, cast(read(delta), sum_type), jnp.zeros((), sum_type))

    return cast(scatter(to_holders, window), dtype)


def tied_taps(x: Array, best: Array, window: Window, kind: str) -> tuple[Array, ...]:
    """One bit a tap, set where the tap lies on the input and holds the extreme of its window."""
    words = [jnp.zeros(best.shape, jnp.uint32) for _ in range(-(-window.taps // BITS))]
    for index, (tap, p) in enumerate(gather(x, window, identity(x.dtype, kind))):
        holds = (p == best) | ((p != p) & (best != best))
        inside = _inside(window, tap)
        holds = holds if inside is None else holds & inside
        word, bit = divmod(index, BITS)
        words[word] = words[word] | (holds.astype(jnp.uint32) << np.uint32(bit))
    return tuple(words)


def flat_argmax(taps: Array, window: Window) -> Array:
    """Winning taps as flat indices into the spatial axes of one image and channel, int32, row-major."""
    index, weight = jnp.zeros((), jnp.int32), 1
    remaining = taps.astype(jnp.int32)
    for axis in reversed(range(window.rank)):
        tap, remaining = remaining % window.size[axis], remaining // window.size[axis]
        start = np.arange(window.output[axis], dtype=np.int32) * window.stride[axis] - window.padding[axis][0]
        position = tap * window.dilation[axis] + _along(start, axis, window.rank)
        index, weight = index + position * weight, weight * window.spatial[axis]
        on_input = np.asarray(window.inside(axis).any(1))
        if not on_input.all():
            index = jnp.where(_along(on_input, axis, window.rank), index, np.int32(-(2**30)))
    return jnp.maximum(index, -1)


def tap_dtype(taps: int) -> DTypeLike:
    """The narrowest unsigned integer that counts `taps`."""
    return jnp.uint8 if taps <= 2**8 else jnp.uint16 if taps <= 2**16 else jnp.uint32


def identity(dtype: DTypeLike, kind: str) -> float | int:
    """What padding holds: the value that any other beats or equals."""
    if jnp.issubdtype(dtype, jnp.inexact):
        return -np.inf if kind == "max" else np.inf
    return int(jnp.iinfo(dtype).min if kind == "max" else jnp.iinfo(dtype).max)


def _fold_axis(x: Array, taps: Array, window: Window, axis: int, kind: str) -> tuple[Array, Array]:
    """Extreme value and winner along one axis of the padded input."""
    beats = lax.gt if kind == "max" else lax.lt
    weight = prod(window.size[axis + 1 :])
    first_inside = window.inside(axis).argmax(1)
    local = replace(keep_axes(unpadded(window), (axis,)), spatial=tuple(x.shape[1:-1]))
    best = who = None
    for tap in local.tap_indices():
        p = take_tap(x, local, tap)
        here = take_tap(taps, local, tap) + jnp.asarray(tap[axis] * weight, taps.dtype)
        if best is None or who is None:
            best, who = p, here
            continue
        wins = beats(p, best) | (p != p)
        # Until a window has met the input it holds padding, which an equal value (an infinity) must replace.
        if (first_inside == tap[axis]).any():
            wins = wins | _along(np.asarray(first_inside == tap[axis]), axis, window.rank)
        best, who = jnp.where(wins, p, best), jnp.where(wins, here, who)
    if best is None or who is None:
        raise ValueError(f"`window_shape` (={window.size}) has no tap; give every axis at least one.")
    return best, who


def _inside(window: Window, tap: Ints) -> Array | None:
    """Whether `tap` of each window lies on the input, None if it always does."""
    masks = [window.inside(axis)[:, t] for axis, t in enumerate(tap)]
    if all(mask.all() for mask in masks):
        return None
    return reduce(jnp.logical_and, (_along(mask, axis, window.rank) for axis, mask in enumerate(masks)))


def _along(values: np.ndarray, axis: int, rank: int) -> Array:
    """`values` laid along spatial `axis` of `(batch, *spatial, channels)`."""
    return jnp.asarray(values.reshape([-1 if a == axis + 1 else 1 for a in range(rank + 2)]))


extreme_pool.defvjp(extreme_pool_fwd, extreme_pool_bwd)


@partial(jax.jit, static_argnums=(1, 2, 3), inline=True)
def extreme_pool_op(x: Array, window: Window, kind: str, ties: str) -> Array:
    """The values alone; the winners are not computed unless a gradient asks for them."""
    pooled: Any = extreme_pool(x, window, kind, ties)
    return pooled[0]


@partial(jax.jit, static_argnums=(1, 2), inline=True)
def argmax_pool_op(x: Array, window: Window, kind: str) -> tuple[Array, Array]:
    """The values and their flat indices."""
    pooled: Any = extreme_pool(x, window, kind, "first")
    return pooled[0], flat_argmax(lax.stop_gradient(pooled[1]), window)
