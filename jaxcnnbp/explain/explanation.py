"""What an explanation holds, and the forms it can be shown in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcnnbp.explain.contacts import Contact, contacts_of
from jaxcnnbp.geometry import Window
from jaxcnnbp.taps import cells

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxcnnbp.geometry.window import Ints


@dataclass(frozen=True, eq=False)
class Explanation:
    """One layer in numbers: its forward pass, its gradients, and which cells meet in each of them.

    In a notebook it shows itself as the interactive page; `print` and Rich show it as text.

    Attributes:
      kind: "conv", "conv-transpose", "max-pool" or "mean-pool".
      window: where the taps fall.
      settings: what was asked for: stride, padding, dilation, and flip, ties, count_padding or ceil_mode.
      arrays: x, delta, y, dx, and kernel and dk of a convolution: maps `(*spatial, channels)`, kernels
        `(*window, in, out)`, all by the package's rules.
      gaps: the largest distance of y, dx, dk from JAX's autodiff; empty where it has no gradient.
      note: what to know about autodiff here; "" if nothing.
      selected: what pictures and text pick out: an index of y, of dk, of dx.
    """

    kind: str
    window: Window
    settings: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray] = field(repr=False)
    gaps: Mapping[str, float]
    note: str = ""
    selected: Mapping[str, Ints] = field(default_factory=dict)

    @cached_property
    def contacts(self) -> list[Contact]:
        """Every meeting of an output, a tap and an input cell."""
        return contacts_of(self.window, bool(self.settings.get("flip")))

    @cached_property
    def cells(self) -> np.ndarray:
        """How many cells each window of a mean pool counts."""
        return cells(self.window, bool(self.settings.get("count_padding")))

    @property
    def has_kernel(self) -> bool:
        """Whether there are weights to learn."""
        return "kernel" in self.arrays

    def to_html(self) -> str:
        """The interactive page, whole: one file that needs no network."""
        from jaxcnnbp.explain.page import page_of

        return page_of(self)

    def save_html(self, path: str | PathLike[str]) -> None:
        """Writes `to_html()` to `path`."""
        Path(path).write_text(self.to_html(), encoding="utf-8")

    def plot(self, path: str | PathLike[str] | None = None) -> Figure:
        """The still picture: a window, a kernel element and an input cell with all they meet; needs Matplotlib."""
        from jaxcnnbp.explain.picture import picture_of

        return picture_of(self, path)

    def _repr_html_(self) -> str:
        from jaxcnnbp.explain.page import title_of
        from jaxcnnbp.pages import in_frame

        return in_frame(self.to_html(), title_of(self))

    def __rich__(self) -> Any:
        from jaxcnnbp.explain.text import rich_of

        return rich_of(self)

    def __str__(self) -> str:
        from jaxcnnbp.explain.text import plain_of

        return plain_of(self)
