"""What an explanation holds, and the forms it can be shown in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from jaxcnnbp.explain.contacts import Contact, contacts_of
from jaxcnnbp.explain.page import page_of, title_of
from jaxcnnbp.explain.picture import picture_of
from jaxcnnbp.explain.shown import Shown, Views
from jaxcnnbp.explain.text import plain_of, rich_of
from jaxcnnbp.geometry import Window
from jaxcnnbp.taps import cells

if TYPE_CHECKING:
    from jaxcnnbp.geometry.window import Ints


@dataclass(frozen=True, eq=False)
class Explanation(Shown):
    """One layer in numbers: its forward pass, its gradients, and which cells meet in each of them.

    In a notebook it shows itself as the interactive page; `print` and Rich show it as text; `plot` draws a window, a
    kernel element and an input cell with all they meet.

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

    _views: ClassVar[Views] = Views(title_of, page_of, plain_of, rich_of, picture_of)

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
