"""Pictures of a run, its curves and the kernels of its first convolution; and whether a file can be written at all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnnbp.errors import InputError, check_output, require
from jaxcnnbp.train.watch.events import Epoch

_COLOURS = {"train": "#4269d0", "validation": "#3ca951", "test": "#d1495b"}


def plot_curves(path: Path | str, history: Sequence[Epoch], title: str) -> None:
    """Draw loss and error over the epochs, training and test, into a picture file; its ending chooses the format."""
    figure = _figure(9, 3.6)
    axes = figure.subplots(1, 2)
    epochs = [record.epoch for record in history]
    for part, colour in _COLOURS.items():
        if getattr(history[0], f"{part}_loss") is None:
            continue
        losses = [getattr(record, f"{part}_loss") for record in history]
        errors = [100 * getattr(record, f"{part}_error") for record in history]
        for axis, values in zip(axes, (losses, errors), strict=True):
            axis.plot(epochs, values, color=colour, label=part, marker="o", markersize=3)
    last = f"test error {100 * history[-1].test_error:.2f} % after {history[-1].epoch} epochs"
    for axis, name in zip(axes, ("loss", "error, %"), strict=True):
        _label(axis, name)
    figure.suptitle(f"{title}: {last}")
    _write(figure, path, "curves")


def plot_kernels(path: Path | str, params: Mapping[str, Any], title: str) -> None:
    """Draw the kernels of the first convolution, one tile for each pair of maps.

    Blue is negative, white zero, red positive; all tiles share one scale. A row holds the kernels of one
    input map, unless there is only one, whose kernels fill several rows.
    """
    layer, kernel = first_kernels(params)
    tiles = np.moveaxis(kernel, (2, 3), (0, 1)).reshape(-1, *kernel.shape[:2])
    maps_in, maps_out = kernel.shape[2:]
    columns = maps_out if maps_in > 1 else math.ceil(math.sqrt(2 * maps_out))
    rows = math.ceil(len(tiles) / columns)
    figure = _figure(1.1 * columns + 1.2, 1.1 * rows + 0.7)
    axes = figure.subplots(rows, columns, squeeze=False)
    bound = float(np.abs(kernel).max()) or 1.0
    for axis in axes.flat:
        axis.set_axis_off()
    scale = {"cmap": "RdBu_r", "vmin": -bound, "vmax": bound}
    shown = [axis.imshow(tile, **scale) for axis, tile in zip(axes.flat, tiles, strict=False)]
    figure.colorbar(shown[0], ax=axes, shrink=0.8)
    figure.suptitle(f"{title}: kernels of {layer}")
    _write(figure, path, "kernels")


def first_kernels(params: Mapping[str, Any]) -> tuple[str, np.ndarray]:
    """The name of the first two-dimensional convolution, and its kernels."""
    for layer, leaves in params.items():
        if "kernel" in leaves and np.ndim(leaves["kernel"]) == 4:
            return layer, np.asarray(leaves["kernel"])
    raise InputError("`kernels` wants a picture of a convolution, but the model has none; leave it out.")


def _figure(width: float, height: float) -> Any:
    # Not pyplot: it would choose a window system and keep every figure alive.
    figures = require("matplotlib.figure", "Matplotlib", "plot")
    return figures.Figure(figsize=(width, height), layout="constrained")


def _label(axis: Any, name: str) -> None:
    ticker = require("matplotlib.ticker", "Matplotlib", "plot")
    axis.set_xlabel("epoch")
    axis.set_ylabel(name)
    if any((line.get_ydata() > 0).any() for line in axis.lines):
        axis.set_yscale("log")
    axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axis.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axis.yaxis.set_minor_formatter(ticker.NullFormatter())
    axis.grid(which="both", alpha=0.25)
    axis.legend()


def _write(figure: Any, path: Path | str, option: str) -> None:
    check_picture(option, path)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise InputError(f"`{option}` (={path}) cannot be written ({error.strerror or error}).") from error


def check_picture(option: str, path: Path | str) -> None:
    """`check_output`, for a picture: its ending must be one that Matplotlib draws."""
    check_output(option, path)
    known = require("matplotlib.backend_bases", "Matplotlib", "plot").FigureCanvasBase.filetypes
    if Path(path).suffix.lower().lstrip(".") not in known:
        raise InputError(f"`{option}` (={path}) must end like a picture: .png, .svg, .pdf.")
