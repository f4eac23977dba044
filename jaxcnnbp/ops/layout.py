"""Where an array has its channels: the one place that knows another layout than `(*batch, *spatial, channels)`.

A rule speaks channels last. `takes_layout` brings a function's arrays there and its outputs back, under every `mode`;
kernels are `(*window, in, out)` in every layout.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnnbp.ops._dtypes import as_array

Op = TypeVar("Op", bound=Callable[..., Any])

LAST, FIRST = "channels_last", "channels_first"


def takes_layout(*arrays: str, window: str | None = None) -> Callable[[Op], Op]:
    """Makes a function of channels-last arrays one of any layout, which its keyword `layout` says.

    Args:
      arrays: names of the arguments that have channels.
      window: name of the argument whose length says how many spatial axes there are; without one there is one axis of
        images, and all axes but it and the channels are spatial.
    """

    def decorate(op: Op) -> Op:
        signature = inspect.signature(op)

        @functools.wraps(op)
        def call(*args: Any, layout: str = LAST, **kwargs: Any) -> Any:
            if isinstance(layout, str) and layout == LAST:
                return op(*args, **kwargs)
            given = signature.bind(*args, **kwargs)
            rank = _spatial_rank(given.arguments, arrays[0], window)
            if not channels_are_first(layout, rank):
                return op(*args, **kwargs)
            for name in arrays:
                if given.arguments.get(name) is not None:
                    given.arguments[name] = _move(given.arguments[name], -1 - rank, -1)
            try:
                found = op(*given.args, **given.kwargs)
            except (TypeError, ValueError) as error:
                error.add_note(f"`layout` (={layout!r}): shapes are shown with the channels last.")
                raise
            return jax.tree.map(lambda y: _move(y, -1, -1 - rank), found)

        return cast(Op, call)

    return decorate


def channels_are_first(layout: Any, rank: int) -> bool:
    """Whether `layout`, a word or a letter an axis such as `"NHWC"`, has the channels before `rank` spatial axes."""
    if layout in (LAST, FIRST):
        return layout == FIRST
    letters = layout.upper() if isinstance(layout, str) else ""
    is_one_each = letters.isalpha() and len(set(letters)) == len(letters) == rank + 2
    if not is_one_each or letters[0] != "N" or "C" not in (letters[1], letters[-1]):
        axes = "DHW"[-rank:] if rank <= 3 else "..."
        raise ValueError(
            f"`layout` (={layout!r}) is unknown; use {LAST!r}, {FIRST!r}, or letters, here 'N{axes}C' or 'NC{axes}'."
        )
    return letters[1] == "C"


def _spatial_rank(arguments: dict[str, Any], array: str, window: str | None) -> int:
    size = None if window is None else arguments.get(window)
    return len(cast(Any, size)) if np.iterable(size) else max(np.ndim(arguments[array]) - 2, 1)


def _move(array: Any, source: int, target: int) -> Any:
    """`array` with an axis moved; one that has too few is left to the function to refuse."""
    array = as_array(array)
    return jnp.moveaxis(array, source, target) if array.ndim >= max(-source, -target) else array
