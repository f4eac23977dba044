"""Pools by chance, window by window in Python: what the samples lay or take, read off the definition."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnnbp.audit.oracle.axes import axes_of, rank_of, several, windows
from jaxcnnbp.audit.oracle.pooling import channels_first, channels_last, on_images, options_of
from jaxcnnbp.audit.oracle.rule import Arrays, apply, register, rule_of


def _drawn(inputs: Any, key: Any, shape: tuple[int, ...]) -> Any:
    dtype = jnp.result_type(inputs)
    return jax.random.uniform(key, shape, jnp.float64 if dtype == jnp.float64 else jnp.float32)


# --- fractional


@register
def fractional_max_pool(
    inputs: Any,
    window_shape: Any,
    output_shape: Any = None,
    *,
    output_ratio: Any = None,
    samples: Any = None,
    key: Any = None,
    return_argmax: bool = False,
) -> Any:
    """As `jaxcnnbp.fractional_max_pool`."""
    window = several(window_shape, rank_of(inputs, window_shape))
    rank, shape = len(window), np.shape(inputs)
    spatial = shape[-rank - 1 : -1]
    if output_ratio is not None:
        ratios = output_ratio if np.ndim(output_ratio) else (output_ratio,) * rank
        output_shape = [int(n * r) for n, r in zip(spatial, ratios, strict=True)]
    if samples is None:
        samples = _drawn(inputs, key, (*shape[: -rank - 1], shape[-1], rank))
    options = dict(window=window, outputs=several(output_shape, rank), kind=jnp.result_type(samples).name)
    values, argmax = apply(rule_of(_fractional, _fractional_gradient, exact=True, **options), inputs, samples)
    return (values, argmax) if return_argmax else values


def _begins(sample: Any, n: int, k: int, m: int, kind: str) -> list[int]:
    """PyTorch's sequence, in the type of the samples: what is rounded decides where a window begins."""
    number = np.dtype(kind).type if kind in ("float32", "float64") else np.float32
    alpha, r = number(n - k) / number(max(m - 1, 1)), number(sample)
    return [int((number(u) + r) * alpha) - int(r * alpha) for u in range(m - 1)] + [n - k] * min(m, 1)


def _fractional_winners(image: np.ndarray, samples: np.ndarray, window, outputs, kind) -> Iterator[tuple[Any, Any]]:
    """Every output, and the cell of the input that wins there."""
    rank = len(window)
    samples = samples.reshape(*image.shape[:2], rank)
    samples = samples[..., ::-1] if rank == 2 else samples
    for n, c in np.ndindex(*image.shape[:2]):
        rows = zip(samples[n, c], image.shape[2:], window, outputs, strict=True)
        begins = [_begins(*row, kind) for row in rows]
        for u in np.ndindex(*outputs):
            spans = [range(b[i], b[i] + k) for b, i, k in zip(begins, u, window, strict=True)]
            best = None
            for cell in itertools.product(*spans):
                value = image[(n, c, *cell)]
                if best is None or value > image[(n, c, *best)] or np.isnan(value):
                    best = cell
            yield (n, c, *u), (n, c, *(best or ()))


def _fractional(x, samples, *, window, outputs, kind) -> Arrays:
    image = channels_first(x, len(window))
    values = np.zeros((*image.shape[:2], *outputs))
    argmax = np.zeros(values.shape, np.int32)
    for u, cell in _fractional_winners(image, samples, window, outputs, kind):
        values[u], argmax[u] = image[cell], np.ravel_multi_index(cell[2:], image.shape[2:])
    leading = x.shape[: -len(window) - 1]
    return channels_last(values, leading), channels_last(argmax, leading)


def _fractional_gradient(x, samples, delta, *, window, outputs, kind) -> Arrays:
    image, sent = channels_first(x, len(window)), channels_first(delta, len(window))
    dx = np.zeros(image.shape)
    for u, cell in _fractional_winners(image, samples, window, outputs, kind):
        dx[cell] += sent[u]
    return channels_last(dx, x.shape[: -len(window) - 1]), np.zeros(samples.shape)


