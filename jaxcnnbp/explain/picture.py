"""The still picture of an explanation: one row for each of output, input gradient and kernel gradient."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcnnbp.errors import require
from jaxcnnbp.explain.contacts import short
from jaxcnnbp.explain.page import title_of
from jaxcnnbp.explain.sums import Sum
from jaxcnnbp.explain.text import CAPTIONS, autodiff_words, hits, map_values, settings_words, sums_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxcnnbp.explain.explanation import Explanation

INK, QUIET, LINE = "#1d2430", "#5a6473", "#c6ccd4"
FACES = {"x": "#d8e6fb", "kernel": "#fde9c4", "delta": "#d2f0dd", "y": "#a9dfbd", "dx": "#dcc0f0", "dk": "#dcc0f0"}
CELL = 0.36  # inches


def picture_of(shown: Explanation, path: str | PathLike[str] | None = None) -> Figure:
    """Draws it, and saves it to `path` if given; the ending chooses the format."""
    rows = list(sums_of(shown))
    shapes = [[map_values(shown, array).shape for array in arrays] for _, arrays in rows]
    heights = [max(shape[0] for shape in row) * CELL + 1.15 for row in shapes]
    width = max(sum(max(shape[1] * CELL, 1.9) + 0.6 for shape in row) for row in shapes) + 0.4
    figures = require("matplotlib.figure", "Matplotlib", "plot")
    figure = figures.Figure(figsize=(max(width, 7.0), sum(heights) + 1.15), facecolor="white")
    canvas = _Canvas(figure)
    canvas.text(0.3, 0.35, title_of(shown), fontsize=13, weight="bold", color=INK)
    canvas.text(0.3, 0.62, settings_words(shown), fontsize=9, color=QUIET)
    top = 0.95
    for (made, arrays), height in zip(rows, heights, strict=True):
        _draw_row(canvas, shown, made, arrays, top)
        top += height
    canvas.text(0.3, top + 0.02, autodiff_words(shown), fontsize=8, color=QUIET)
    if path is not None:
        figure.savefig(path, dpi=130)
    return figure


class _Canvas:
    """One pair of axes in inches from the upper left corner."""

    def __init__(self, figure: Figure):
        self.width, height = figure.get_size_inches()
        self.axes: Any = figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, self.width), ylim=(height, 0))
        self.axes.axis("off")

    def text(self, x: float, y: float, words: str, **style: Any) -> None:
        self.axes.text(x, y, words, **{"va": "center", "parse_math": False} | style)

    def box(self, x: float, y: float, face: str, edge: str, thick: float) -> None:
        from matplotlib.patches import Rectangle

        self.axes.add_patch(Rectangle((x, y), CELL, CELL, facecolor=face, edgecolor=edge, linewidth=thick))


def _draw_row(canvas: _Canvas, shown: Explanation, made: Sum, row: list[str], top: float) -> None:
    left = 0.3
    canvas.text(left, top + 0.1, _fitted(str(made), canvas.width), fontsize=9.5, color=INK, family="DejaVu Sans Mono")
    for array in row:
        values = map_values(shown, array)
        canvas.text(left, top + 0.42, CAPTIONS[array], fontsize=8.5, color=QUIET)
        _draw_map(canvas, shown, made, array, values, left, top + 0.6)
        left += max(values.shape[1] * CELL, 1.9) + 0.6


def _draw_map(
    canvas: _Canvas, shown: Explanation, made: Sum, array: str, values: np.ndarray, left: float, top: float
) -> None:
    marked = hits(shown, array, made)
    for (r, c), value in np.ndenumerate(values):
        x, y, is_hit = left + c * CELL, top + r * CELL, (r, c)[-shown.window.rank :] in marked
        canvas.box(x, y, FACES[array] if is_hit else "white", INK if is_hit else LINE, 1.1 if is_hit else 0.6)
        text = short(value, 3)
        canvas.text(x + CELL / 2, y + CELL / 2, text, ha="center", fontsize=8.5 if len(text) < 5 else 6, color=INK)


def _fitted(text: str, width: float) -> str:
    """The sum, its middle left out where it is wider than the picture."""
    room = int((width - 0.6) / 0.083)
    if len(text) <= room:
        return text
    head, _, total = text.rpartition(" = ")
    return f"{head[: room - len(total) - 8].rstrip(' +')} + .. = {total}"
