"""Stored results as Markdown, losses included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxcnnbp.bench.columns import COLUMNS, MEANS, Column, headline, loss_lines, means, verdict
from jaxcnnbp.bench.results import load

_SHAPES = Column("shapes", False, lambda row: row.layer)


def markdown(path: Path | str) -> str:
    """The results in a JSON file of `jaxcnnbp bench` as Markdown: tables, geometric means, losses.

    Args:
      path: the file.

    Returns:
      Text without a title. Speedups below 1 are bold: there somebody else is faster.

    Raises:
      OSError: the file cannot be read.
      ValueError: it holds something else.

    Example:
      `print(markdown("benchmarks/laptop.json"))`
    """
    results = load(path)
    method = (f"- {name.replace('_', ' ')}: {value}" for name, value in results.method.items())
    parts = [" ".join(headline(results)), str(results.self_check), "How it was measured:", "\n".join(method)]
    parts += ["\n".join(_table(MEANS, tuple(means(results))))]
    parts += ["\n".join(f"- {line}" for line in loss_lines(results))]
    for title, rows in (("Layers", results.rows), ("Training steps", results.steps)):
        if rows:
            parts += [f"### {title}", "\n".join(_table((COLUMNS[0], _SHAPES, *COLUMNS[1:]), rows))]
    return "\n\n".join(parts) + "\n"


def _table(columns: Sequence[Column], rows: Sequence[Any]) -> Iterator[str]:
    filled = [column for column in columns if any(column.text(row) for row in rows)]
    yield _line([column.heading.replace("\n", " ") for column in filled])
    yield _line(["--:" if column.numeric else ":--" for column in filled])
    for row in rows:
        yield _line([_cell(column, row) for column in filled])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(column: Column, row: Any) -> str:
    text = column.text(row).replace("~", "\\~")  # two of them would strike out what stands between
    return f"**{text}**" if verdict(column.speedup(row)) == "loss" else text
