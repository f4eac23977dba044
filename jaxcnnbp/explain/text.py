"""An explanation in a terminal: the maps side by side, and one sum of each kind."""

from __future__ import annotations

import importlib.util
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcnnbp.explain.contacts import short
from jaxcnnbp.explain.page import title_of
from jaxcnnbp.explain.sums import Sum, sum_of

if TYPE_CHECKING:
    from jaxcnnbp.explain.explanation import Explanation

CAPTIONS = {
    "x": "x, input",
    "kernel": "k, kernel",
    "y": "y, output",
    "delta": "δ, gradient of the output",
    "dx": "dx, gradient of the input",
    "dk": "dk, gradient of the kernel",
}
WIDTH = 100
# What stands beside each sum, and which cells of it take part in a meeting.
SHOWN = {"y": ("x", "kernel", "y"), "dx": ("delta", "kernel", "dx"), "dk": ("x", "delta", "dk")}
STYLES = {
    "x": "blue",
    "kernel": "yellow",
    "delta": "green",
    "y": "bold green",
    "dx": "bold magenta",
    "dk": "bold magenta",
}


def rich_of(shown: Explanation) -> Any:
    """For Rich: colours mark the cells that meet; plain text where Rich is absent."""
    if importlib.util.find_spec("rich") is None:
        return plain_of(shown)
    from rich.columns import Columns
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = [Text(title_of(shown), style="bold"), Text(settings_words(shown)), Text("")]
    for name in (name for name in SHOWN if name in shown.arrays):
        made = sum_of(shown, name, shown.selected[name])
        maps = [_rich_map(shown, array, made) for array in SHOWN[name] if array in shown.arrays]
        parts += [Columns(maps, padding=(0, 4)), Text(f"{made}", style="bold"), Text("")]
    return Group(*parts, Text(autodiff_words(shown)))


def plain_of(shown: Explanation) -> str:
    """The same in plain text: a star stands before the cells that meet, the number asked for is in brackets."""
    blocks = [f"{title_of(shown)}\n{settings_words(shown)}"]
    for name in (name for name in SHOWN if name in shown.arrays):
        made = sum_of(shown, name, shown.selected[name])
        maps = [plain_map(shown, array, made) for array in SHOWN[name] if array in shown.arrays]
        blocks += [f"{beside(maps)}\n{_folded(str(made))}"]
    return "\n\n".join([*blocks, _folded(autodiff_words(shown))])


def _folded(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="    ")


def settings_words(shown: Explanation) -> str:
    """The settings in one line."""
    asked = {name: _words(value) for name, value in shown.settings.items()}
    size = "x".join(map(str, shown.window.size))
    return f"{'kernel' if shown.has_kernel else 'window'} {size}, " + ", ".join(f"{k} {v}" for k, v in asked.items())


def autodiff_words(shown: Explanation) -> str:
    """How far JAX's autodiff is from the numbers."""
    gaps = ", ".join(f"{gap:.2g} in {name}" for name, gap in shown.gaps.items())
    found = f"By the rules of jaxcnnbp; JAX's autodiff differs by at most {gaps}." if gaps else ""
    return " ".join(part for part in (found, shown.note) if part)


def hits(shown: Explanation, array: str, made: Sum) -> set[tuple[int, ...]]:
    """The indices of a map that take part in `made`."""
    if array == made.name:
        return {made.index}
    own = {"x": lambda c: c.cell, "kernel": lambda c: c.tap, "delta": lambda c: c.output}[array]
    return {own(contact) for contact in made.contacts}


def map_values(shown: Explanation, array: str) -> np.ndarray:
    """The first map of an array, `(rows, columns)`; one axis is one row."""
    values = shown.arrays[array]
    values = values[(..., *(0,) * (2 if array in ("kernel", "dk") else 1))]
    return values[None] if values.ndim == 1 else values


def plain_map(shown: Explanation, array: str, made: Sum) -> str:
    """One map with its caption; see `plain_of`."""
    marked, values = hits(shown, array, made), map_values(shown, array)
    rows = [
        [_marked_text(short(v, 3), _key(shown, i) in marked, array == made.name) for i, v in row]
        for row in _cells(values)
    ]
    width = max(len(text) for row in rows for text in row)
    return "\n".join([CAPTIONS[array], *(" ".join(text.rjust(width) for text in row).rstrip() for row in rows)])


def beside(blocks: list[str], gap: int = 4) -> str:
    """Blocks of lines next to each other, or below each other where that would be too wide."""
    lines = [block.splitlines() for block in blocks]
    widths = [max(map(len, block)) for block in lines]
    if sum(widths) + gap * (len(widths) - 1) > WIDTH:
        return "\n".join(blocks)
    padded = [block + [""] * (max(map(len, lines)) - len(block)) for block in lines]
    rows = zip(*([line.ljust(w) for line in block] for block, w in zip(padded, widths, strict=True)), strict=True)
    return "\n".join((" " * gap).join(row).rstrip() for row in rows)


def _rich_map(shown: Explanation, array: str, made: Sum) -> Any:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    marked, values = hits(shown, array, made), map_values(shown, array)
    table = Table(box=box.ROUNDED, show_header=False, padding=(0, 0))
    for _ in range(values.shape[1]):
        table.add_column(justify="right", min_width=3)
    for row in _cells(values):
        texts = [_styled(Text, short(v, 3), _key(shown, i) in marked, array) for i, v in row]
        table.add_row(*texts)
    return Group(Text(CAPTIONS[array]), table)


def _styled(text: Any, words: str, is_hit: bool, array: str) -> Any:
    return text(words, style=f"{STYLES[array]} reverse" if is_hit else "")


def _cells(values: np.ndarray) -> Iterable[list[tuple[tuple[int, int], float]]]:
    return ([((r, c), v) for c, v in enumerate(row)] for r, row in enumerate(values))


def _key(shown: Explanation, index: tuple[int, int]) -> tuple[int, ...]:
    return index[1:] if shown.window.rank == 1 else index


def _marked_text(text: str, is_hit: bool, is_target: bool) -> str:
    return f"[{text}]" if is_hit and is_target else f"*{text} " if is_hit else f" {text} "


def _words(value: Any) -> str:
    if isinstance(value, tuple):
        flat = {_words(entry) for entry in value}
        return flat.pop() if len(flat) == 1 else ", ".join(map(_words, value)).join("()")
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
