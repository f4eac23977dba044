"""The maps of one array as a table of tiles."""

from __future__ import annotations

import math

import numpy as np

STRIP = 40  # cells in a row of a vector


def tiles_of(array: np.ndarray, is_kernel: bool = False) -> np.ndarray:
    """`array` as `(rows, columns, height, width)`: a tile a map, or a tile for each pair of maps of a kernel.

    Example:
      >>> tiles_of(np.zeros((28, 28, 6))).shape, tiles_of(np.zeros((5, 5, 6, 16)), is_kernel=True).shape
      ((2, 3, 28, 28), (6, 16, 5, 5))
      >>> tiles_of(np.zeros(84)).shape, tiles_of(np.zeros((84, 10)), is_kernel=True).shape
      ((1, 1, 3, 40), (1, 1, 84, 10))
    """
    if is_kernel and array.ndim == 4:
        tiles = np.moveaxis(array, (2, 3), (0, 1))
        return _in_rows(tiles[0]) if tiles.shape[0] == 1 else tiles
    if array.ndim == 3:
        return _in_rows(np.moveaxis(array, -1, 0))
    if array.ndim == 1 and len(array) > STRIP:
        rows = -(-len(array) // STRIP)
        return np.pad(array, (0, rows * STRIP - len(array))).reshape(1, 1, rows, STRIP)
    return np.reshape(array, (1, 1, *np.atleast_2d(array).shape))


def _in_rows(maps: np.ndarray) -> np.ndarray:
    """Maps in rows of at most eight, all of one length where that is possible."""
    count = len(maps)
    most = 3 if maps.shape[-1] > 16 else 8
    columns = next((c for c in range(min(most, count), 1, -1) if count % c == 0), min(most, count))
    rows = math.ceil(count / columns)
    blank = np.zeros((rows * columns - count, *maps.shape[1:]), maps.dtype)
    return np.concatenate([maps, blank]).reshape(rows, columns, *maps.shape[1:])