# --- stochastic


@register
def stochastic_pool(inputs: Any, *window: Any, key: Any = None, samples: Any = None, **geometry: Any) -> Any:
    """As `jaxcnnbp.stochastic_pool`."""
    options = options_of(inputs, *window, **geometry)
    if samples is None and key is None:
        return apply(rule_of(_expected, _expected_gradient, **options), inputs)
    if samples is None:
        rank, shape = options["rank"], np.shape(inputs)
        axes = axes_of(shape[-rank - 1 : -1], **{name: each for name, each in options.items() if name != "rank"})
        samples = _drawn(inputs, key, (*shape[: -rank - 1], *windows(axes), shape[-1]))
    return apply(rule_of(_taken, _taken_gradient, **options), inputs, samples)


def _cells_of_windows(image: np.ndarray, geometry: dict[str, Any]) -> Iterator[tuple[Any, list[Any]]]:
    """Every output, and the cells of the input that its window reads, in row-major order of the taps."""
    axes = axes_of(image.shape[2:], **geometry)
    for n, c in np.ndindex(*image.shape[:2]):
        for u in np.ndindex(*windows(axes)):
            read = [[a.position(i, t) for t in range(a.taps)] for a, i in zip(axes, u, strict=True)]
            kept = [[p for p in each if p in a.real] for each, a in zip(read, axes, strict=True)]
            yield (n, c, *u), [(n, c, *cell) for cell in itertools.product(*kept)]


def _taken_cells(image: np.ndarray, samples: np.ndarray, geometry: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Every output whose sample takes a cell, and the cell; none where no cell has a chance."""
    for u, cells in _cells_of_windows(image, geometry):
        if (cell := _taken_cell(image, cells, samples[u])) is not None:
            yield u, cell


def _taken_cell(image: np.ndarray, cells: list[Any], r: Any) -> Any:
    nans = [cell for cell in cells if np.isnan(image[cell])]
    if nans:
        return nans[-1]
    chances = [max(image[cell], 0.0) for cell in cells]
    if np.inf in chances:
        chances = [float(chance == np.inf) for chance in chances]
    left, total = r * math.fsum(chances), 0.0
    for cell, chance in zip(cells, chances, strict=True):
        total += chance
        if total > left:
            return cell
    return None


@on_images
def _taken(x, samples, **geometry) -> Arrays:
    y = np.zeros(samples.shape)
    for u, cell in _taken_cells(x, samples, geometry):
        y[u] = x[cell]
    return (y,)


@on_images
def _taken_gradient(x, samples, delta, **geometry) -> Arrays:
    dx = np.zeros(x.shape)
    for u, cell in _taken_cells(x, samples, geometry):
        dx[cell] += delta[u]
    return dx, np.zeros(samples.shape)


@on_images
def _expected(x, **geometry) -> Arrays:
    y = np.zeros((*x.shape[:2], *windows(axes_of(x.shape[2:], **geometry))))
    for u, cells in _cells_of_windows(x, geometry):
        chances = np.maximum([x[cell] for cell in cells], 0)
        y[u] = np.sum(chances**2) / np.sum(chances) if np.any(chances) else 0
    return (y,)


@on_images
def _expected_gradient(x, delta, **geometry) -> Arrays:
    """The quotient rule: the sum of w^2 over that of w, by each cell that is not negative."""
    dx = np.zeros(x.shape)
    for u, cells in _cells_of_windows(x, geometry):
        chances = np.maximum([x[cell] for cell in cells], 0)
        total, squares = np.sum(chances), np.sum(chances**2)
        for cell in cells if total else []:
            if x[cell] >= 0:
                dx[cell] += delta[u] * (2 * x[cell] * total - squares) / total**2
    return (dx,)
