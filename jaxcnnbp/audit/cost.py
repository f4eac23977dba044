"""Time and memory of two compiled functions, side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import jax

BUDGET_SECONDS = 0.5
MOST_ROUNDS = 21


@dataclass(frozen=True)
class Cost:
    """What a gradient costs by hand-written rules and by autodiff.

    Attributes:
      manual_seconds: median time of one call, compiled and warm.
      autodiff_seconds: the same of autodiff; the calls of the two alternate.
      manual_bytes: memory for intermediate values, as the compiler reports it; None where it does not.
      autodiff_bytes: the same of autodiff.
      rounds: calls of each.
    """

    manual_seconds: float
    autodiff_seconds: float
    manual_bytes: int | None
    autodiff_bytes: int | None
    rounds: int


def cost_of(manual: Any, autodiff: Any, args: Sequence[Any]) -> Cost:
    """The cost of two functions compiled by `jax.jit(f).lower(...).compile()`."""
    first = [_seconds(f, args) for f in (manual, autodiff)]
    rounds = int(min(MOST_ROUNDS, max(3, BUDGET_SECONDS / max(sum(first), 1e-6))))
    times: list[list[float]] = [[], []]
    for turn in range(rounds):
        order = (0, 1) if turn % 2 == 0 else (1, 0)
        for which in order:
            times[which].append(_seconds((manual, autodiff)[which], args))
    return Cost(median(times[0]), median(times[1]), _memory(manual), _memory(autodiff), rounds)


def _seconds(function: Callable[..., Any], args: Sequence[Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - start


def _memory(compiled: Any) -> int | None:
    analysis = compiled.memory_analysis()
    return None if analysis is None else int(analysis.temp_size_in_bytes)
