"""A walk through a network on one sheet."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcnnbp.errors import require
from jaxcnnbp.explain.tiles import tiles_of
from jaxcnnbp.explain.walk_views import gaps_words, title_of, verdict_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxcnnbp.explain.walk import Step, Walk

COLUMNS = ("output", "δ of the output", "kernel", "gradient of the kernel")
INK, QUIET = "#1d2430", "#5a6473"


def picture_of(walk: Walk, path: str | PathLike[str] | None = None) -> Figure:
    """A row for each layer: output, delta, kernel, its gradient; saved to `path` if given."""
    # A flattened map is the map before it, seen twice.
    steps = [step for step in walk.steps if not step.name.startswith("flatten")]
    heights = [1.0 if step.activation.ndim == 1 else 1.5 for step in steps]
    figure = require("matplotlib.figure", "Matplotlib", "plot").Figure(
        figsize=(11, sum(heights) + 1.9), facecolor="white", layout="constrained"
    )
    grid = figure.subplots(len(steps), 4, squeeze=False, height_ratios=heights)
    for row, step in zip(grid, steps, strict=True):
        _draw_row(row, step)
    for axes, name in zip(grid[0], COLUMNS, strict=True):
        axes.set_title(name, fontsize=10, color=QUIET)
    figure.suptitle(f"{title_of(walk)}\n{verdict_of(walk)}", fontsize=12, color=INK)
    figure.supxlabel(gaps_words(walk), fontsize=8, color=QUIET, wrap=True)
    if path is not None:
        figure.savefig(path, dpi=110)
    return figure


def _draw_row(row: Any, step: Step) -> None:
    kernel = step.parameters.get("kernel")
    arrays = (
        tiles_of(step.activation),
        tiles_of(step.delta),
        *((None, None) if kernel is None else (tiles_of(a, is_kernel=True) for a in (kernel.value, kernel.gradient))),
    )
    for column, (axes, tiles) in enumerate(zip(row, arrays, strict=True)):
        if tiles is None:
            axes.set_axis_off()
            continue
        _draw(axes, tiles, is_magnitude=column == 0 and bool(step.activation.min() >= 0))
    row[0].set_axis_on()
    row[0].set_ylabel(step.name, fontsize=10, color=INK, rotation=0, ha="right", va="center")


def _draw(axes: Any, tiles: np.ndarray, is_magnitude: bool) -> None:
    values = mosaic(tiles)
    limit = float(np.nanmax(np.abs(values))) or 1.0
    low, colours = (0.0, "gray_r") if is_magnitude else (-limit, "RdBu_r")
    if values.shape[0] > 1.6 * values.shape[1]:
        values = values.T
    axes.imshow(values, cmap=colours, vmin=low, vmax=limit, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(f"largest {limit:.2g}", fontsize=7, color=QUIET)
    for spine in axes.spines.values():
        spine.set_color("#c6ccd4")


def mosaic(tiles: np.ndarray) -> np.ndarray:
    """Tiles in one matrix, a line of NaN between them.

    Example:
      >>> mosaic(np.ones((1, 2, 1, 1)))
      array([[ 1., nan,  1.]])
    """
    padded = np.pad(tiles.astype(np.float64), ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    rows, columns, height, width = padded.shape
    return padded.swapaxes(1, 2).reshape(rows * height, columns * width)[:-1, :-1]
