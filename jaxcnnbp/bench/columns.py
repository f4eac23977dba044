"""What a table of results shows, for terminals and for documents alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from jaxcnnbp.bench.results import LOOP, LOSS, STEP, Results, Row, geometric_mean, losses, speedups
from jaxcnnbp.timing import Timing

NOISY = 0.1  # quartiles further apart than this fraction of the median are marked
OTHERS = {"autodiff": "autodiff", "torch": "PyTorch"}


class Column(NamedTuple):
    """One column: its heading in two lines, whether numbers stand in it, its text, and the speedup that colours it."""

    heading: str
    numeric: bool
    text: Callable[[Any], str]
    speedup: Callable[[Any], float | None] = lambda _: None


def milliseconds(timing: Timing | None) -> str:
    """Three digits, and a tilde where the quartiles are far apart.

    Example:
      >>> milliseconds(Timing(median=0.01234, low=0.0123, high=0.0124, calls=9))
      '12.3'
    """
    if timing is None:
        return "-"
    value = 1e3 * timing.median
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"~{value:.{digits}f}" if timing.spread > NOISY else f"{value:.{digits}f}"


def factor(value: float | None) -> str:
    """Three digits.

    Example:
      >>> factor(8.125), factor(130.4), factor(None)
      ('8.12', '130', '-')
    """
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def verdict(value: float | None) -> str:
    """In a word, whether a speedup is one: "loss", "gain", or "" for what may be noise.

    Example:
      >>> verdict(0.5), verdict(1.01), verdict(2.0)
      ('loss', '', 'gain')
    """
    if value is None:
        return ""
    return "loss" if value < LOSS else "gain" if value > 1 / LOSS else ""


def _pair(of: dict[str, Any], show: Callable[[Any], str]) -> str:
    """By this package and by autodiff."""
    return "/".join(show(of[side]) if side in of else "-" for side in ("jaxcnnbp", "autodiff")) if of else ""


def _short(value: float) -> str:
    return "0" if value == 0 else f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 0.05 else "<.1"


def _torch_factor(row: Row) -> str:
    return factor(row.speedup("torch")) if "torch" in row.times else ""


COLUMNS = (
    Column("layer", False, lambda row: row.name),
    Column("pass", False, lambda row: row.step),
    Column("served by", False, lambda row: row.implementation if "," not in row.implementation else ""),
    Column("ours\nms", True, lambda row: milliseconds(row.times["jaxcnnbp"])),
    Column("autodiff\nms", True, lambda row: milliseconds(row.times.get("autodiff"))),
    Column("times\nfaster", True, lambda row: factor(row.speedup("autodiff")), lambda row: row.speedup("autodiff")),
    Column("own nn\nms", True, lambda row: milliseconds(row.times["nn"]) if "nn" in row.times else ""),
    Column("alone\nms", True, lambda row: milliseconds(row.times["alone"]) if "alone" in row.times else ""),
    Column("PyTorch\nms", True, lambda row: milliseconds(row.times["torch"]) if "torch" in row.times else ""),
    Column("times\nfaster", True, _torch_factor, lambda row: row.speedup("torch")),
    Column("of\nlimit", True, lambda row: f"{row.roofline_fraction:.0%}" if row.roofline_fraction else ""),
    Column("temp\nMiB", True, lambda row: _pair(row.temp_bytes, lambda count: _short(count / 2**20))),
    Column("kept\nMiB", True, lambda row: _pair(row.residual_bytes, lambda count: _short(count / 2**20))),
    Column("compile\ns", True, lambda row: _pair(row.compile_s, _short)),
)


class Mean(NamedTuple):
    """A geometric mean over all rows of a kind in one pass."""

    kind: str
    step: str
    autodiff: float | None
    torch: float | None
    bound: float | None
    rows: int


MEANS = (
    Column("times faster\ngeometric mean", False, lambda mean: mean.kind),
    Column("pass", False, lambda mean: mean.step),
    Column("than\nautodiff", True, lambda mean: factor(mean.autodiff), lambda mean: mean.autodiff),
    Column("than\nPyTorch", True, lambda mean: factor(mean.torch), lambda mean: mean.torch),
    Column("limit than\nautodiff", True, lambda mean: factor(mean.bound)),
    Column("rows", True, lambda mean: str(mean.rows)),
)


def means(results: Results) -> Iterator[Mean]:
    """Geometric means of the speedups by dtype and pass: of convolutions, pools, and training steps."""
    kinds: dict[str, list[Row]] = {}
    for row in sorted((*results.rows, *results.steps), key=lambda row: (row.suffix, _kind(row))):
        kinds.setdefault(f"{_kind(row)}{row.suffix}", []).append(row)
    for kind, rows in kinds.items():
        for step in dict.fromkeys(row.step for row in rows):
            here = [row for row in rows if row.step == step]
            bounds = [row.bound for row in here if row.bound is not None]
            yield Mean(kind, step, _mean(here, "autodiff"), _mean(here, "torch"), _mean_of(bounds), len(here))


def _kind(row: Row) -> str:
    """In the order of the alphabet, which is that of the table."""
    if row.step.endswith((STEP, LOOP)):
        return "training steps"
    return "pools" if ", max " in row.layer or ", mean " in row.layer else "convolutions"


def _mean(rows: Sequence[Row], side: str) -> float | None:
    return _mean_of(speedups(rows, side))


def _mean_of(values: Sequence[float]) -> float | None:
    return geometric_mean(values) if values else None


def headline(results: Results) -> Iterator[str]:
    """The machine, the versions and the limit."""
    m, v = results.machine, results.versions
    shown = ", ".join(f"{name} {v[name]}" for name in ("jaxcnnbp", "jax", "torch", "flax") if name in v)
    device = "" if m["platform"] == "cpu" else f"{m['device']}; "
    yield f"{device}{m['cpu']}, {m['cores']} cores, {m['memory_gib']} GiB, {m['os']}; {shown}."
    for dtype, limit in results.limit.items():
        yield f"Limit, {dtype}: {limit.gflops:.0f} GFLOP/s (matrix product), {limit.gbytes:.0f} GB/s (copy)."


def loss_lines(results: Results) -> Iterator[str]:
    """Every row in which somebody else is faster, and every side that could not be measured."""
    everything = (*results.rows, *results.steps)
    for side, name in OTHERS.items():
        slower = losses(everything, side)
        listed = "; ".join(f"{row.name} {row.step} {factor(row.speedup(side))}" for row in slower)
        if any(side in row.times for row in everything):
            yield f"Slower than {name} ({len(slower)}): {listed or 'nothing'}."
    missing: dict[tuple[str, str, str], list[str]] = {}
    for row in everything:
        for side, note in row.notes.items():
            missing.setdefault((side, row.name, note), []).append(row.step)
    for (side, case, note), steps in missing.items():
        yield f"No {OTHERS.get(side, side)} for {case} ({', '.join(steps)}): {note}"
