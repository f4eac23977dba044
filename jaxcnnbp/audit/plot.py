"""A picture of where a gradient is wrong."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

import numpy as np

from jaxcnnbp.errors import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxcnnbp.audit.report import ReportRow


def error_map(row: ReportRow, path: str | PathLike[str] | None = None) -> Figure:
    """Manual gradient, oracle and |difference| / allowed through the worst element, as three images side by side."""
    figure = require("matplotlib.figure", "Matplotlib", "plot").Figure(figsize=(11, 3.6), layout="constrained")
    figure.suptitle(f"{row.name} {row.dtype} {row.shape}: {'right' if row.ok else f'{row.wrong} elements wrong'}")
    panels = {
        "manual": row.maps.manual,
        "oracle": row.maps.oracle,
        "|difference| / allowed": np.nan_to_num(row.maps.excess()),
    }
    for axes, (title, values) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        image = axes.imshow(slice_of(np.real(values), row), aspect="auto", interpolation="nearest")
        axes.set_title(title)
        figure.colorbar(image, ax=axes)
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure


def slice_of(values: np.ndarray, row: ReportRow) -> np.ndarray:
    """The two spatial axes of `values` through the worst element; every row, for a matrix or less."""
    if values.ndim <= 2:
        return np.atleast_2d(values) if values.size else np.zeros((1, 1))
    if row.worst is None:
        return np.zeros((1, 1))
    shown = shown_axes(row)
    return values[tuple(slice(None) if a in shown else i for a, i in enumerate(row.worst.index))]


def shown_axes(row: ReportRow) -> tuple[int, ...]:
    """The two axes of an array of more axes that pictures show, in its order."""
    rank = len(row.shape)
    return tuple(sorted(row.axes[-2:])) if len(row.axes) >= 2 else (rank - 2, rank - 1)
