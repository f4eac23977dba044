"""The report as a page, readable by somebody who was not there, and as the table that notebooks show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcnnbp.audit import table
from jaxcnnbp.audit.plot import shown_axes, slice_of
from jaxcnnbp.pages import document, environment, packed, part

if TYPE_CHECKING:
    from jaxcnnbp.audit.finite import Slope
    from jaxcnnbp.audit.report import GradientReport, ReportRow

_PACKAGE = "jaxcnnbp.audit"
WORST = 20
# Of all pictures of a page, at most 4 MiB in its file; larger slices are cut to what is around the worst element.
CELLS = 600_000
_SHARED = """A gradient is right if each of its elements is as near to {truth} as rounding explains: that distance is
<b>allowed</b>, and the last column is the largest error in units of it, so that anything up to 1 is right."""
READ = f"""Every gradient below was computed three times: by the function's own hand-written rules (<b>manual</b>), by
JAX's <b>autodiff</b> of the same forward pass, and by an <b>oracle</b> that carries every float in float64 and shares
no code with the rules. {_SHARED.format(truth="the oracle's")}"""
READ_ALONE = f"""Every gradient below was computed twice: by the function's own hand-written rules (<b>manual</b>) and
by JAX's <b>autodiff</b> of the same forward pass, which stands in the oracle's place here.
{_SHARED.format(truth="autodiff's")}"""
READOUT = """<section class="card readout" aria-label="The number pointed at">
<p id="readout" aria-live="polite">Point at a picture to read its numbers.</p></section>"""


def page_of(report: GradientReport, title: str, command: str = "") -> str:
    """The whole page; `title` says what the function was, `command`, if it is not empty, what made the report."""
    lead = f'<p class="read">{READ if report.oracle else READ_ALONE}</p>'
    worst = "Of all gradients, by error in units of what is allowed."
    sections = [
        f"<header><h1>{escape(title)}</h1>{_verdict(report)}</header>",
        _section("How to read this", lead),
        _section("Gradients", _leaves(report.rows, "leaf"), "Press a heading to sort. A name leads to its pictures."),
        _section("Outputs of the function", _leaves(report.outputs)) if report.outputs else "",
        _section("The worst elements", _worst_elements(report), worst),
        _section("Notes", _notes(report)),
        *(_details(row, f"leaf-{number}") for number, row in enumerate(report.rows)),
        _section("Where and how", _environment(report, command)),
        READOUT,
    ]
    body = "\n".join(sections)
    styles = [part("pictures.css"), part("assets/report.css", _PACKAGE)]
    leaves = [_maps(row, CELLS // (3 * len(report.rows))) for row in report.rows]
    scripts = [part("pictures.js"), part("assets/report.js", _PACKAGE)]
    return document(title, body, styles=styles, scripts=scripts, data={"leaves": leaves})


def fragment_of(report: GradientReport) -> str:
    """What a notebook shows: title, the two tables, the notes; no script."""
    cell = 'style="text-align:{};white-space:nowrap"'

    def grid(columns: Sequence[table.ReportColumn], rows: Iterable[ReportRow]) -> str:
        sides = ["right" if column.numeric else "left" for column in columns]
        head = "".join(f"<th {cell.format(s)}>{escape(c.heading)}</th>" for c, s in zip(columns, sides, strict=True))
        lines = (
            "".join(f"<td {cell.format(s)}>{escape(c.text(row))}</td>" for c, s in zip(columns, sides, strict=True))
            for row in rows
        )
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"

    tables = "".join(grid(columns, report.rows) for columns in (table.ERRORS, table.WORST))
    return f"<div><p><b>{escape(table.title(report))}</b></p>{tables}{_notes(report)}</div>"


def _verdict(report: GradientReport) -> str:
    wrong = any(not row.ok and not row.unknown for row in (*report.rows, *report.outputs))
    kind, word = ("ok", "All right") if report.ok else ("wrong", "Wrong" if wrong else "It cannot be told")
    return f'<p><span class="{kind}">{word}.</span> {escape(table.title(report))}.</p>'


def _notes(report: GradientReport) -> str:
    return _paragraphs(*table.faults(report), *table.notes(report))


def _paragraphs(*sentences: str) -> str:
    return "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences if sentence)


def _section(heading: str, body: str, words: str = "") -> str:
    lead = f'<p class="quiet">{escape(words)}</p>' if words else ""
    return f'<section class="card" aria-label="{escape(heading)}"><h2>{escape(heading)}</h2>{lead}{body}</section>'


def _leaves(rows: Sequence[ReportRow], link: str = "") -> str:
    """The sortable table, names linked to their pictures; `data-value` is what a column is sorted by."""
    columns = [*table.ERRORS, table.ReportColumn("error / allowed", True, lambda row: f"{table.excess(row):.2g}")]
    lines = []
    for number, row in enumerate(rows):
        cells = [_cell(column, row, link and f"#{link}-{number}") for column in columns]
        lines.append(f'<tr class="{"" if row.ok else "fault"}">{"".join(cells)}</tr>')
    return _table(columns, lines)


def _cell(column: table.ReportColumn, row: ReportRow, target: str) -> str:
    text = escape(column.text(row))
    if column.heading == "":
        kind, word = ("ok", "right") if row.ok else ("wrong", "cannot tell" if row.unknown else "wrong")
        return f'<td data-value="{int(row.ok)}" class="{kind}">{word}</td>'
    if column.heading == "gradient of":
        name = escape(row.name)
        words = f'<a href="{target}">{name}</a>' if target else name
        return f'<th scope="row" data-value="{name}">{words}</th>'
    value = int(np.prod(row.shape)) if column.heading == "shape" else text
    return f'<td data-value="{value}"{" class=number" if column.numeric else ""}>{text}</td>'


def _table(columns: Sequence[table.ReportColumn], lines: Sequence[str]) -> str:
    heads = "".join(
        f'<th scope="col" class="{"number" if column.numeric else ""}" aria-sort="none"><button type="button">'
        f'{escape(column.heading or "verdict")}<span aria-hidden="true"></span></button></th>'
        for column in columns
    )
    grid = f'<table class="sortable"><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    return f'<div class="scroll" tabindex="0" role="region" aria-label="table">{grid}</div>'


def _worst_elements(report: GradientReport) -> str:
    """The elements that are furthest off, over all leaves."""
    found = sorted((element for row in report.rows for element in _elements(row)), key=lambda e: -e[0])[:WORST]
    columns = [table.ReportColumn(heading, numeric, str) for heading, numeric in _ELEMENT_HEADINGS]
    return _table(columns, [_element_line(*element) for element in found])


def _element_line(error: float, row: ReportRow, index: tuple[int, ...]) -> str:
    maps, name, place = row.maps, escape(row.name), table.index(index)
    by_jax = "-" if maps.autodiff is None else table.number(maps.autodiff[index].item())
    texts = [table.number(maps.manual[index].item()), by_jax, table.number(maps.oracle[index].item())]
    numbers = [*((text, text) for text in texts), (float(maps.allowed[index]), f"{maps.allowed[index]:.1e}")]
    numbers.append((error, f"{error:.2g}"))
    cells = "".join(f'<td class="number" data-value="{value}">{text}</td>' for value, text in numbers)
    first = f'<th scope="row" data-value="{name}">{name}</th><td data-value="{place}" class="mono">{place}</td>'
    return f'<tr class="{"fault" if error > 1 else ""}">{first}{cells}</tr>'


_ELEMENT_HEADINGS = (
    ("gradient of", False), ("index", False), ("manual", True), ("autodiff", True), ("oracle", True), ("allowed", True),
    ("error / allowed", True),
)  # fmt: skip


def _elements(row: ReportRow) -> list[tuple[float, ReportRow, tuple[int, ...]]]:
    errors = row.maps.excess()
    most = np.argsort(errors, axis=None)[::-1][:WORST]
    places = (tuple(map(int, np.unravel_index(at, errors.shape))) for at in most)
    return [(float(errors[place]), row, place) for place in places]


def _details(row: ReportRow, name: str) -> str:
    slope = "" if row.slope is None else _slope_sentence(row.slope)
    words = _paragraphs(row.verdict(), f"What is allowed here: {row.reason}.", slope)
    shape = "x".join(map(str, row.shape)) or "one number"
    name_of = escape(row.name)
    heading = f'<h2>{name_of} <span class="quiet">{shape} {escape(row.dtype)}</span></h2>'
    pictures = f"{words}<div class='pictures'></div>"
    return f'<section class="card leaf" id="{name}" aria-label="{name_of}">{heading}{pictures}</section>'


def _slope_sentence(slope: Slope) -> str:
    if not slope.smooth:
        return "The finite difference in a random direction met a kink and says nothing."
    verb = "agrees" if slope.agrees else "does not agree"
    return f"A finite difference in a random direction {verb} with the oracle."


def _maps(row: ReportRow, most: int) -> dict[str, Any]:
    """The slice through the worst element, as three pictures of at most so many cells."""
    parts = {
        "manual": np.real(row.maps.manual),
        "oracle": np.real(row.maps.oracle),
        "error / allowed": np.minimum(row.maps.excess(), np.finfo(np.float32).max),
    }
    slices = {name: slice_of(values, row) for name, values in parts.items()}
    cut = _around_worst(row, slices["oracle"].shape, most)
    words = _slice_words(row, slices["oracle"].shape, cut)
    return {"name": row.name, "pictures": [_picture(name, values[cut], words) for name, values in slices.items()]}


def _around_worst(row: ReportRow, shape: tuple[int, ...], most: int) -> tuple[slice, slice]:
    """What is shown of a slice: all of it, or `most` cells that are about a square with the worst element inside."""
    height = min(shape[0], max(1, math.isqrt(most)))
    width = min(shape[1], max(1, most // height))
    extents = min(shape[0], max(1, most // width)), width
    worst = () if row.worst is None else row.worst.index
    shown = shown_axes(row) if len(worst) > 2 else range(len(worst))
    place = (*[0] * (2 - len(shown)), *(worst[axis] for axis in shown))
    starts = (min(max(0, at - e // 2), n - e) for at, e, n in zip(place, extents, shape, strict=True))
    rows, columns = (slice(start, start + e) for start, e in zip(starts, extents, strict=True))
    return rows, columns


def _slice_words(row: ReportRow, shape: tuple[int, ...], cut: tuple[slice, slice]) -> str:
    """Which slice of the array the pictures show, and which part of it; "" for the whole."""
    words = ""
    if len(row.shape) > 2 and row.worst is not None:
        shown = shown_axes(row)
        words = f", the slice [{','.join(':' if a in shown else str(i) for a, i in enumerate(row.worst.index))}]"
    if tuple(part.stop - part.start for part in cut) != shape:
        rows, columns = (f"{part.start} .. {part.stop - 1}" for part in cut)
        words += f", of {'x'.join(map(str, shape))} only rows {rows}, columns {columns}, around the worst element"
    return words


def _picture(name: str, values: np.ndarray, where: str) -> dict[str, Any]:
    is_error = name == "error / allowed"
    largest = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
    # Pictures of errors share a scale, so that what is right looks quiet.
    look = {"limit": max(largest, 1.0) if is_error else largest, "scale": "magnitude" if is_error else "signed"}
    size = "x".join(map(str, values.shape)) + where
    return {"name": name, "size": size, "largest": largest, **look, **packed(values[None, None])}


def _environment(report: GradientReport, command: str) -> str:
    facts = {**environment(), "gradients ran on": report.platform, "seed of the probes": str(report.seed)}
    rows = "".join(f'<tr><th scope="row">{escape(k)}</th><td>{escape(v)}</td></tr>' for k, v in facts.items())
    made = f"<p>Made by:</p><pre>{escape(command)}</pre>" if command else ""
    return f'{made}<div class="scroll"><table>{rows}</table></div>'
