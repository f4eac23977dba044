"""The one parser of what users say about windows."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, cast

from jax.export import is_symbolic_dim

from jaxcnnbp.geometry.window import Ints, Pairs, Window, at_least_0

Padding = str | int | Sequence[int | tuple[int, int]]

PADDING_WORDS = ("VALID", "SAME", "SAME_LOWER", "FULL")


def per_axis(value: Any, rank: int, name: str, minimum: int = 1) -> Ints:
    """`value`, an int or one int an axis, as a tuple of `rank` ints of at least `minimum`."""
    many = (value,) * rank if _is_int(value) else value
    if not isinstance(many, Sequence) or isinstance(many, str) or not all(map(_is_int, many)):
        raise TypeError(f"`{name}` (={value!r}) must be an int, or a sequence of {rank} ints, one a spatial axis.")
    if len(many) != rank:
        raise ValueError(f"`{name}` (={value!r}) has {len(many)} entries; give one int, or {rank}, one a spatial axis.")
    if any(v < minimum for v in many):
        raise ValueError(f"`{name}` (={value!r}) must be at least {minimum} on every axis.")
    return tuple(map(operator.index, many))


def require_count(value: Any, name: str) -> None:
    """Refuses what is no number of things."""
    if not _is_int(value) or value < 1:
        raise ValueError(f"`{name}` (={value!r}) must be an int of at least 1.")


def parse_padding(padding: Any, spatial: Ints, extent: Ints, stride: Ints, name: str = "padding") -> Pairs:
    """`padding` as `(low, high)` an axis, for windows of `extent`, dilation included, over `spatial` extents."""
    if isinstance(padding, str):
        return _padding_of_word(padding, spatial, extent, stride, name)
    rank = len(spatial)
    if _is_int(padding):
        return ((operator.index(padding), operator.index(padding)),) * rank
    if not isinstance(padding, Sequence):
        raise TypeError(f"`{name}` (={padding!r}) must be a word, an int, or one int or (low, high) pair an axis.")
    if len(padding) != rank:
        raise ValueError(f"`{name}` (={padding!r}) has {len(padding)} entries; give {rank}, one a spatial axis.")
    return tuple(_pair(entry, padding, name) for entry in padding)


def window_of(
    spatial: Ints,
    size: Any,
    *,
    stride: Any = 1,
    padding: Any = "VALID",
    dilation: Any = 1,
    input_dilation: Any = 1,
    ceil_mode: bool = False,
    names: dict[str, str] | None = None,
) -> Window:
    """The `Window` of what a user said; `names` maps a field to the user's name for it in messages."""
    named = {"size": "window_shape", "stride": "stride", "padding": "padding", "dilation": "dilation"}
    named |= {"input_dilation": "lhs_dilation"} | (names or {})
    rank = len(spatial)
    size = per_axis(size, rank, named["size"])
    stride = per_axis(stride, rank, named["stride"])
    dilation = per_axis(dilation, rank, named["dilation"])
    gaps = per_axis(input_dilation, rank, named["input_dilation"])
    unpadded = Window(tuple(spatial), size, stride, ((0, 0),) * rank, dilation, gaps)
    pairs = parse_padding(padding, unpadded.dilated, unpadded.extent, stride, named["padding"])
    window = Window(tuple(spatial), size, stride, pairs, dilation, gaps, ceil_mode)
    if not ceil_mode:
        return window
    require_numbers(window, "`ceil_mode` (=True)", "pad the input instead")
    return _require_no_cropped_cell(window, named["padding"])


def require_output(window: Window, name: str) -> Window:
    """`window`, or an error if it fits nowhere on the padded input; over a symbol, only the call may tell."""
    for axis, (extent, count) in enumerate(zip(window.extent, window.output, strict=True)):
        if not is_symbolic_dim(count) and count < 1:
            padded = window.dilated[axis] + sum(window.padding[axis])
            raise ValueError(
                f"`{name}` (={window.size}) spans {extent} positions on spatial axis {axis} (dilation"
                f" {window.dilation[axis]}) but the padded input has {max(padded, 0)}; use a smaller window, less"
                " dilation or more padding."
            )
    return window


def require_numbers(window: Window, said: str, instead: str) -> None:
    """Refuses what has to know the extents where they are symbols; `said` is the argument and its value."""
    if over_symbols(window):
        shown = ", ".join(map(str, window.spatial))
        raise ValueError(
            f"{said} needs spatial extents that are numbers, not symbols of `jax.export`, here ({shown}); {instead}."
        )


def over_symbols(window: Window) -> bool:
    """Whether an extent that windows move over is a symbol of `jax.export`, or padding of it."""
    return not sized_by_ints((*window.spatial, *chain(*window.padding)))


def sized_by_ints(extents: Iterable[Any]) -> bool:
    """Whether every extent is a number, and no symbol of `jax.export`."""
    return not any(map(is_symbolic_dim, extents))


def _require_no_cropped_cell(window: Window, name: str) -> Window:
    for axis, ((_, high), (_, reached)) in enumerate(zip(window.padding, window.reach, strict=True)):
        if high < 0 and reached > high:
            raise ValueError(
                f"`{name}` (={window.padding}) crops the end of spatial axis {axis}, where a partial window of"
                " `ceil_mode` would read; crop the input before the pool instead."
            )
    return window


def _is_int(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool) and getattr(value, "ndim", 0) == 0


def _is_extent(value: Any) -> bool:
    return is_symbolic_dim(value) or _is_int(value)


def _pair(entry: Any, padding: Any, name: str) -> tuple[int, int]:
    pair = (entry, entry) if _is_extent(entry) else entry
    if isinstance(pair, Sequence) and len(pair) == 2 and all(map(_is_extent, pair)):
        low, high = (value if is_symbolic_dim(value) else operator.index(value) for value in pair)
        return cast(int, low), cast(int, high)
    raise TypeError(f"`{name}` (={padding!r}) has the entry {entry!r}; an entry must be an int or a (low, high) pair.")


def _padding_of_word(word: str, spatial: Ints, extent: Ints, stride: Ints, name: str) -> Pairs:
    upper = word.upper()
    if upper == "VALID":
        return ((0, 0),) * len(spatial)
    if upper == "FULL":
        return tuple((e - 1, e - 1) for e in extent)
    if upper not in PADDING_WORDS:
        raise ValueError(f"`{name}` (={word!r}) is unknown; use one of {', '.join(PADDING_WORDS)}, an int, or pairs.")
    totals = [at_least_0((-(-n // s) - 1) * s + e - n) for n, e, s in zip(spatial, extent, stride, strict=True)]
    smaller_half_first = upper == "SAME"
    return tuple((t // 2, t - t // 2) if smaller_half_first else (t - t // 2, t // 2) for t in totals)
