"""Pooling and its gradients, every window's cells laid side by side.

Inside this file arrays are `(batch, channels, *spatial)`; what the windows read is `(taps, batch, channels,
*windows)`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcnnbp.audit import monitor
from jaxcnnbp.audit.oracle.axes import Axis, axes_of, rank_of, several, taps, windows
from jaxcnnbp.audit.oracle.rule import Arrays, apply, register, rule_of
from jaxcnnbp.modes import alternatives


def channels_first(x: np.ndarray, rank: int) -> np.ndarray:
    """`(..., *spatial, channels)` as `(batch, channels, *spatial)`."""
    leading = math.prod(x.shape[: -rank - 1])
    return np.moveaxis(x.reshape(leading, *x.shape[-rank - 1 :]), -1, 1)


def channels_last(y: np.ndarray, leading: Sequence[int]) -> np.ndarray:
    """The way back from `channels_first`."""
    moved = np.moveaxis(y, 1, -1)
    return moved.reshape(*leading, *moved.shape[1:])


def on_images(function: Callable[..., Arrays]) -> Callable[..., Arrays]:
    """`function` of arrays with channels first as one of arrays with channels last, of `rank` spatial axes."""

    @functools.wraps(function)
    def run(*arrays: np.ndarray, rank: int, **options: Any) -> Arrays:
        found = function(*(channels_first(a, rank) for a in arrays), **options)
        return tuple(channels_last(a, arrays[0].shape[: -rank - 1]) for a in found)

    return run


def reads(x: np.ndarray, axes: Sequence[Axis]) -> tuple[np.ndarray, np.ndarray]:
    """What every tap of every window reads, 0 where it reads padding, and whether it is a cell of the input."""
    places = list(taps(axes))
    values = np.zeros((len(places), *x.shape[:2], *windows(axes)))
    real = np.zeros((len(places), 1, 1, *windows(axes)), bool)
    for row, tap in enumerate(places):
        values[row][tap.windows] = x[tap.cells]
        real[row][tap.windows] = True
    return values, np.broadcast_to(real, values.shape)


def scatter(parts: np.ndarray, shape: Sequence[int], axes: Sequence[Axis]) -> np.ndarray:
    """Adds what each tap of each window holds to the cell that it reads."""
    dx = np.zeros(shape)
    for part, tap in zip(parts, taps(axes), strict=True):
        dx[tap.cells] += part[tap.windows]
    return dx


def sums(x: np.ndarray, axes: Sequence[Axis]) -> np.ndarray:
    """The sum of every window."""
    return reads(x, axes)[0].sum(axis=0)


def copies(delta: np.ndarray, shape: Sequence[int], axes: Sequence[Axis]) -> np.ndarray:
    """The gradient of `sums`: adds what each window has to every cell that it reads."""
    parts = np.broadcast_to(delta, (math.prod(axis.taps for axis in axes), *delta.shape))
    return scatter(parts, shape, axes)


def options_of(
    inputs: Any,
    window_shape: Any,
    strides: Any = None,
    padding: Any = "VALID",
    *,
    window_dilation: Any = None,
    ceil_mode: bool = False,
) -> dict[str, Any]:
    """The rank of a pool, and its geometry as `axes_of` takes it."""
    window = several(window_shape, rank_of(inputs, window_shape))
    rank = len(window)
    steps, gaps = several(strides, rank), several(window_dilation, rank)
    return dict(rank=rank, window=window, stride=steps, padding=padding, dilation=gaps, ceil=ceil_mode)


# --- maximum and minimum


def _winners(x: np.ndarray, axes: Sequence[Axis]) -> tuple[np.ndarray, np.ndarray]:
    """The largest value of every window (NaN beats all, padding never wins), and which taps hold it."""
    values, real = reads(x, axes)
    best = np.max(values, axis=0, where=real, initial=-np.inf)
    return best, real & ((values == best) | (np.isnan(values) & np.isnan(best)))


def _recorded(winners: np.ndarray, best: np.ndarray) -> np.ndarray:
    """The one winner that PyTorch records: the first of equal values, but the last of several NaN."""
    first = winners & (np.cumsum(winners, axis=0) == 1)
    last = winners & (np.cumsum(winners[::-1], axis=0)[::-1] == 1)
    return np.where(np.isnan(best), last, first)


@on_images
def _extreme(x, *, label, sign, ties, **geometry) -> Arrays:
    """The values, and where in the image they lie."""
    del ties
    axes = axes_of(x.shape[2:], **geometry)
    best, winners = _winners(sign * x, axes)
    monitor.record(f"{label}: windows with a tie", np.sum(winners.sum(axis=0) > 1))
    places, _ = reads(np.arange(math.prod(x.shape[2:])).reshape(1, 1, *x.shape[2:]), axes)
    argmax = np.where(_recorded(winners, best), places + 1, 0).sum(axis=0) - 1
    return sign * best, argmax.astype(np.int32)


@on_images
def _extreme_gradient(x, delta, *, label, sign, ties, **geometry) -> Arrays:
    del label
    axes = axes_of(x.shape[2:], **geometry)
    best, winners = _winners(sign * x, axes)
    share = {
        "first": _recorded(winners, best).astype(float),
        "all": winners.astype(float),
        "split": winners / np.maximum(winners.sum(axis=0), 1),
    }[ties]
    return (scatter(np.where(winners, share * delta, 0.0), x.shape, axes),)


def _registered(name: str, sign: int, with_argmax: bool = False) -> Callable[..., Any]:
    def pool(inputs: Any, *window: Any, ties: str = "first", **geometry: Any) -> Any:
        options = options_of(inputs, *window, **geometry)
        rule = rule_of(_extreme, _extreme_gradient, exact=True, label=name, sign=sign, ties=ties, **options)
        found = apply(rule, inputs)
        return found if with_argmax else found[0]

    alternatives["oracle"][name] = pool
    return pool


max_pool = _registered("max_pool", 1)
min_pool = _registered("min_pool", -1)
max_pool_with_argmax = _registered("max_pool_with_argmax", 1, with_argmax=True)


# --- mean


@register
def avg_pool(
    inputs: Any,
    window_shape: Any,
    strides: Any = None,
    padding: Any = "VALID",
    count_include_pad: bool = True,
    **geometry: Any,
) -> Any:
    """As `jaxcnnbp.avg_pool`."""
    options = options_of(inputs, window_shape, strides, padding, **geometry)
    inputs = jnp.asarray(inputs)
    inputs = inputs if jnp.issubdtype(inputs.dtype, jnp.inexact) else inputs.astype(float)
    return apply(rule_of(_mean, _mean_gradient, count_include_pad=count_include_pad, **options), inputs)


@on_images
def _mean(x, *, count_include_pad, **geometry) -> Arrays:
    axes = axes_of(x.shape[2:], **geometry)
    return (sums(x, axes) / _counted(axes, count_include_pad),)


@on_images
def _mean_gradient(x, delta, *, count_include_pad, **geometry) -> Arrays:
    axes = axes_of(x.shape[2:], **geometry)
    return (copies(delta / _counted(axes, count_include_pad), x.shape, axes),)


def _counted(axes: Sequence[Axis], with_padding: bool) -> np.ndarray:
    """How many cells the mean of each window is over; 1 where there is none, for the sum is 0 there."""
    along = [[sum(_counts(a, u, t, with_padding) for t in range(a.taps)) for u in range(a.windows)] for a in axes]
    return np.maximum(functools.reduce(np.multiply.outer, along), 1)


def _counts(axis: Axis, window: int, tap: int, with_padding: bool) -> bool:
    inside = 0 <= axis.position(window, tap) < axis.size
    return axis.padded(window, tap) and (with_padding or inside)


# --- the ways back up


@register
def max_unpool(values: Any, argmax: Any, spatial_shape: Any) -> Any:
    """As `jaxcnnbp.max_unpool`."""
    return apply(rule_of(_unpool, _unpool_gradient, exact=True, spatial_shape=tuple(spatial_shape)), values, argmax)


def _unpool(values, argmax, *, spatial_shape) -> Arrays:
    image = np.zeros((*values.shape[: values.ndim - len(spatial_shape) - 1], *spatial_shape, values.shape[-1]))
    for source, target in _moves(argmax, spatial_shape):
        image[target] = values[source]
    return (image,)


def _unpool_gradient(values, argmax, delta, *, spatial_shape) -> Arrays:
    # What was written over has no part in the image, and so no gradient.
    written = {target: source for source, target in _moves(argmax, spatial_shape)}
    dvalues = np.zeros(values.shape)
    for target, source in written.items():
        dvalues[source] = delta[target]
    return (dvalues,)


def _moves(argmax: np.ndarray, spatial_shape: Sequence[int]) -> Iterator[tuple[Any, Any]]:
    """From where in the pooled array to where in the image every value goes, in row-major order.

    Index -1 is nowhere, and so is one beyond the image; of two values for one cell the later is written over the other.
    """
    leading = argmax.ndim - len(spatial_shape) - 1
    for source in np.ndindex(argmax.shape):
        if 0 <= argmax[source] < math.prod(spatial_shape):
            cell = np.unravel_index(argmax[source], tuple(spatial_shape))
            yield source, (*source[:leading], *map(int, cell), source[-1])


@register
def upsample(delta: Any, window_shape: Any, strides: Any = None) -> Any:
    """As `jaxcnnbp.upsample`."""
    window = several(window_shape, rank_of(delta, window_shape))
    steps = window if strides is None else several(strides, len(window))
    return apply(rule_of(_copies, _copies_gradient, rank=len(window), window=window, stride=steps), delta)


@on_images
def _copies(x, *, window, stride) -> Arrays:
    axes = _copy_axes(x, window, stride)
    return (copies(x, (*x.shape[:2], *(axis.size for axis in axes)), axes),)


@on_images
def _copies_gradient(x, delta, *, window, stride) -> Arrays:
    return (sums(delta, _copy_axes(x, window, stride)),)


def _copy_axes(image: np.ndarray, window: Sequence[int], stride: Sequence[int]) -> tuple[Axis, ...]:
    """The axes of the grown image, over which windows of `window` fall one for each cell of `image`."""
    rows = zip(image.shape[2:], window, stride, strict=True)
    return tuple(Axis((n - 1) * s + k if n else 0, k, s) for n, k, s in rows)
