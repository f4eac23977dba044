"""Update rules and learning-rate schedules, from the options to Optax."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxcnnbp.train.options import Options

__all__ = ["make_optimizer", "make_schedule"]

_START = 1 / 25  # rate of the first warm-up step as a share of the peak, as in Smith's one-cycle policy
_ONECYCLE_WARMUP = 0.3


def make_optimizer(
    options: Options, steps: int, rate: Callable[[Any], jax.Array] | None = None
) -> optax.GradientTransformation:
    """The Optax transformation that the options describe.

    Only kernels decay: biases and Bouvrie's beta have one axis and are left alone.

    Args:
        options: `optimizer`, `momentum`, `beta2`, `weight_decay` and the schedule's options are read.
        steps: length of the run, in steps.
        rate: the learning rate as a function of the number of steps done; by default the schedule of the options.

    Returns:
        A gradient transformation whose updates are to be added to the parameters.

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
    """The learning rate as a function of the number of steps done.

    The warm-up rises from 1/25 of the peak, in a line (`onecycle`: half a cosine); then the rate stays
    (`constant`) or falls to `final_rate` times the peak, in a line or half a cosine.

    Args:
        options: `schedule`, `learning_rate`, `warmup` and `final_rate` are read.
        steps: length of the run, in steps.

    Returns:
        A function from a step count to a float32 rate.

    Example:
        >>> rate = make_schedule(Options(schedule="linear", learning_rate=1.0, final_rate=0.0), steps=4)
        >>> [float(rate(step)) for step in range(4)]
        [1.0, 0.75, 0.5, 0.25]

    Reference: Smith and Topin, Super-Convergence, 2018 (onecycle).
    """
    peak, cycle = options.peak_rate, options.schedule == "onecycle"
    default = _ONECYCLE_WARMUP if cycle else 0.0
    warm = round(steps * (default if options.warmup is None else options.warmup))
    rise = _cosine if cycle else _line
    fall = {"constant": _level, "linear": _line}.get(options.schedule, _cosine)

    def rate(count: Any) -> jax.Array:
        done = jnp.asarray(count, jnp.float32)
        up = rise(done / max(warm, 1), peak * _START, peak)
        down = fall((done - warm) / max(steps - warm, 1), peak, peak * options.final_rate)
        return jnp.where(done < warm, up, down)

    return rate


def _line(share: jax.Array, start: float, end: float) -> jax.Array:
    return start + (end - start) * jnp.clip(share, 0.0, 1.0)


def _cosine(share: jax.Array, start: float, end: float) -> jax.Array:
    return _line((1 - jnp.cos(math.pi * jnp.clip(share, 0.0, 1.0))) / 2, start, end)


def _level(share: jax.Array, start: float, end: float) -> jax.Array:
    return jnp.full_like(share, start)


def _kernels(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
