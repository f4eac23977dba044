"""Runs that are resumed to another number of epochs: which rate each step has.

A change of epochs that leaves the rate of every step taken as it was needs no word. Any other has to be named, and is
recorded in the checkpoints, so that the run goes on the same way however often it is interrupted:

hold       the old schedule, then its last rate for all steps that are added
stretch    the schedule over the new number of epochs, from the step of the change on
restart    the old schedule, then the schedule once more over the epochs that are added (a warm restart)

Reference: Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, ICLR 2017 (restart).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnnbp.train.optimizer import make_schedule
from jaxcnnbp.train.options import Options

__all__ = ["EXTENSIONS", "Extension", "extended_schedule", "same_rates"]

EXTENSIONS = ("hold", "stretch", "restart")


@dataclasses.dataclass(frozen=True)
class Extension:
    """A change of the number of epochs on the way.

    Args:
        how: one of `EXTENSIONS`.
        step: steps done when it was made.
        before: epochs until then.
        epochs: epochs from then on.
    """

    how: str
    step: int
    before: int
    epochs: int

    def __str__(self) -> str:
        words = {"hold": "keeps its last value", "stretch": "is that of the new length", "restart": "begins anew"}
        start = f"step {self.step:,}" if self.how == "stretch" else f"the end of epoch {self.before}"
        return f"{self.epochs} epochs instead of {self.before}: from {start} on, the rate {words[self.how]}"


def extended_schedule(options: Options, steps: int, extensions: Sequence[Extension]) -> Callable[[Any], jax.Array]:
    """The learning rate of a run whose number of epochs was changed on the way.

    Args:
        options: the schedule's options are read, and `epochs` where nothing was changed.
        steps: steps of an epoch.
        extensions: the changes, in their order.

    Returns:
        A function from a step count to a float32 rate.

    Example:
        >>> options = Options(schedule="linear", learning_rate=1.0, final_rate=0.0, epochs=8)
        >>> rate = extended_schedule(options, 1, [Extension("restart", step=4, before=4, epochs=8)])
        >>> [float(rate(step)) for step in range(8)]
        [1.0, 0.75, 0.5, 0.25, 1.0, 0.75, 0.5, 0.25]
    """
    epochs = extensions[0].before if extensions else options.epochs
    rate = make_schedule(options, epochs * steps)
    for extension in extensions:
        rate = _extended(options, steps, extension, rate)
    return rate


def same_rates(theirs: Options, ours: Options, steps: int, taken: int) -> bool:
    """Whether two schedules agree on every step that was taken.

    Args:
        theirs: options of a checkpoint.
        ours: options of this run.
        steps: steps of an epoch.
        taken: steps that were taken.

    Returns:
        True if no rate differs in a single bit.
    """
    count = np.arange(taken, dtype=np.int32)
    before, now = (np.asarray(make_schedule(options, options.epochs * steps)(count)) for options in (theirs, ours))
    return bool(np.array_equal(before, now))


def _extended(options: Options, steps: int, extension: Extension, before: Callable) -> Callable[[Any], jax.Array]:
    old, new = extension.before * steps, extension.epochs * steps
    if extension.how == "hold":
        return lambda count: before(jnp.minimum(count, old - 1))
    start, shift = (extension.step, 0) if extension.how == "stretch" else (old, old)
    after = make_schedule(options, new - shift)
    return lambda count: jnp.where(jnp.asarray(count) < start, before(count), after(jnp.asarray(count) - shift))
