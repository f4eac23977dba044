"""The speedups of a run as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxcnnbp.bench.results import Results, Row
from jaxcnnbp.errors import InputError, require

_SIDES = {"autodiff": ("JAX autodiff", "#4269d0", "o"), "torch": ("PyTorch", "#d1495b", "D")}
_ROW_INCHES = 0.16


def plot_speedups(path: Path | str, results: Results) -> None:
    """Draw how many times longer autodiff and PyTorch take: one panel for each pass, one line for each layer."""
    panels = _panels(results)
    if not panels:
        raise InputError("`plot` wants a comparison, and nothing was compared with; measure autodiff or PyTorch too.")
    figures = require("matplotlib.figure", "Matplotlib", "plot")
    longest = max(len(rows) for _, rows in panels)
    figure = figures.Figure(figsize=(3.2 * len(panels) + 1.6, _ROW_INCHES * longest + 1.6), layout="constrained")
    names = list(dict.fromkeys(row.name for _, rows in panels for row in rows))
    axes = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    for axis, (title, rows) in zip(axes, panels, strict=True):
        _draw(axis, title, rows, names)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(f"Time of others / time of jaxcnnbp: right of 1, jaxcnnbp is faster ({results.machine['cpu']})")
    figure.savefig(path, dpi=120)


def _panels(results: Results) -> list[tuple[str, list[Row]]]:
    found: dict[str, list[Row]] = {}
    for row in (*results.rows, *results.steps):
        if any(side in row.times for side in _SIDES):
            found.setdefault("training step" if row in results.steps else row.step, []).append(row)
    return list(found.items())


def _draw(axis: Any, title: str, rows: Sequence[Row], names: Sequence[str]) -> None:
    ticker = require("matplotlib.ticker", "Matplotlib", "plot")
    places = {name: len(names) - number for number, name in enumerate(names)}
    axis.axvline(1, color="black", linewidth=0.8)
    for side, (label, colour, marker) in _SIDES.items():
        here = [(row.speedup(side), places[row.name]) for row in rows if side in row.times]
        axis.plot(*zip(*here, strict=True) if here else ([], []), marker, color=colour, markersize=4, label=label)
    axis.set_xscale("log")
    axis.set_title(title, fontsize=9)
    axis.xaxis.set_major_formatter(ticker.FormatStrFormatter("%gx"))
    axis.set_yticks(list(places.values()), list(places), fontsize=6.5)
    axis.set_ylim(0, len(names) + 1)
    axis.grid(alpha=0.25)
