"""How much time the choice without a tuning loses, on problems that no table has seen."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import jax
import numpy as np

from jaxcnnbp.ops.conv.dispatch import passes
from jaxcnnbp.ops.conv.measured import Measured, estimate
from jaxcnnbp.ops.conv.tuning import key_of
from jaxcnnbp.tune.autotune import usual_name
from jaxcnnbp.tune.grid import random_problem
from jaxcnnbp.tune.measure import measure, supporting

PASSES = tuple(passes())


@dataclass(frozen=True)
class Regret:
    """One pass of one problem.

    Attributes:
      measured: what every implementation took.
      chosen: the one that serves.
    """

    measured: Measured
    chosen: str

    @property
    def key(self) -> str:
        """The problem in words."""
        return key_of(self.measured.pass_name, self.measured.problem)

    @property
    def best(self) -> str:
        """What took the least time."""
        return min(self.measured.seconds, key=self.measured.seconds.__getitem__)

    @property
    def to_best(self) -> float:
        """How many times as long as the best the chosen one took."""
        return self.measured.seconds[self.chosen] / self.measured.seconds[self.best]

    @property
    def to_lax(self) -> float:
        """How many times as long as lax's own the chosen one took."""
        return self.measured.seconds[self.chosen] / self.measured.seconds["xla"]


def measured_problems(seed: int, dtype: str, seconds: float, hopeless: float = math.inf) -> Iterator[Measured]:
    """Random problems, each pass of them measured in every implementation; without end, the same for the same seed.

    `seconds` is for the calls of one pass; compiling them comes on top. What is expected to take more than `hopeless`
    times as long as the fastest is left out, but for lax's own: half of the time would go to these.
    """
    rng = np.random.default_rng(seed)
    while True:
        problem = random_problem(rng, dtype)
        for name in PASSES:
            names = supporting(name, problem)
            expected = estimate(name, problem, names)
            most = hopeless * min(expected.values(), default=0.0)
            names = [n for n in names if n == "xla" or expected.get(n, 0.0) <= most]
            yield measure(name, problem, names, seconds)
            jax.clear_caches()  # the programs of one problem serve no other


def regret_of(measured: Measured) -> Regret:
    """Beside what serves."""
    return Regret(measured, usual_name(measured.pass_name, measured.problem))
