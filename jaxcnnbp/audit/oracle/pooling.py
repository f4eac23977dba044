"""Pooling and its gradients, every window's cells laid side by side.

Inside this file arrays are `(batch, channels, *spatial)`; what the windows read is `(taps, batch, channels,
*windows)`.
"""

from __future__ import annotations

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


def reads(x: np.ndarray, axes: Sequence[Axis]) -> tuple[np.ndarray, np.ndarray]:
    """What every tap of every window reads, and whether it is a cell of the input."""
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


# --- maximum and minimum
# --------------------------------------------------------------------------------------------


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


def _extreme(x, *, label, sign, rank, ties, **geometry) -> Arrays:
    del ties
    best, winners = _winners(sign * channels_first(x, rank), _axes(x, rank, geometry))
    monitor.record(f"{label}: windows with a tie", np.sum(winners.sum(axis=0) > 1))
    return (sign * channels_last(best, x.shape[: -rank - 1]),)


def _extreme_gradient(x, delta, *, label, sign, rank, ties, **geometry) -> Arrays:
    del label
    axes, image = _axes(x, rank, geometry), channels_first(x, rank)
    best, winners = _winners(sign * image, axes)
    share = {
        "first": _recorded(winners, best).astype(float),
        "all": winners.astype(float),
        "split": winners / np.maximum(winners.sum(axis=0), 1),
    }[ties]
    dx = scatter(np.where(winners, share * channels_first(delta, rank), 0.0), image.shape, axes)
    return (channels_last(dx, x.shape[: -rank - 1]),)


def _extreme_with_argmax(x, *, label, sign, rank, ties, **geometry) -> Arrays:
    (values,) = _extreme(x, label=label, sign=sign, rank=rank, ties=ties, **geometry)
    axes = _axes(x, rank, geometry)
    best, winners = _winners(channels_first(x, rank), axes)
    flat = np.arange(math.prod(axis.size for axis in axes)).reshape(1, 1, *(axis.size for axis in axes))
    places, _ = reads(np.asarray(flat, float), axes)
    argmax = np.sum(np.where(_recorded(winners, best), places + 1, 0), axis=0).astype(np.int32) - 1
    return values, channels_last(argmax, x.shape[: -rank - 1])


def _axes(x: np.ndarray, rank: int, geometry: dict[str, Any]) -> tuple[Axis, ...]:
    return axes_of(x.shape[-rank - 1 : -1], **geometry)


def _options(
    inputs: Any,
    window_shape: Any,
    strides: Any = None,
    padding: Any = "VALID",
    *,
    window_dilation: Any = None,
    ceil_mode: bool = False,
) -> dict[str, Any]:
    window = several(window_shape, rank_of(inputs, window_shape))
    rank = len(window)
    steps, gaps = several(strides, rank), several(window_dilation, rank)
    return dict(rank=rank, window=window, stride=steps, padding=padding, dilation=gaps, ceil=ceil_mode)


def _registered(name: str, sign: int, forward: Callable[..., Arrays]) -> Callable[..., Any]:
    def pool(inputs: Any, *window: Any, ties: str = "first", **geometry: Any) -> Any:
        options = _options(inputs, *window, **geometry)
        rule = rule_of(name, forward, _extreme_gradient, exact=True, label=name, sign=sign, ties=ties, **options)
        return apply(rule, inputs)

    alternatives["oracle"][name] = pool
    return pool


max_pool = _registered("max_pool", 1, _extreme)
min_pool = _registered("min_pool", -1, _extreme)
max_pool_with_argmax = _registered("max_pool_with_argmax", 1, _extreme_with_argmax)


# --- mean
# -----------------------------------------------------------------------------------------------------------


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
    options = _options(inputs, window_shape, strides, padding, **geometry)
    inputs = jnp.asarray(inputs)
    inputs = inputs if jnp.issubdtype(inputs.dtype, jnp.inexact) else inputs.astype(float)
    rule = rule_of("avg_pool", _mean, _mean_gradient, count_include_pad=count_include_pad, **options)
    return apply(rule, inputs)


def _mean(x, *, rank, count_include_pad, **geometry) -> Arrays:
    axes = _axes(x, rank, geometry)
    values, real = reads(channels_first(x, rank), axes)
    mean = np.sum(np.where(real, values, 0.0), axis=0) / _counted(axes, count_include_pad)
    return (channels_last(mean, x.shape[: -rank - 1]),)


def _mean_gradient(x, delta, *, rank, count_include_pad, **geometry) -> Arrays:
    axes, image = _axes(x, rank, geometry), channels_first(x, rank)
    share = channels_first(delta, rank) / _counted(axes, count_include_pad)
    parts = np.broadcast_to(share, (math.prod(axis.taps for axis in axes), *share.shape))
    return (channels_last(scatter(parts, image.shape, axes), x.shape[: -rank - 1]),)


def _counted(axes: Sequence[Axis], with_padding: bool) -> np.ndarray:
    """How many cells the mean of each window is over; 1 where there is none, for the sum is 0 there."""
    counts = np.ones((1,) * len(axes))
    for place, axis in enumerate(axes):
        along = np.array(
            [sum(_counts(axis, u, t, with_padding) for t in range(axis.taps)) for u in range(axis.windows)]
        )
        counts = counts * along.reshape([-1 if a == place else 1 for a in range(len(axes))])
    return np.maximum(counts, 1)


def _counts(axis: Axis, window: int, tap: int, with_padding: bool) -> bool:
    inside = 0 <= axis.position(window, tap) < axis.size
    return axis.padded(window, tap) and (with_padding or inside)


# --- the ways back up
# -----------------------------------------------------------------------------------------------


@register
def max_unpool(values: Any, argmax: Any, spatial_shape: Any) -> Any:
    """As `jaxcnnbp.max_unpool`."""
    rule = rule_of("max_unpool", _unpool, _unpool_gradient, exact=True, spatial_shape=tuple(spatial_shape))
    return apply(rule, values, argmax)


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
    return apply(rule_of("upsample", _copies, _copies_gradient, window=window, stride=steps), delta)


def _copies(x, *, window, stride) -> Arrays:
    image = channels_first(x, len(window))
    axes = _copy_axes(image, window, stride)
    parts = np.broadcast_to(image, (math.prod(window), *image.shape))
    grown = scatter(parts, (*image.shape[:2], *(axis.size for axis in axes)), axes)
    return (channels_last(grown, x.shape[: -len(window) - 1]),)


def _copies_gradient(x, delta, *, window, stride) -> Arrays:
    axes = _copy_axes(channels_first(x, len(window)), window, stride)
    values, _ = reads(channels_first(delta, len(window)), axes)
    return (channels_last(values.sum(axis=0), x.shape[: -len(window) - 1]),)


def _copy_axes(image: np.ndarray, window: Sequence[int], stride: Sequence[int]) -> tuple[Axis, ...]:
    """The axes of the grown image, over which windows of `window` fall one for each cell of `image`."""
    rows = zip(image.shape[2:], window, stride, strict=True)
    return tuple(Axis((n - 1) * s + k if n else 0, k, s) for n, k, s in rows)
