"""An explanation as one interactive page; `assets/rules.js` recomputes there what its controls change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxcnnbp.pages import document, environment, part

if TYPE_CHECKING:
    from jaxcnnbp.explain.explanation import Explanation

NAMES = {
    "conv": "Convolution",
    "conv-transpose": "Transposed convolution",
    "max-pool": "Max pooling",
    "mean-pool": "Mean pooling",
}
_PACKAGE = "jaxcnnbp.explain"


def title_of(shown: Explanation) -> str:
    """The heading of page, picture and text."""
    flip = ", kernel flipped" if shown.settings.get("flip") else ", kernel not flipped (correlation)"
    return f"{NAMES[shown.kind]}{flip if shown.kind == 'conv' else ''}, forward and backward"


def page_of(shown: Explanation) -> str:
    """The whole page."""
    scripts = [
        part(f"assets/{name}.js", _PACKAGE)
        for name in ("rules", "state", "words", "grids", "marks", "controls", "page")
    ]
    body, styles = part("assets/page.html", _PACKAGE), [part("assets/page.css", _PACKAGE)]
    return document(title_of(shown), body, styles=styles, scripts=scripts, data=payload(shown))


def payload(shown: Explanation) -> dict[str, Any]:
    """What the page starts from: settings, arrays of two spatial axes, and where they come from."""
    arrays = {name: _two_axes(array, shown.window.rank) for name, array in shown.arrays.items()}
    made = {key: value for key, value in environment().items() if key in ("jaxcnnbp", "jax")}
    return {
        "name": NAMES[shown.kind],
        "rank": shown.window.rank,
        "settings": _settings(shown),
        "arrays": {name: {"shape": array.shape, "data": array.ravel()} for name, array in arrays.items()},
        "gaps": dict(shown.gaps),
        "note": shown.note,
        "made": made | {"dtype": str(shown.arrays["x"].dtype), "platform": jax.devices()[0].platform},
    }


def _settings(shown: Explanation) -> dict[str, Any]:
    """The settings with an entry for each of two axes."""
    asked = {"size": shown.window.size, **shown.settings}
    neutral = {"size": 1, "stride": 1, "padding": (0, 0), "dilation": 1}
    missing = 2 - shown.window.rank
    return {
        "kind": shown.kind,
        **{name: [*[one] * missing, *asked[name]] for name, one in neutral.items()},
        "flip": bool(asked.get("flip", False)),
        "ties": asked.get("ties", "first"),
        "countPadding": bool(asked.get("count_padding", True)),
        "ceilMode": shown.window.ceil_mode,
    }


def _two_axes(array: np.ndarray, rank: int) -> np.ndarray:
    """One spatial axis is shown as one row."""
    return array.astype(np.float64)[None] if rank == 1 else array.astype(np.float64)
