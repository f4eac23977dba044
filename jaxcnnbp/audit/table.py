"""The report as text: a plain table for `str`, a Rich one for terminals, from the same columns."""

from __future__ import annotations

import importlib.util
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxcnnbp.audit.cost import Cost

if TYPE_CHECKING:
    from jaxcnnbp.audit.report import GradientReport, ReportRow, Worst

SHORT = {
    "float64": "f64",
    "float32": "f32",
    "float16": "f16",
    "bfloat16": "bf16",
    "complex64": "c64",
    "complex128": "c128",
}
NAME_WIDTH = 26
PLAIN_WIDTH = 100
# Rules that a title names.
NAMED = 3


class ReportColumn(NamedTuple):
    """One column: its heading, whether numbers stand in it, and what it says of a row."""

    heading: str
    numeric: bool
    text: Callable[[ReportRow], str]


def number(value: complex, digits: int = 4) -> str:
    """A number in a few digits; complex ones with both parts."""
    if isinstance(value, complex):
        return f"{value.real:.{digits - 1}g}{value.imag:+.{digits - 1}g}i"
    return f"{value:.{digits}g}"


def apart(*values: complex) -> list[str]:
    """Numbers in as many digits as show that the first is not the last."""
    digits = next((d for d in range(4, 17) if number(values[0], d) != number(values[-1], d)), 4)
    return [number(value, digits) for value in values]


def three(worst: Worst) -> tuple[str, str, str]:
    """The values by hand, by autodiff ("-" where there is none) and by the oracle."""
    far = not abs(worst.manual - worst.oracle) <= worst.allowed
    known = (worst.manual, *(() if worst.autodiff is None else (worst.autodiff,)), worst.oracle)
    texts = apart(*known) if far else [number(value) for value in known]
    return texts[0], "-" if worst.autodiff is None else texts[1], texts[-1]


def index(place: Sequence[int]) -> str:
    """`[0,1,2]`."""
    return f"[{','.join(map(str, place))}]"


def excess(row: ReportRow) -> float:
    """The error of the worst element in units of what it may be off by."""
    return 0.0 if row.worst is None else float(row.maps.excess()[row.worst.index])


ERRORS = (
    ReportColumn("", False, lambda row: "ok" if row.ok else "?" if row.unknown else "NO"),
    ReportColumn("gradient of", False, lambda row: _name(row.name)),
    ReportColumn("shape", False, lambda row: "x".join(map(str, row.shape)) or "()"),
    ReportColumn("dtype", False, lambda row: SHORT.get(row.dtype, row.dtype)),
    ReportColumn("max abs", True, lambda row: f"{row.manual.max_abs:.1e}"),
    ReportColumn("max rel", True, lambda row: f"{row.manual.max_rel:.1e}"),
    ReportColumn("max ulp", True, lambda row: f"{row.manual.max_ulp:.3g}"),
    ReportColumn("1-cosine", True, lambda row: f"{1 - row.manual.cosine:.0e}"),
    ReportColumn("autodiff", True, lambda row: "-" if row.autodiff is None else f"{row.autodiff.max_abs:.1e}"),
)
WORST = (
    ReportColumn("worst of", False, lambda row: _name(row.name)),
    ReportColumn("index", False, lambda row: index(row.worst.index) if row.worst else "-"),
    ReportColumn("where", False, lambda row: (row.worst.place if row.worst else "") or "-"),
    ReportColumn("manual", True, lambda row: three(row.worst)[0] if row.worst else "-"),
    ReportColumn("autodiff", True, lambda row: three(row.worst)[1] if row.worst else "-"),
    ReportColumn("oracle", True, lambda row: three(row.worst)[2] if row.worst else "-"),
    ReportColumn("allowed", True, lambda row: f"{row.worst.allowed:.1e}" if row.worst else "-"),
)


def plain(report: GradientReport) -> str:
    """The whole report in plain text: what is wrong, tables of about 80 columns, sentences of at most 100."""
    first, last = (_wrapped(lines) for lines in ([title(report), *faults(report)], notes(report)))
    return "\n\n".join([first, _grid(ERRORS, report.rows), _grid(WORST, report.rows), last])


def _wrapped(lines: Sequence[str]) -> str:
    return "\n".join(textwrap.fill(line, PLAIN_WIDTH) for line in lines)


def rich(report: GradientReport) -> Any:
    """The whole report for Rich; plain text where Rich is absent."""
    if importlib.util.find_spec("rich") is None:
        return plain(report)
    from rich.console import Group
    from rich.text import Text

    tables = [_rich_table(columns, report.rows) for columns in (ERRORS, WORST)]
    colour = "bold green" if report.ok else "bold red"
    first, last = (map(Text, lines) for lines in (faults(report), notes(report)))
    return Group(Text(title(report), style=colour), *first, "", tables[0], "", tables[1], "", *last)


def _rich_table(columns: Sequence[ReportColumn], rows: Sequence[ReportRow]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column.heading, justify="right" if column.numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(column.text(row)) for column in columns), style="" if row.ok else "bold red")
    return table


