"""What changed from one run to another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jaxcnnbp.bench.results import Results, Row, geometric_mean

# Two runs do not share their moments as two sides of one row do: less than this may be the machine.
NOTEWORTHY = 0.10


@dataclass(frozen=True)
class Change:
    """One row in two runs."""

    row: Row  # as it is now
    factor: float  # the time before over the time now: above 1 it became faster
    machine: float  # the same of autodiff, which nobody touched: what the machine did; 1 where it was not measured

    @property
    def own(self) -> float:
        """The change that the machine does not explain."""
        return self.factor / self.machine


def changed(now: Results, before: Results) -> Iterator[Change]:
    """The rows that both runs have."""
    older = {row.key: row for row in (*before.rows, *before.steps)}
    for row in (*now.rows, *now.steps):
        if row.key in older:
            yield Change(row, _ratio(older[row.key], row, "jaxcnnbp"), _ratio(older[row.key], row, "autodiff"))


def _ratio(before: Row, now: Row, side: str) -> float:
    if side not in before.times or side not in now.times:
        return 1.0
    return before.times[side].median / now.times[side].median


def changes(now: Results, before: Results) -> str:
    """The rows whose time changed by more than the machine explains, the worst first, and the mean of all.

    Autodiff is the measure of the machine: where it too became faster or slower, that part of a change is not ours.
    """
    found = sorted(changed(now, before), key=lambda change: change.own)
    if not found:
        return "Compared with the stored results: no row in common."
    own, machine = (geometric_mean([getattr(c, name) for c in found]) for name in ("own", "machine"))
    lines = [f"Compared with the stored results: {own:.2f}x as fast over {len(found)} rows; machine {machine:.2f}x."]
    if now.machine.get("cpu") != before.machine.get("cpu"):
        lines.append(f"The stored results are of another machine: {before.machine.get('cpu')}.")
    slower = [c for c in found if c.own < 1 - NOTEWORTHY]
    faster = [c for c in reversed(found) if c.own > 1 + NOTEWORTHY]
    for word, part in (("Slower", slower), ("Faster", faster)):
        listed = "; ".join(f"{c.row.name} {c.row.step} {c.own:.2f}x" for c in part)
        lines.append(f"{word} than before: {listed or 'nothing'}.")
    return "\n".join(lines)
