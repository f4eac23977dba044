"""A walk through a network as a page and as text."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcnnbp.explain.tiles import tiles_of
from jaxcnnbp.pages import document, packed, part

if TYPE_CHECKING:
    from jaxcnnbp.explain.walk import Step, Walk

_PACKAGE = "jaxcnnbp.explain"
HEADINGS = ("layer", "output", "largest", "largest δ", "δ - autodiff", "parameters", "largest gradient", "- autodiff")


def title_of(walk: Walk) -> str:
    """The heading of page, picture and text."""
    return f"One digit through {walk.name} and back"


def verdict_of(walk: Walk) -> str:
    """What the network says of the image."""
    sure = "" if walk.chances is None else f" with {100 * walk.chances[walk.answer]:.1f} %"
    judged = "right" if walk.answer == walk.label else "wrong"
    said = f"The image shows a {walk.label}; the network says {walk.answer}{sure}, which is {judged}."
    return f"{said} Loss {walk.loss:.3g}."


def gaps_words(walk: Walk) -> str:
    """How far autodiff is from what is shown."""
    delta = max(step.gap / (_size(step.delta) or 1) for step in walk.steps)
    parts = [p for step in walk.steps for p in step.parameters.values()]
    gradient = max((p.gap / (_size(p.gradient) or 1) for p in parts), default=0.0)
    return (
        "Deltas and gradients are by nn.backprop, no part of them by autodiff. Relative to the largest entry of each"
        f" array, JAX's autodiff differs by at most {delta:.1e} in the deltas and {gradient:.1e} in the gradients."
    )


def page_of(walk: Walk) -> str:
    """The whole page."""
    data = {
        "title": title_of(walk),
        "verdict": verdict_of(walk),
        "gaps": gaps_words(walk),
        "words": walk.words,
        "label": walk.label,
        "answer": walk.answer,
        "scores": walk.scores if walk.chances is None else walk.chances,
        "isChance": walk.chances is not None,
        "headings": HEADINGS,
        "rows": [list(row) for row in _rows(walk)],
        "steps": [_step(step) for step in walk.steps],
    }
    return document(
        data["title"],
        part("assets/walk.html", _PACKAGE),
        styles=[part("pictures.css"), part("assets/walk.css", _PACKAGE)],
        scripts=[part("pictures.js"), part("assets/walk.js", _PACKAGE)],
        data=data,
    )


def plain_of(walk: Walk) -> str:
    """The figures of every layer in plain text."""
    rows = [HEADINGS, *_rows(walk)]
    widths = [max(len(row[c]) for row in rows) for c in range(len(HEADINGS))]
    lines = ["  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([title_of(walk), *walk.words, verdict_of(walk), "", *lines, "", gaps_words(walk)])


def rich_of(walk: Walk) -> Any:
    """The same for Rich, with the digit; plain text where Rich is absent."""
    if importlib.util.find_spec("rich") is None:
        return plain_of(walk)
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if "largest" in heading or "autodiff" in heading else "left")
    for row in _rows(walk):
        table.add_row(*row)
    words = [Text(line) for line in (*walk.words, verdict_of(walk))]
    digit = Text(drawing(walk.steps[0].activation[..., 0]))
    return Group(Text(title_of(walk), style="bold"), *words, digit, table, Text(gaps_words(walk)))


def drawing(image: np.ndarray) -> str:
    """An image in characters, two rows of pixels a line.

    Example:
      >>> print(drawing(np.array([[0.0, 1.0], [1.0, 1.0]])))
      ▄█
    """
    height = image.shape[0]
    bright = (image - image.min()) / ((image.max() - image.min()) or 1) > 0.35
    if height % 2:
        bright = np.concatenate([bright, np.zeros_like(bright[:1])])
    blocks = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}
    pairs = zip(bright[::2], bright[1::2], strict=True)
    return "\n".join("".join(blocks[bool(a), bool(b)] for a, b in zip(*pair, strict=True)).rstrip() for pair in pairs)


def _rows(walk: Walk) -> Iterator[tuple[str, ...]]:
    for step in walk.steps:
        names = [*step.parameters.items()] or [("", None)]
        for at, (name, leaf) in enumerate(names):
            own = (step.name, _shape(step.activation), _few(step.activation), _few(step.delta), f"{step.gap:.0e}")
            rest = (
                ("", "", "")
                if leaf is None
                else (f"{name} {_shape(leaf.value)}", _few(leaf.gradient), f"{leaf.gap:.0e}")
            )
            yield (*(own if at == 0 else ("",) * 5), *rest)


def _step(step: Step) -> dict[str, Any]:
    pictures = [_picture("activation", step.activation), _picture("delta", step.delta, gap=step.gap)]
    for name, leaf in step.parameters.items():
        is_kernel = leaf.value.ndim > 1
        pictures += [
            _picture(name, leaf.value, is_kernel),
            _picture(f"gradient of {name}", leaf.gradient, is_kernel, leaf.gap),
        ]
    return {"name": step.name, "shape": _shape(step.activation), "pictures": pictures}


def _picture(name: str, array: np.ndarray, is_kernel: bool = False, gap: float | None = None) -> dict[str, Any]:
    words = {"activation": "output", "delta": "δ, the loss by this output"}.get(name, name)
    tiles = tiles_of(array, is_kernel)
    count = {"maps": array.shape[-1] if array.ndim == 3 else 1, "valid": array.size if array.ndim == 1 else None}
    scale = "magnitude" if name == "activation" and array.min() >= 0 else "signed"
    look = {"largest": _size(array), "limit": _size(array), "scale": scale}
    return {"name": words, "size": _shape(array), "gap": gap, **look, **count, **packed(tiles)}


def _shape(array: np.ndarray) -> str:
    return "x".join(map(str, array.shape))


def _size(array: np.ndarray) -> float:
    return float(np.abs(array).max(initial=0.0))


def _few(array: np.ndarray) -> str:
    return f"{_size(array):.2g}"
