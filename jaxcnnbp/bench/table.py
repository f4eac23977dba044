"""Results for a terminal: one Rich table, the geometric means, and the losses by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jaxcnnbp.bench.results import Results, Row, geometric_mean, losses, speedups
from jaxcnnbp.bench.timing import Timing
from jaxcnnbp.train.errors import require

__all__ = ["factor", "headline", "loss_lines", "mean_lines", "milliseconds", "tables"]

NOISY = 0.1  # quartiles further apart than this fraction of the median are marked
WIDTH = 120
_OTHERS = {"autodiff": "autodiff", "torch": "PyTorch"}


def tables(results: Results) -> Iterator[Any]:
    """What a console prints one after the other."""
    yield headline(results)
    for title, rows in (("Layers", results.rows), ("Training steps", results.steps)):
        if rows:
            yield _table(title, rows)
    yield "\n".join((*mean_lines(results), *loss_lines(results)))


def headline(results: Results) -> str:
    """The machine, the versions, the limit and the self-check."""
    m, v = results.machine, results.versions
    shown = ", ".join(f"{name} {v[name]}" for name in ("jaxcnnbp", "jax", "torch", "flax") if name in v)
    limits = "; ".join(
        f"{limit.gflops:.0f} GFLOP/s {dtype} matmul, {limit.gbytes:.0f} GB/s copy"
        for dtype, limit in results.limit.items()
    )
    return (
        f"{m['cpu']}, {m['cores']} cores, {m['memory_gib']} GiB, {m['os']}, on {m['platform']}; {shown}\n"
        f"Limit: {limits}.\n{results.self_check}"
    )


def _table(title: str, rows: Sequence[Row]) -> Any:
    rich = require("rich.table", "Rich", "cli")
    box = require("rich.box", "Rich", "cli")
    table = rich.Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left", pad_edge=False)
    columns = [column for column in _COLUMNS if any(column[2](row) for row in rows)]
    for heading, justify, _ in columns:
        table.add_column(heading, justify=justify, no_wrap=True)
    previous = ""
    for row in rows:
        cells = [text(row) for _, _, text in columns]
        table.add_row(*["" if row.case == previous else cells[0], *cells[1:]])
        previous = row.case
    return table


def milliseconds(timing: Timing | None) -> str:
    """Three digits, and a tilde where the quartiles are far apart."""
    if timing is None:
        return "-"
    value = 1e3 * timing.median
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    text = f"{value:.{digits}f}"
    return f"~{text}" if timing.spread > NOISY else text


def factor(value: float | None) -> str:
    """`8.1x`."""
    if value is None:
        return "-"
    return f"{value:.0f}x" if value >= 100 else f"{value:.1f}x" if value >= 10 else f"{value:.2f}x"


def _coloured(value: float | None) -> str:
    if value is None:
        return "-"
    style = "red" if value < 0.95 else "green" if value > 1.05 else "default"
    return f"[{style}]{factor(value)}[/]"


def _pair(of: dict[str, Any], show: Callable[[Any], str]) -> str:
    if not of:
        return ""
    return "/".join(show(of[side]) if side in of else "-" for side in ("jaxcnnbp", "autodiff"))


def _mib(count: int) -> str:
    value = count / 2**20
    return "0" if count == 0 else f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 0.1 else "<.1"


_COLUMNS: tuple[tuple[str, Any, Callable[[Row], str]], ...] = (
    ("layer", "left", lambda row: row.case),
    ("pass", "left", lambda row: row.step),
    ("ms", "right", lambda row: milliseconds(row.times["jaxcnnbp"])),
    ("autodiff", "right", lambda row: milliseconds(row.times.get("autodiff"))),
    ("speedup", "right", lambda row: _coloured(row.speedup("autodiff"))),
    ("PyTorch", "right", lambda row: milliseconds(row.times.get("torch"))),
    ("speedup", "right", lambda row: _coloured(row.speedup("torch"))),
    ("own nn", "right", lambda row: milliseconds(row.times["nn"]) if "nn" in row.times else ""),
    ("limit", "right", lambda row: "" if row.roofline_fraction is None else f"{row.roofline_fraction:.0%}"),
    ("temp MiB", "right", lambda row: _pair(row.temp_bytes, _mib)),
    ("kept MiB", "right", lambda row: _pair(row.residual_bytes, _mib)),
    ("compile s", "right", lambda row: _pair(row.compile_s, lambda s: f"{s:.2f}")),
)


def mean_lines(results: Results) -> Iterator[str]:
    """Geometric means by pass, of convolutions, pools and models."""
    groups = {
        "convolutions": [row for row in results.rows if not _is_pool(row)],
        "pools": [row for row in results.rows if _is_pool(row)],
        "training steps": list(results.steps),
    }
    for name, rows in groups.items():
        for step in dict.fromkeys(row.step for row in rows):
            parts = [_mean(rows, step, side) for side in _OTHERS]
            yield f"Geometric mean of speedups, {name}, {step}: {', '.join(filter(None, parts)) or 'none'}."


def _is_pool(row: Row) -> bool:
    return ", max " in row.layer or ", mean " in row.layer


def _mean(rows: Sequence[Row], step: str, side: str) -> str:
    values = speedups(rows, side, step)
    return f"{factor(geometric_mean(values))} over {_OTHERS[side]} ({len(values)} rows)" if values else ""


def loss_lines(results: Results) -> Iterator[str]:
    """Every row in which somebody else is faster, and every side that could not be measured."""
    everything = (*results.rows, *results.steps)
    for side, name in _OTHERS.items():
        slower = losses(everything, side)
        if slower:
            listed = (f"{row.case} {row.step} {factor(row.speedup(side))}" for row in slower)
            yield f"Slower than {name}: {'; '.join(listed)}."
        elif any(side in row.times for row in everything):
            yield f"Slower than {name}: nothing."
    for row in everything:
        for side, note in row.notes.items():
            yield f"No {_OTHERS[side]} for {row.case} {row.step}: {note}"
