"""Time and memory of two compiled functions, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from jaxcnnbp.timing import Plan, side_by_side

# A glance beside the numbers, and no benchmark: `jaxcnnbp bench` takes its time. The call before the timed ones warms.
PLAN = Plan(seconds=0.5, least=3, most=21, warm=0, rouse=0.0)


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
    calls = {
        "manual": lambda: jax.block_until_ready(manual(*args)),
        "autodiff": lambda: jax.block_until_ready(autodiff(*args)),
    }
    times = side_by_side([calls], PLAN)
    manual_time, autodiff_time = times["manual"], times["autodiff"]
    return Cost(manual_time.median, autodiff_time.median, _memory(manual), _memory(autodiff), manual_time.calls)


def _memory(compiled: Any) -> int | None:
    analysis = compiled.memory_analysis()
    return None if analysis is None else int(analysis.temp_size_in_bytes)
