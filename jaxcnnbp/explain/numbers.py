"""The numbers of an explanation: the reader's own, or small whole ones drawn by a seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcnnbp.audit.measure import distance
from jaxcnnbp.geometry.window import Ints

# Small enough to add up in the head.
RANGES = {"x": (0, 9), "kernel": (-2, 2), "delta": (-3, 3)}
LARGEST_EXTENT = 32
LARGEST_CONTACTS = 40_000


def numbers_of(name: str, given: Any, seed: int) -> np.ndarray:
    """`given` as an array of floats; a tuple of ints is the shape of an array to draw.

    Example:
      >>> numbers_of("kernel", (2, 2), seed=0)
      array([[0., 2.],
             [2., 0.]], dtype=float32)
      >>> numbers_of("kernel", [[1, 2]], seed=0)
      array([[1., 2.]], dtype=float32)
    """
    if isinstance(given, tuple) and all(isinstance(n, int) and not isinstance(n, bool) for n in given):
        return draw(name, given, seed)
    try:
        array = np.asarray(given)
        kind = array.dtype if array.dtype in (np.float32, np.float64, np.float16) else np.dtype(np.float32)
        return array.astype(kind)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`{name}` must be an array of real numbers, or a tuple of ints, its shape ({error})."
        ) from error


def draw(name: str, shape: Sequence[int], seed: int) -> np.ndarray:
    """Small whole numbers, the same for the same seed; float32."""
    if any(n < 1 for n in shape):
        raise ValueError(f"`{name}` (={tuple(shape)}) must have at least one cell along every axis.")
    low, high = RANGES[name]
    generator = np.random.default_rng([seed, list(RANGES).index(name)])
    return generator.integers(low, high, tuple(shape), endpoint=True).astype(np.float32)


def with_channels(name: str, array: np.ndarray, rank: int, extra: int) -> np.ndarray:
    """`array` with the channel axes that it may leave out."""
    if array.ndim == rank:
        return array.reshape(*array.shape, *(1,) * extra)
    if array.ndim == rank + extra:
        return array
    axes = "(*window, in, out)" if extra == 2 else "(*spatial, channels)"
    raise ValueError(
        f"`{name}` (shape={array.shape}) must have {rank} axes, or {rank + extra}, {axes}: one image, without a batch."
    )


def gap(a: Any, b: Any) -> float:
    """The largest distance of two arrays, element by element."""
    return float(distance(np.asarray(a, np.float64), np.asarray(b, np.float64)).max(initial=0.0))


def require_drawable(spatial: Ints, contacts: int) -> None:
    """Refuses what would be no picture any more."""
    if max(spatial) > LARGEST_EXTENT or contacts > LARGEST_CONTACTS:
        raise ValueError(
            f"`x` (spatial extents {spatial}, {contacts} meetings of taps and outputs) is too large to be looked at"
            f" cell by cell; cut out at most {LARGEST_EXTENT} cells an axis, {LARGEST_CONTACTS} meetings."
        )
