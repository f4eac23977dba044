"""Which output meets which input cell through which tap: every rule is a sum over these meetings."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from jaxcnnbp.geometry import Window
from jaxcnnbp.geometry.window import Ints


class Contact(NamedTuple):
    """Output `output` reads with `tap` the input cell `cell`, None where no cell lies at that `position`."""

    output: Ints
    tap: Ints
    position: Ints
    cell: Ints | None


def contacts_of(window: Window, flip: bool = False) -> list[Contact]:
    """All meetings, outputs and taps in row-major order; with `flip` taps count from the kernel's far end.

    Example:
      >>> from jaxcnnbp.geometry import window_of
      >>> [c.cell for c in contacts_of(window_of((2,), 2, padding=1))]
      [None, (0,), (0,), (1,), (1,), None]
    """
    found = []
    for output in itertools.product(*map(range, window.output)):
        for tap in window.tap_indices():
            position = tuple(
                u * s + t * d - low
                for u, s, t, d, (low, _) in zip(
                    output, window.stride, tap, window.dilation, window.padding, strict=True
                )
            )
            inside = all(window.inside(axis)[u, t] for axis, (u, t) in enumerate(zip(output, tap, strict=True)))
            cell = tuple(p // gap for p, gap in zip(position, window.input_dilation, strict=True))
            own = tuple(k - 1 - t for k, t in zip(window.size, tap, strict=True)) if flip else tap
            found.append(Contact(output, own, position, cell if inside else None))
    return found


def short(value: float, digits: int = 4) -> str:
    """A number in few digits.

    Example:
      >>> short(3.0), short(-0.33333333), short(float("inf"))
      ('3', '-0.3333', 'inf')
    """
    value = float(value)
    if np.isfinite(value) and value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return f"{value:.{digits}g}"
