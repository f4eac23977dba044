"""One number of a result, and the products that make it, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jaxcnnbp.explain.contacts import Contact, short
from jaxcnnbp.geometry.window import Ints

if TYPE_CHECKING:
    from jaxcnnbp.explain.explanation import Explanation

FEW_TERMS = 32


@dataclass(frozen=True)
class Sum:
    """One number and how it comes about."""

    name: str  # of the array it belongs to: "y", "dk" or "dx"
    index: Ints  # where in its map
    contacts: tuple[Contact, ...]  # the meetings of outputs, taps and input cells that take part
    expression: str  # the calculation, such as "3·2 + 1·-1"
    total: float  # the number, as the package computed it

    def __str__(self) -> str:
        place = ",".join(map(str, self.index))
        return f"{self.name}[{place}] = {self.expression} = {short(self.total)}"


def sum_of(shown: Explanation, name: str, index: Ints, maps: tuple[int, int] = (0, 0)) -> Sum:
    """How `name`, one of y, dk, dx, comes about at `index`, between input map `maps[0]` and output map `maps[1]`."""
    array = shown.arrays[name]
    if len(index) != shown.window.rank or any(not 0 <= i < n for i, n in zip(index, array.shape, strict=False)):
        raise ValueError(f"`index` (={index}) must lie inside {name}, {array.shape[: shown.window.rank]}.")
    own = {"y": lambda c: c.output, "dk": lambda c: c.tap, "dx": lambda c: c.cell}[name]
    met = tuple(c for c in shown.contacts if c.cell is not None and own(c) == index)
    write = {"max-pool": _of_max, "mean-pool": _of_mean}.get(shown.kind, _of_convolution)
    place = {"y": (maps[1],), "dk": maps, "dx": (maps[0],)}[name]
    return Sum(name, index, met, write(shown, name, met, maps), float(array[(*index, *place)]))


def _of_convolution(shown: Explanation, name: str, met: tuple[Contact, ...], maps: tuple[int, int]) -> str:
    x, kernel, delta = (shown.arrays[part] for part in ("x", "kernel", "delta"))
    i, j = maps
    inputs = range(kernel.shape[-2]) if name == "y" else (i,)
    outputs = range(kernel.shape[-1]) if name == "dx" else (j,)
    factors = {
        "y": lambda c, i, j: (x[(*_cell(c), i)], kernel[(*c.tap, i, j)]),
        "dk": lambda c, i, j: (x[(*_cell(c), i)], delta[(*c.output, j)]),
        "dx": lambda c, i, j: (delta[(*c.output, j)], kernel[(*c.tap, i, j)]),
    }[name]
    return _joined([_product(*factors(c, i, j)) for c in met for i in inputs for j in outputs])


def _of_max(shown: Explanation, name: str, met: tuple[Contact, ...], maps: tuple[int, int]) -> str:
    x, delta, channel = shown.arrays["x"], shown.arrays["delta"], maps[0]
    if name == "y":
        return f"max({', '.join(short(x[(*_cell(c), channel)]) for c in met)})" if met else "nothing to choose from"
    won = [(c, holders) for c in met if c in (holders := winners_of(shown, c.output, channel))]
    split = shown.settings["ties"] == "split"
    parts = [f"{_signed(delta[(*c.output, channel)])}{f'/{len(h)}' if split and len(h) > 1 else ''}" for c, h in won]
    lost = f", it lost in {len(met) - len(won)} windows" if len(won) < len(met) else ""
    return (_joined(parts) if parts else "0") + lost


def winners_of(shown: Explanation, output: Ints, channel: int) -> list[Contact]:
    """The meetings that hold the maximum of one window, by the tie rule."""
    x = shown.arrays["x"]
    met = [c for c in shown.contacts if c.output == output and c.cell is not None]
    values = np.array([x[(*_cell(c), channel)] for c in met])
    if not met:
        return []
    is_nan = np.isnan(values)
    holders = np.flatnonzero(is_nan if is_nan.any() else values == values.max())
    if shown.settings["ties"] == "first":
        holders = holders[-1:] if is_nan.any() else holders[:1]
    return [met[h] for h in holders]


def _of_mean(shown: Explanation, name: str, met: tuple[Contact, ...], maps: tuple[int, int]) -> str:
    x, delta, channel = shown.arrays["x"], shown.arrays["delta"], maps[0]
    if not met:
        return "no cell"
    if name == "y":
        sum_ = _joined([_signed(x[(*_cell(c), channel)]) for c in met])
        return f"({sum_}) / {shown.cells[met[0].output]}"
    return _joined([f"{_signed(delta[(*c.output, channel)])}/{shown.cells[c.output]}" for c in met])


def _cell(contact: Contact) -> Ints:
    return contact.cell or ()


def _product(a: float, b: float) -> str:
    return f"{_signed(a)}·{_signed(b)}"


def _signed(value: float) -> str:
    return f"({short(value)})" if value < 0 else short(value)


def _joined(terms: list[str]) -> str:
    if len(terms) > FEW_TERMS:
        return f"{' + '.join(terms[:FEW_TERMS])} + {len(terms) - FEW_TERMS} more"
    return " + ".join(terms) or "0, nothing meets it"
