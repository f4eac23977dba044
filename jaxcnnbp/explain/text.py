"""An explanation in a terminal: the maps side by side, and one sum of each kind."""

from __future__ import annotations

import importlib.util
import textwrap
from collections.abc import Iterator
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
    for made, arrays in sums_of(shown):
        maps = [_rich_map(shown, array, made) for array in arrays]
        parts += [Columns(maps, padding=(0, 4)), Text(f"{made}", style="bold"), Text("")]
    return Group(*parts, Text(autodiff_words(shown)))


def plain_of(shown: Explanation) -> str:
    """The same in plain text: a star stands before the cells that meet, the number asked for is in brackets."""
    blocks = [f"{title_of(shown)}\n{settings_words(shown)}"]
    for made, arrays in sums_of(shown):
        maps = [plain_map(shown, array, made) for array in arrays]
        blocks += [f"{beside(maps)}\n{_folded(str(made))}"]
    return "\n\n".join([*blocks, _folded(autodiff_words(shown))])


def sums_of(shown: Explanation) -> Iterator[tuple[Sum, list[str]]]:
    """The number that is picked out of each result, and the arrays that stand beside it."""
    for name, arrays in SHOWN.items():
        if name in shown.arrays:
            yield sum_of(shown, name, shown.selected[name]), [array for array in arrays if array in shown.arrays]


def _folded(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="    ")


def settings_words(shown: Explanation) -> str:
    """The settings in one line."""
    asked = ", ".join(f"{name} {_words(value)}" for name, value in shown.settings.items())
    size = "x".join(map(str, shown.window.size))
    return f"{'kernel' if shown.has_kernel else 'window'} {size}, {asked}"


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
    is_target = array == made.name
    rows = [[_marked_text(*cell, is_target) for cell in row] for row in _cells(shown, array, made)]
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

    rows = _cells(shown, array, made)
    table = Table(box=box.ROUNDED, show_header=False, padding=(0, 0))
    for _ in rows[0]:
        table.add_column(justify="right", min_width=3)
    for row in rows:
        table.add_row(*(Text(text, style=f"{STYLES[array]} reverse" if is_hit else "") for text, is_hit in row))
    return Group(Text(CAPTIONS[array]), table)


def _cells(shown: Explanation, array: str, made: Sum) -> list[list[tuple[str, bool]]]:
    """The numbers of a map, row by row, and whether each takes part in `made`."""
    marked, rank = hits(shown, array, made), shown.window.rank
    rows = enumerate(map_values(shown, array))
    return [[(short(v, 3), (r, c)[-rank:] in marked) for c, v in enumerate(row)] for r, row in rows]


def _marked_text(text: str, is_hit: bool, is_target: bool) -> str:
    return f"[{text}]" if is_hit and is_target else f"*{text} " if is_hit else f" {text} "


def _words(value: Any) -> str:
    if isinstance(value, tuple):
        flat = {_words(entry) for entry in value}
        return flat.pop() if len(flat) == 1 else ", ".join(map(_words, value)).join("()")
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
