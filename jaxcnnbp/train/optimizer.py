"""Update rules and learning-rate schedules, from the options to Optax; also of runs whose epochs were changed.

A run that is resumed to another number of epochs, which leaves the rate of every step taken as it was, needs no word.
Any other change has to be named, and is recorded in the checkpoints, so that the run goes on the same way however often
it is interrupted:

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
import optax

from jaxcnnbp.train.options import Options

_START = 1 / 25  # rate of the first warm-up step as a share of the peak, as in Smith's one-cycle policy
_ONECYCLE_WARMUP = 0.3


def make_optimizer(
    options: Options, steps: int, rate: Callable[[Any], jax.Array] | None = None
) -> optax.GradientTransformation:
    """The Optax transformation that the options describe.

    Only kernels decay: biases and Bouvrie's beta have one axis and are left alone. `rate` is the learning rate by the
    number of steps done, by default the schedule of the options over `steps` of them.

    Example:
        >>> rule = make_optimizer(Options(optimizer="sgd", learning_rate=1.0), steps=10)
        >>> updates, _ = rule.update({"bias": jnp.ones(1)}, rule.init({"bias": jnp.ones(1)}))
        >>> updates["bias"]
        Array([-1.], dtype=float32)

    Reference: Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019 (adamw).
    """
    rate = make_schedule(options, steps) if rate is None else rate
    decay, beta1, beta2 = options.weight_decay, options.momentum, options.beta2
    if options.optimizer == "adamw":
        return optax.adamw(rate, beta1, beta2, weight_decay=decay, mask=_kernels)
    rules = {
        "sgd": optax.sgd(rate),
        "momentum": optax.sgd(rate, momentum=options.momentum),
        "adam": optax.adam(rate, beta1, beta2),
    }
    rule = rules[options.optimizer]
    return optax.chain(optax.add_decayed_weights(decay, _kernels), rule) if decay else rule


def make_schedule(options: Options, steps: int) -> Callable[[Any], jax.Array]:
    """The learning rate, float32, as a function of the number of steps done in a run of `steps`.

    The warm-up rises from 1/25 of the peak, in a line (`onecycle`: half a cosine); then the rate stays
    (`constant`) or falls to `final_rate` times the peak, in a line or half a cosine.

    Example:
        >>> rate = make_schedule(Options(schedule="linear", learning_rate=1.0, final_rate=0.0), steps=4)
        >>> [float(rate(step)) for step in range(4)]
        [1.0, 0.75, 0.5, 0.25]

    Reference: Smith and Topin, Super-Convergence, 2018 (onecycle).
    """
    peak, cycle = options.peak_rate, options.schedule == "onecycle"
    default = _ONECYCLE_WARMUP if cycle else 0.0
    warm = round(steps * (default if options.warmup is None else options.warmup))
    up, down = max(warm, 1), max(steps - warm, 1)  # steps
    line, cosine = optax.linear_schedule, optax.cosine_decay_schedule
    rise = cosine(peak * _START, up, 1 / _START) if cycle else line(peak * _START, peak, up)
    level = {"constant": optax.constant_schedule(peak), "linear": line(peak, peak * options.final_rate, down)}
    fall = level.get(options.schedule) or cosine(peak, down, options.final_rate)
    schedule = optax.join_schedules((rise, fall), (warm,))
    return lambda count: jnp.asarray(schedule(jnp.asarray(count, jnp.float32)))


def _kernels(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


@dataclasses.dataclass(frozen=True)
class Extension:
    """A change of the number of epochs on the way."""

    how: str  # hold, stretch or restart
    step: int  # steps done when it was made
    before: int  # epochs until then
    epochs: int  # and from then on

    def __str__(self) -> str:
        words = {"hold": "keeps its last value", "stretch": "is that of the new length", "restart": "begins anew"}
        start = f"step {self.step:,}" if self.how == "stretch" else f"the end of epoch {self.before}"
        return f"{self.epochs} epochs instead of {self.before}: from {start} on, the rate {words[self.how]}"


def extended_schedule(options: Options, steps: int, extensions: Sequence[Extension]) -> Callable[[Any], jax.Array]:
    """The learning rate of a run whose number of epochs was changed on the way.

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
    """Whether two schedules agree on every step that was taken."""
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
