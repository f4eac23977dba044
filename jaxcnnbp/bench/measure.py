"""Two functions of your own, timed side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from jaxcnnbp.bench.self_check import TOLERANCE
from jaxcnnbp.timing import SYSTEM, Call, Clock, Plan, Timing, call_of, side_by_side


@dataclass(frozen=True)
class Comparison:
    """Two functions side by side, and the first against itself.

    Attributes:
      a: seconds of the first function.
      b: of the second.
      again: of the first, compiled once more: what it differs from `a` by is the noise.
    """

    a: Timing
    b: Timing
    again: Timing

    @property
    def ratio(self) -> float:
        """How many times longer the second takes than the first."""
        return self.b.median / self.a.median

    @property
    def noise(self) -> float:
        """The same of the first and itself, which must be 1."""
        return self.again.median / self.a.median

    @property
    def ok(self) -> bool:
        """Whether the machine was quiet enough: `noise` is within 3 % of 1."""
        return abs(self.noise - 1) <= TOLERANCE

    def __str__(self) -> str:
        times = " and ".join(
            f"{1e3 * t.median:.3g} ms ({1e3 * t.low:.3g} to {1e3 * t.high:.3g})" for t in (self.a, self.b)
        )
        doubt = "" if self.ok else ", so do not believe it"
        return f"{times}: {self.ratio:.2f} times as long; the first against itself {self.noise:.3f}{doubt}"


def measure(
    fun_a: Callable[..., Any],
    fun_b: Callable[..., Any],
    *args: Any,
    seconds: float = 2.0,
    jit: bool = True,
    clock: Clock = SYSTEM,
) -> Comparison:
    """Time two functions of the same arguments, call by call in turns, and the first against itself.

    Args:
      fun_a: a function of JAX arrays.
      fun_b: another; what the two return is not compared.
      *args: arguments of both, already where they shall be computed.
      seconds: to spend on all calls; every function is called three times at least.
      jit: whether to compile the functions; otherwise they are called as they are.
      clock: where the time comes from.

    Returns:
      Medians and quartiles of single calls, compiled and warm, until the result is there.

    Raises:
      TypeError: something that cannot be called.

    Example:
      >>> import jax.numpy as jnp
      >>> result = measure(jnp.sin, jnp.arctan, jnp.ones(1000), seconds=0.01)
      >>> result.ratio == result.b.median / result.a.median
      True

    Source: the order of the calls is that of `side_by_side`.
    """
    for name, fun in (("fun_a", fun_a), ("fun_b", fun_b)):
        if not callable(fun):
            raise TypeError(f"`{name}` (={fun!r}) must be a function.")
    calls = {name: _call(fun, args, jit) for name, fun in (("a", fun_a), ("b", fun_b), ("again", fun_a))}
    return Comparison(**side_by_side([calls], Plan(seconds), clock))


def _call(fun: Callable[..., Any], args: tuple[Any, ...], jit: bool) -> Call:
    return call_of(jax.jit(fun).lower(*args).compile() if jit else fun, args)