def _grid(columns: Sequence[ReportColumn], rows: Sequence[ReportRow]) -> str:
    cells = [
        [column.heading for column in columns],
        *([column.text(row) for column in columns] for row in rows),
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "\n".join(_line(line, widths, columns) for line in cells)


def _line(texts: Sequence[str], widths: Sequence[int], columns: Sequence[ReportColumn]) -> str:
    fitted = [t.rjust(w) if c.numeric else t.ljust(w) for t, w, c in zip(texts, widths, columns, strict=True)]
    return " ".join(fitted).rstrip()


def _name(name: str) -> str:
    """The end of a long path: that is where leaves differ."""
    return name if len(name) <= NAME_WIDTH else f"..{name[2 - NAME_WIDTH :]}"


def title(report: GradientReport) -> str:
    """The verdict in one line."""
    right = sum(row.ok for row in report.rows)
    against = "a float64 oracle" if report.oracle else "autodiff"
    against = "finite differences" if report.no_oracle else against
    unknown = sum(row.unknown for row in report.rows)
    count = f"{right} of {len(report.rows)} right" + (f", of {unknown} it cannot be told" if unknown else "")
    if not report.rules:
        return f"No hand-written rule is called: autodiff against {against}, on {report.platform}: {count}"
    more = f" and {len(report.rules) - NAMED} more" if len(report.rules) > NAMED else ""
    which = f"{', '.join(f'`{name}`' for name in report.rules[:NAMED])}{more}"
    rules = "rule" if len(report.rules) == 1 else "rules"
    return f"Gradients: {count}, by the hand-written {rules} of {which}, against {against}, on {report.platform}"


def notes(report: GradientReport) -> list[str]:
    """Sentences on what the tables do not show."""
    excused = [row.verdict() for row in report.rows if row.ok and row.excuse]
    found = [
        *excused,
        _oracle_note(report),
        f"Autodiff has no gradient here: {report.no_autodiff}" if report.no_autodiff else "",
        _output_note(report),
        _slope_note(report),
        _tie_note(report),
        _cost_note(report.cost),
    ]
    return [note for note in found if note]


def faults(report: GradientReport) -> list[str]:
    """A sentence on each array that is not right; what wrong elements were allowed to be off by, once; which of several
    rules is wrong, if one is alone; and what a rule needs that is meant to differ.
    """
    off = [row for row in (*report.outputs, *report.rows) if not row.ok]
    wrong = [row for row in off if not row.unknown]
    allowed = [f"Allowed: {reason}." for reason in dict.fromkeys(row.reason for row in wrong if row.wrong)]
    each = [f"`{rule}` makes {', '.join(f'`{leaf}`' for leaf in of)} wrong" for rule, of in report.blamed.items()]
    blame = [f"By itself, without the other rules, {', and '.join(each)}."] if each else []
    meant = [MEANT] if wrong and report.rules and not report.given else []
    return [*(row.verdict() for row in off), *blame, *allowed, *meant]


MEANT = (
    "If that is meant to differ from the derivative of the function as written (straight-through, clipping, a"
    " continuous adjoint), pass `reference`, or `tolerance`."
)


def some(count: int, size: int) -> str:
    """So many of the elements of an array are, or is."""
    whole = "it" if size == 1 else f"{count} of {size} elements"
    return f"{whole} {'is' if count == 1 else 'are'}"


def _oracle_note(report: GradientReport) -> str:
    if not report.no_oracle:
        return ""
    return (
        "No oracle: finite differences judge, of up to 64 elements of each leaf and along random directions; that is"
        " weaker (0.01 % of the element), and `reference`, a function of the same meaning that JAX can differentiate,"
        f" would be judged by in full. JAX says: {report.no_oracle}"
    )


def _output_note(report: GradientReport) -> str:
    if report.no_oracle or not report.outputs or not all(row.ok for row in report.outputs):
        return ""
    return f"Forward: outputs agree, max rel {max(row.manual.max_rel for row in report.outputs):.1e}."


def _slope_note(report: GradientReport) -> str:
    slopes = {row.name: row.slope for row in report.rows if row.slope is not None}
    if not slopes:
        return ""
    off = [name for name, slope in slopes.items() if slope.agrees is False]
    smooth = sum(slope.smooth for slope in slopes.values())
    note = f"Finite differences: the oracle agrees along {smooth - len(off)} of {smooth} smooth directions"
    note += f" ({len(slopes) - smooth} more meet a kink)" if smooth < len(slopes) else ""
    if off:
        note += f", but not for {', '.join(off)}"
    return f"{note}."


def _tie_note(report: GradientReport) -> str:
    listed = ", ".join(f"{what}: {count}" for what, count in report.ties.items())
    return f"Ties and kinks: {listed}." if listed else "Ties and kinks: none met."


def _cost_note(cost: Cost | None) -> str:
    if cost is None:
        return ""
    manual, autodiff = _seconds(cost.manual_seconds), _seconds(cost.autodiff_seconds)
    times = f"Time of a gradient: manual {manual}, autodiff {autodiff}"
    ratio = f" ({cost.autodiff_seconds / max(cost.manual_seconds, 1e-12):.2f} x), median of {cost.rounds}."
    if cost.manual_bytes is None or cost.autodiff_bytes is None:
        return times + ratio
    memory = f" Temporary memory: manual {_bytes(cost.manual_bytes)}, autodiff {_bytes(cost.autodiff_bytes)}."
    return times + ratio + memory


def _seconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"


def _bytes(count: int) -> str:
    return f"{count / 2**20:.2f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"
