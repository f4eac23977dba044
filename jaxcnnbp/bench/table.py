"""Results for a terminal: Rich tables, the geometric means, and the losses by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from jaxcnnbp.bench.columns import COLUMNS, MEANS, Column, headline, loss_lines, means, verdict
from jaxcnnbp.bench.results import Results
from jaxcnnbp.errors import require

_STYLES = {"loss": "red", "gain": "green", "": ""}


def tables(results: Results) -> Iterator[Any]:
    """What a console prints one after the other."""
    rich = require("rich.text", "Rich", "cli")
    yield rich.Text("\n".join(headline(results)))
    yield rich.Text(str(results.self_check), style="" if results.self_check.ok else "bold red")
    if results.rows:
        yield _table(COLUMNS, results.rows)
    if results.steps:
        yield _table(COLUMNS, results.steps)
    averages = tuple(means(results))
    if averages:
        yield _table(MEANS, averages)
    for line in loss_lines(results):
        yield rich.Text(line)


def _table(columns: Sequence[Column], rows: Sequence[Any]) -> Any:
    rich, box = require("rich.table", "Rich", "cli"), require("rich.box", "Rich", "cli")
    table = rich.Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, collapse_padding=True)
    filled = [column for column in columns if any(column.text(row) for row in rows)]
    for column in filled:
        table.add_column(column.heading, justify="right" if column.numeric else "left", no_wrap=True)
    previous = ""
    for row in rows:
        first, *rest = (_cell(column, row) for column in filled)
        table.add_row("" if first.plain == previous else first, *rest)
        previous = first.plain
    return table


def _cell(column: Column, row: Any) -> Any:
    rich = require("rich.text", "Rich", "cli")
    return rich.Text(column.text(row), style=_STYLES[verdict(column.speedup(row))])
