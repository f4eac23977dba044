"""`autotune`: every implementation of the convolutions of a program, measured where it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from time import monotonic
from typing import Any

from jaxcnnbp.errors import InputError
from jaxcnnbp.ops.conv.dispatch import passes
from jaxcnnbp.ops.conv.measured import Measured
from jaxcnnbp.ops.conv.problem import ConvProblem
from jaxcnnbp.ops.conv.serving import Asked
from jaxcnnbp.ops.conv.tuning import Tuned, Tuning, device, key_of
from jaxcnnbp.transform.choice import calls_of
from jaxcnnbp.tune.measure import measure, supporting

# An implementation serves instead of another only if it is so much faster: less than that is noise.
PAYS = 0.97
# Seconds that the calls of one pass are timed for, at the most and at the least.
MOST, LEAST = 1.0, 0.02


def autotune(
    fun: Callable[..., Any], *args: Any, seconds: float = 60.0, progress: bool | None = None, **kwargs: Any
) -> Tuning:
    """Measures all implementations of every convolution in `fun(*args)` and in its gradient, on this device.

    Also inside `jit`, `scan`, `cond`, and what `manual_backward` puts there. Each pass of each distinct problem is
    compiled alone in every implementation that supports it; they are timed call by call in turns on random arrays, and
    the one of the least median serves, where it is 3 % faster than what serves without a tuning. The machine should
    have nothing else to do. Convolutions whose arrays may lie on several devices are not measured; pools have one
    implementation.

    Args:
      fun: a function that JAX can trace; it is traced, and never called.
      *args: its arguments, arrays or `jax.ShapeDtypeStruct`.
      seconds: after so many no further problem is begun; those of the most products come first.
      progress: whether a bar is shown; None for where the error output is a terminal and Rich is installed.
      **kwargs: further arguments of `fun`.

    Returns:
      The tuning: a table if printed, a context in which it is in force, and `dumps` for a file that
      `JAXCNNBP_TUNING` can name.

    Raises:
      ValueError: if `seconds` is not positive.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxcnnbp import correlate
      >>> loss = lambda x, k: (correlate(x, k, padding="SAME") ** 2).sum()
      >>> x, kernel = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 8))
      >>> tuning = autotune(loss, x, kernel, seconds=0.1)
      >>> with tuning:
      ...     gradient = jax.jit(jax.grad(loss, 1))(x, kernel)
      >>> tuning.rows[0].key
      'forward float32[2,8,8,4] * [3,3,4,8], padding 1+1 1+1'

    Source: the name and the ways to use it are tokamax's, https://github.com/openxla/tokamax.
    """
    if seconds <= 0:
        raise InputError(f"`seconds` (={seconds}) must be positive; a network of twenty layers takes about a minute.")
    calls: dict[tuple[str, ConvProblem], int] = {}
    for call in calls_of(fun, args, kwargs):
        for asked in call.problems:
            if not asked.partitioned:
                key = (asked.of.name, asked.problem)
                calls[key] = calls.get(key, 0) + 1
    order = sorted(calls, key=lambda key: -key[1].products * calls[key])
    rows, until = [], monotonic() + seconds
    for number, (pass_name, problem) in enumerate(_shown(order, progress)):
        if number and monotonic() > until:
            break
        share = (until - monotonic()) / (len(order) - number) / 3  # most of it goes to compiling
        found = measure(pass_name, problem, supporting(pass_name, problem), min(MOST, max(LEAST, share)))
        seconds_of = tuple(sorted(found.seconds.items(), key=lambda item: item[1]))
        rows.append(Tuned(key_of(pass_name, problem), _best(found), seconds_of, calls[pass_name, problem]))
    return Tuning(tuple(sorted(rows, key=lambda row: row.key)), device(), len(order) - len(rows))


def _best(found: Measured) -> str:
    """What serves: the fastest, or what would serve without a tuning if that is as good."""
    usual, least = usual_name(found.pass_name, found.problem), min(found.seconds.values())
    good = [name for name, seconds in found.seconds.items() if seconds * PAYS <= least]
    return usual if usual in good else good[0]


def usual_name(pass_name: str, problem: ConvProblem) -> str:
    """What serves on the default backend where no tuning is in force."""
    return Asked(passes()[pass_name], problem, False).served().on()[0].name


def _shown(order: Sequence[Any], progress: bool | None) -> Iterator[Any]:
    if progress if progress is not None else sys.stderr.isatty() and find_spec("rich") is not None:
        from rich.console import Console
        from rich.progress import track

        yield from track(order, "Tuning", console=Console(stderr=True), transient=True)
    else:
        yield from order
