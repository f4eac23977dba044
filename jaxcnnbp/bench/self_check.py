"""The instrument measured by itself: a function against itself must be 1.00, or the figures mean nothing."""

from __future__ import annotations

from dataclasses import dataclass

import jax

from jaxcnnbp.bench.cases import Case
from jaxcnnbp.bench.jax_side import arrays, autodiff_layer
from jaxcnnbp.bench.torch_side import torch_calls
from jaxcnnbp.timing import SYSTEM, Call, Clock, Plan, call_of, side_by_side

TOLERANCE = 0.03
# Some milliseconds on two cores, in all of their threads.
_LAYER = Case("self-check", "conv", (8, 28, 28, 64), (3, 3), 64, padding=1)


@dataclass(frozen=True)
class SelfCheck:
    """What the instrument answers about equal things.

    Attributes:
      interleaved: time of a function over the time of itself, call by call.
      after_torch: time of a function in a block behind one of PyTorch's over its time in a block behind one of its
        own; None if PyTorch was not measured.
      tolerance: what either may be off 1 by.
    """

    interleaved: float
    after_torch: float | None = None
    tolerance: float = TOLERANCE

    @property
    def deviation(self) -> float:
        """How far the worse of the two is off 1."""
        return max(abs(ratio - 1) for ratio in (self.interleaved, self.after_torch) if ratio is not None)

    @property
    def ok(self) -> bool:
        """Whether the figures of the run can be believed."""
        return self.deviation <= self.tolerance

    def __str__(self) -> str:
        across = "" if self.after_torch is None else f", {self.after_torch:.3f} behind a block of PyTorch's"
        verdict = "as it must be" if self.ok else "the machine is not quiet: do not believe the figures"
        return f"A function against itself: {self.interleaved:.3f} call by call{across} ({verdict})."


def check_instrument(with_torch: bool, seconds: float = 4.0, clock: Clock = SYSTEM) -> SelfCheck:
    """Time a convolution against itself.

    Args:
      with_torch: also behind calls of PyTorch's, whose threads may not have gone to sleep.
      seconds: to spend.
      clock: where the time comes from.

    Returns:
      The two ratios and whether they are near enough to 1.
    """
    operands = arrays(_LAYER, "float32")

    def compile_again() -> Call:
        return call_of(jax.jit(autodiff_layer(_LAYER)).lower(*operands[:2]).compile(), operands[:2])

    other = torch_calls(_LAYER, operands, "together")["channels first"] if with_torch else None
    return check_of(compile_again(), compile_again(), other, seconds, clock)


def check_of(call: Call, same: Call, other: Call | None, seconds: float, clock: Clock) -> SelfCheck:
    """The ratios of two equal calls: alternating, and the second behind `other`."""
    times = side_by_side([{"first": call, "second": same}], Plan(seconds / 2), clock)
    first, second = (times[name].median for name in ("first", "second"))
    if other is None:
        return SelfCheck(second / first)
    blocks = [{"before": call}, {"other": other}, {"after": same}]
    times = side_by_side(blocks, Plan(seconds / 2, rounds=9, turn_round=False), clock)
    # Threads that never go to sleep slow both of these down, but not the calls of before.
    undisturbed = min(times["before"].median, 1.1 * first)
    return SelfCheck(second / first, times["after"].median / undisturbed)
