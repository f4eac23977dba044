"""Times side by side: calls that alternate, blocks with pauses between them, medians and quartiles.

Two frameworks in one process disturb each other: the threads of PyTorch spin for a while after every call and take a
core from whoever runs next. What may disturb its neighbour gets a block of its own, with a pause before it; what does
not, two JAX programs, alternates call by call, so that both meet the same machine.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

__all__ = ["SYSTEM", "Call", "Clock", "Plan", "Queued", "Timing", "call_of", "side_by_side", "waited_for"]

Call = Callable[[], object]  # runs once and returns when the result is there


@dataclass
class Queued:
    """A call of a device that works beside the processor: several are begun, one behind the other, and waited for once.

    Waiting after each of them would be in the time of a short one, as it never is in a training loop.

    Attributes:
      begin: puts one call into the queue of the device.
      wait: returns when the result of the last one is there.
      count: how many calls are timed together.
      least: seconds that they shall fill.
      most: calls at the most: each may hold the memory of its result.
    """

    begin: Callable[[], object]
    wait: Callable[[object], object]
    count: int = 1
    least: float = 0.01
    most: int = 200

    def __call__(self) -> object:
        for _ in range(self.count - 1):
            self.begin()
        result = self.begin()
        self.wait(result)
        return result

    def fill(self, seconds_of_one: float) -> None:
        """Take as many calls together as fill `least`."""
        self.count = min(self.most, max(1, round(self.least / max(seconds_of_one, 1e-9))))


@dataclass(frozen=True)
class Clock:
    """Where the time comes from; tests have one that does not wait.

    Attributes:
      now: seconds from some beginning.
      sleep: waits for so many seconds.
    """

    now: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], None] = time.sleep


SYSTEM = Clock()


@dataclass(frozen=True)
class Timing:
    """Seconds of one call.

    Attributes:
      median: half of the calls took less.
      low, high: the quartiles: half of the calls took between.
      calls: how many were timed.
    """

    median: float
    low: float
    high: float
    calls: int

    @staticmethod
    def of(seconds: Sequence[float]) -> Timing:
        """The median and quartiles of single calls."""
        low, median, high = np.percentile(seconds, (25, 50, 75))
        return Timing(float(median), float(low), float(high), len(seconds))

    @property
    def spread(self) -> float:
        """The distance of the quartiles, as a fraction of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0


@dataclass(frozen=True)
class Plan:
    """How long and how often.

    Attributes:
      seconds: to spend on one comparison, over all blocks; the least number of calls may take longer.
      rounds: turns that every block gets.
      least: calls of each function at the least, over all rounds.
      most: calls of each function at the most.
      pause: seconds of silence before a block, if there are several.
      warm: calls before the timed ones, once.
      rouse: a call that was shorter than these seconds is made once more, untimed, when its block begins: it has to
        wake the threads and fill the caches.
      turn_round: whether the order of the blocks is reversed in every second round.
    """

    seconds: float = 2.0
    rounds: int = 3
    least: int = 3
    most: int = 2000
    pause: float = 0.1
    warm: int = 1
    rouse: float = 0.1
    turn_round: bool = True


@dataclass
class _Block:
    calls: Mapping[str, Call]
    clock: Clock
    samples: dict[str, list[float]] = field(default_factory=dict)
    shortest: dict[str, float] = field(default_factory=dict)

    def warm_up(self, times: int) -> None:
        for name, call in self.calls.items():
            for _ in range(times):
                call()
            if isinstance(call, Queued):
                call.fill(self._seconds(call))
            self.samples[name] = []
            self.shortest[name] = self._seconds(call)

    def run(self, seconds: float, turns: tuple[int, int], rouse: float) -> None:
        for name, call in self.calls.items():
            if self.shortest[name] < rouse:
                call()
        least, most = turns
        begin, turn = self.clock.now(), 0
        while turn < least or (turn < most and self.clock.now() - begin < seconds):
            # Each goes first in every second turn: being second after the other may be an advantage, or the reverse.
            for name in list(self.calls) if turn % 2 == 0 else reversed(list(self.calls)):
                self.samples[name].append(self._seconds(self.calls[name]))
            turn += 1

    def _seconds(self, call: Call) -> float:
        begin = self.clock.now()
        result = call()
        end = self.clock.now()
        del result  # its memory is given back outside of the time
        return (end - begin) / (call.count if isinstance(call, Queued) else 1)


def side_by_side(
    blocks: Sequence[Mapping[str, Call]], plan: Plan | None = None, clock: Clock = SYSTEM
) -> dict[str, Timing]:
    """The time of each function, all of them measured over the same stretch of time.

    Args:
      blocks: functions by name, in groups; those of a group alternate call by call, groups take turns with a pause
        before each, and their order is turned round from one round to the next.
      plan: how long and how often.
      clock: where the time comes from.

    Returns:
      Median, quartiles and number of calls, by name. The first calls are not among them.

    Raises:
      ValueError: no function at all, or two of the same name.

    Example:
      >>> times = side_by_side([{"sum": lambda: sum(range(99)), "none": lambda: None}], Plan(seconds=0.01))
      >>> sorted(times), times["sum"].calls == times["none"].calls
      (['none', 'sum'], True)
    """
    plan = plan or Plan()
    names = [name for block in blocks for name in block]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"`blocks` (={names}) must hold functions of different names, and at least one.")
    state = [_Block(calls, clock) for calls in blocks if calls]
    rounds = plan.rounds if len(state) > 1 else 1
    turns = (-(-plan.least // rounds), max(1, plan.most // rounds))
    with _no_collection():
        for block in state:
            clock.sleep(plan.pause if len(state) > 1 else 0)
            block.warm_up(plan.warm)
        for number in range(rounds):
            for block in reversed(state) if plan.turn_round and number % 2 else state:
                clock.sleep(plan.pause if len(state) > 1 else 0)
                block.run(plan.seconds / rounds / len(state), turns, plan.rouse)
    return {name: Timing.of(seconds) for block in state for name, seconds in block.samples.items()}


def call_of(compiled: Callable[..., Any], args: tuple[Any, ...]) -> Call:
    """One call that returns when the result is there; of an accelerator as many as keep it busy."""
    return waited_for(lambda: compiled(*args))


def waited_for(begin: Callable[[], Any]) -> Call:
    """The same of anything that returns JAX arrays."""
    if jax.default_backend() == "cpu":
        return lambda: jax.block_until_ready(begin())
    return Queued(begin, jax.block_until_ready)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python's garbage collector must not fall into somebody's time."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
