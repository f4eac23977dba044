"""Which row of a pass's tables serves a convolution, by measurement or because `implementation` asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jax
from jax.export import is_symbolic_dim

from jaxcnnbp.errors import InputError
from jaxcnnbp.ops.conv.problem import Form, Layer, Row, Spread

DEFAULT = "the default where nothing was measured to be faster"


@dataclass(frozen=True)
class Pass:
    """One of the three passes of a convolution, with everything that can compute it.

    Attributes:
      name: `"forward"`, `"input grad"` or `"kernel grad"`.
      on_cpu: the table for one CPU.
      on_several: that for arrays which may lie on several.
      on_cuda: that for an NVIDIA GPU.
      by_name: what serves only where it is asked for.
      lax_form: lax's own convolution.
    """

    name: str
    on_cpu: tuple[Row, ...]
    on_several: tuple[Row, ...]
    on_cuda: tuple[Row, ...]
    by_name: tuple[Row, ...]
    lax_form: Form

    @cached_property
    def by_lax(self) -> Row:
        """The default where no table has a row; XLA lays a convolution wrongly over several devices."""
        return Row(self.lax_form, DEFAULT, lambda _: True, alone=True, uncounted=True)

    @property
    def rows(self) -> tuple[Row, ...]:
        """All of them, those for one CPU first."""
        return (*self.on_cpu, *self.on_several, *self.on_cuda, *self.by_name, self.by_lax)


class Served(NamedTuple):
    """What serves one pass of one convolution on each platform."""

    on_cpu: Row
    exact: Row  # on a CPU where numbers are not finite, if `on_cpu` is mended
    on_cuda: Row
    elsewhere: Row


def served(of: Pass, layer: Layer, whole: bool, asked: str | None, platform: str | None = None) -> Served:
    """The rows that serve, by `asked` if it has any for this pass.

    `whole` is whether the arrays may lie on several devices. Raises InputError if `asked` has rows for this pass, but
    none for this convolution.
    """
    row, exact = chosen_rows(of.on_cpu, layer, whole)
    otherwise = next(row for row in of.on_several if row.fits(layer)) if whole else of.by_lax
    on_cuda = next((row for row in of.on_cuda if row.fits(layer) and row.pays(layer)), of.by_lax)
    default = Served(row or otherwise, exact or otherwise, on_cuda, of.by_lax)
    if asked is None or not any(row.name == asked for row in of.rows):
        return default
    found = next((row for row in supporting(of, layer, whole, platform) if row.name == asked), None)
    if found is None:
        raise InputError(_refusal(of, layer, whole, asked, platform))
    if asked == "xla":
        return default._replace(on_cpu=found, on_cuda=of.by_lax)
    return Served(found, default.exact, found, found)


def supporting(of: Pass, layer: Layer, whole: bool, platform: str | None = None) -> list[Row]:
    """The rows that mean this pass of the convolution, fast or not, on the default platform if None."""
    platform = {"gpu": "cuda"}.get(name := platform or jax.default_backend(), name)
    return [
        row
        for row in of.rows
        if row.fits(layer)
        and _is_counted(row, layer)
        and not (whole and row.alone)
        and (row.spreads is Spread.NOWHERE or not (whole or layer.geometry.exact))
        and row.platform in (None, platform)
    ]


def chosen_rows(table: tuple[Row, ...], layer: Layer, whole: bool) -> tuple[Row | None, Row | None]:
    """The row that serves, and the one that does where numbers are not finite; None where lax's form does.

    `whole` is whether the arrays may lie on several devices, where a look through all numbers is an exchange.
    """
    rows = [row for row in table if _serves(row, layer) and not (row.alone and whole)]
    exact = next((row for row in rows if row.spreads is Spread.NOWHERE), None)
    return (exact if whole or layer.geometry.exact else next(iter(rows), None)), exact


def _serves(row: Row, layer: Layer) -> bool:
    return _is_counted(row, layer) and row.fits(layer) and row.pays(layer)


def _is_counted(row: Row, layer: Layer) -> bool:
    """Forms that go over blocks of images need to know how many there are; under `jax.export` that may be a symbol."""
    return row.uncounted or not is_symbolic_dim(layer.images)


def _refusal(of: Pass, layer: Layer, whole: bool, asked: str, platform: str | None) -> str:
    window = layer.geometry.window
    size, stride = ("x".join(map(str, each)) or "1" for each in (window.size, window.stride))
    names = dict.fromkeys(row.name for row in supporting(of, layer, whole, platform))
    devices = ", whose arrays may lie on several devices" if whole else ""
    return (
        f"`implementation` (={asked!r}) must have a form for the {of.name} pass of this convolution (window {size},"
        f" stride {stride}, groups={layer.geometry.groups}, {layer.depth} to {layer.width} channels in each){devices};"
        f" use one of {', '.join(map(repr, names))}, or None."
    )
