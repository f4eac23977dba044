"""Where in an array an element lies: inside, on an edge, in a corner of its spatial axes, or where it meets padding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxcnnbp.audit.usage import Usage

KERNEL_NAMES = ("kernel", "weight", "weights", "filter", "filters", "w", "k")
PLACES = ("interior", "edge", "corner")


@dataclass(frozen=True)
class Borders:
    """The spatial axes of an array, and which elements share a window with padding."""

    shape: tuple[int, ...]
    axes: tuple[int, ...]  # its spatial axes; axes of extent 1 are left out, for they have no border
    padded: np.ndarray | None = None  # one bool an element; None where it is not known

    def place_of(self, index: Sequence[int]) -> str:
        """Interior, edge or corner, and padding if the element meets it; "" without spatial axes."""
        if not self.axes:
            return ""
        borders = sum(index[axis] in (0, self.shape[axis] - 1) for axis in self.axes)
        meets = self.padded is not None and self.padded[tuple(index)]
        return self._name(borders) + (", padding" if meets else "")

    def count(self, selected: np.ndarray) -> Mapping[str, int]:
        """How many selected elements lie inside, on edges and in corners, and how many meet padding."""
        if not self.axes:
            return {}
        counts: Counter[str] = Counter()
        for borders, number in Counter(self._borders()[selected].tolist()).items():
            counts[self._name(borders)] += number
        if self.padded is not None:
            counts["padding"] = int(np.sum(self.padded & selected))
        return {place: counts[place] for place in (*PLACES, "padding") if counts[place]}

    def _borders(self) -> np.ndarray:
        """For every element, on how many spatial axes it is first or last."""
        total = np.zeros(self.shape, int)
        for axis in self.axes:
            np.moveaxis(total, axis, -1)[..., [0, -1]] += 1
        return total

    def _name(self, borders: int) -> str:
        if borders == 0:
            return "interior"
        return "corner" if borders == len(self.axes) > 1 else "edge"


def borders_of(name: str, shape: tuple[int, ...], axes: Sequence[int] | None, usage: Usage | None, others) -> Borders:
    """The borders of the leaf `name`: as the user said (`axes`), as the function uses it, or as it looks (`guess`)."""
    known = axes if axes is not None or usage is None else usage.axes
    spatial = guess(name, shape, others) if known is None else tuple(known)
    padded = None if usage is None else usage.meets_padding(shape)
    return Borders(shape, tuple(a for a in spatial if shape[a] > 1), padded)


def guess(name: str, shape: Sequence[int], others: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The spatial axes of an array that no convolution or pooling takes as it is, judged by its name and shape.

    Arrays of three axes and more have them. A leaf is a kernel, `(*window, in, out)`, if its name ends in one of
    `KERNEL_NAMES`, or if its leading extents fit into the spatial extents of another leaf. Anything else is an image,
    `(batch, *spatial, channels)`.
    """
    if len(shape) < 3:
        return ()
    last = name.replace("]", "").replace("[", ".").split(".")[-1].lower()
    window = shape[:-2]
    rivals = (s[1:-1] for s in others if len(s) == len(shape) and tuple(s) != tuple(shape))
    inside = any(all(k <= n for k, n in zip(window, spatial, strict=True)) for spatial in rivals)
    return tuple(range(len(shape) - 2)) if last in KERNEL_NAMES or inside else tuple(range(1, len(shape) - 1))
