"""How something shows itself: in a notebook, as a page, as a picture, in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from jaxcnnbp.pages import in_frame

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Views:
    """What each form is made by, a function of the thing that is shown."""

    title: Callable[[Any], str]  # the heading of all of them
    page: Callable[[Any], str]  # HTML, whole
    plain: Callable[[Any], str]
    rich: Callable[[Any], Any]  # what Rich prints
    picture: Callable[[Any, str | PathLike[str] | None], Figure]  # also written to the path it is given


class Shown:
    """Shows itself by `_views`: in a notebook as the page, by `print` and Rich as text."""

    _views: ClassVar[Views]

    def to_html(self) -> str:
        """The page, whole: one file that needs no network."""
        return self._views.page(self)

    def save_html(self, path: str | PathLike[str]) -> None:
        """Writes `to_html()` to `path`."""
        Path(path).write_text(self.to_html(), encoding="utf-8")

    def plot(self, path: str | PathLike[str] | None = None) -> Figure:
        """The still picture, written to `path` if there is one; needs Matplotlib."""
        return self._views.picture(self, path)

    def _repr_html_(self) -> str:
        return in_frame(self.to_html(), self._views.title(self))

    def __rich__(self) -> Any:
        return self._views.rich(self)

    def __str__(self) -> str:
        return self._views.plain(self)
