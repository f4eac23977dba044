"""Which implementation serves each convolution and pooling of a function, without running it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax

from jaxcnnbp.ops.conv.serving import Asked
from jaxcnnbp.recording import Call, Recorder, Ticket, recording
from jaxcnnbp.transform.explain import NO_WINDOW
from jaxcnnbp.transform.mutable import lifted
from jaxcnnbp.transform.trace import trace


@dataclass(frozen=True)
class Choice:
    """One pass of one convolution or pooling.

    Attributes:
      rule: the name of the rule, as in `explain_swaps`.
      pass_name: `"forward"`, `"input grad"` or `"kernel grad"`.
      implementation: the name of what serves.
      reason: why.
      others: the names of those that `implementation` may ask for instead.
      operands: types of the rule's operands, such as `float32[8,28,28,3]`; under `vmap` those of one example.
      scope: the `jax.named_scope` it is in, such as the name of a Flax layer.
      where: the line that called it, empty if `fun` itself is the function of this package.
      calls: how often it is called there, with these operands, in one trace.
    """

    rule: str
    pass_name: str
    implementation: str
    reason: str
    others: tuple[str, ...]
    operands: tuple[str, ...]
    scope: str
    where: str
    calls: int = 1


@dataclass(frozen=True)
class Choices:
    """All choices of a function on one platform; `print` shows them as a table.

    Attributes:
      rows: one for each pass.
      platform: for which.
    """

    rows: tuple[Choice, ...]
    platform: str

    def __repr__(self) -> str:
        if not self.rows:
            return "no convolution and no pooling of this package found; `explain_swaps` says what is JAX's"
        lines, call = [f"on {self.platform}"], None
        width = max(len(row.implementation) for row in self.rows)
        for row in self.rows:
            if call != (call := (row.rule, row.operands, row.scope, row.where)):
                times = f", {row.calls} times" if row.calls > 1 else ""
                place = ", ".join(filter(None, (row.scope, _short(row.where))))
                lines.append(f"{row.rule} {', '.join(row.operands)}{times}{f' ({place})' if place else ''}")
            others = f"; also: {', '.join(row.others)}" if row.others else ""
            lines.append(f"  {row.pass_name:<12}{row.implementation:<{width}}  {row.reason}{others}")
        return "\n".join(lines)


def explain_choice(fun: Callable[..., Any], *args: Any, platform: str | None = None, **kwargs: Any) -> Choices:
    """Which implementation serves each convolution and pooling of this package in `fun(*args)`, and why.

    Also inside `jit`, `scan`, `cond`, `vmap`, and what `manual_backward` puts there. All passes are listed, whether or
    not `fun` takes a gradient. A function that is jitted is listed once for arguments of the same shapes, however often
    it is called. What JAX differentiates itself is not listed: wrap it in `manual_backward`.

    Args:
      fun: a function that JAX can trace; it is traced, and nothing is computed.
      *args: its arguments, arrays or `jax.ShapeDtypeStruct`.
      platform: `"cpu"`, `"cuda"` or `"tpu"`; the default backend if None. For CPUs it is told for this one.
      **kwargs: further arguments of `fun`.

    Returns:
      The choices: a table if printed, and `rows` for programs.

    Raises:
      ValueError: as `fun` raises it, under `implementation(name)` for a convolution that `name` does not support.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxcnnbp import correlate, implementation
      >>> with implementation("reference"):
      ...     rows = explain_choice(correlate, jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 3, 4))).rows
      >>> [(row.pass_name, row.implementation) for row in rows]
      [('forward', 'reference'), ('input grad', 'reference'), ('kernel grad', 'reference')]

    Source: `ops.conv.serving`, which chooses.
    """
    chosen = platform or jax.default_backend()
    found: dict[Choice, int] = {}
    for call in calls_of(fun, args, kwargs):
        for row in _rows(call, chosen):
            found[row] = found.get(row, 0) + 1
    return Choices(tuple(replace(row, calls=count) for row, count in found.items()), chosen)


def calls_of(fun: Callable[..., Any], args: Any, kwargs: Any) -> list[Call]:
    """The calls of rules in `fun(*args, **kwargs)`, which is traced and not run."""
    recorder = Recorder()
    with recording(Ticket(recorder)):
        trace(lambda: jax.eval_shape(lambda args, kwargs: lifted(fun, args, kwargs)[0](), args, kwargs))
    return recorder.calls


def _rows(call: Call, platform: str) -> Iterator[Choice]:
    if call.problems:
        for problem in call.problems:
            yield _of_conv(call, problem, platform)
    elif call.rule not in NO_WINDOW:
        for name in ("forward", "input grad"):
            yield _choice(call, name, "reference", "the only one: the rule, written out by its window", ())


def _of_conv(call: Call, asked: Asked, platform: str) -> Choice:
    row, reason = asked.served(platform).on(platform)
    if asked.implementation not in (None, row.name):
        reason = f"{asked.implementation!r} has no {asked.of.name}; {reason}"
    names = [other.name for other in asked.of.supporting(asked.problem, asked.partitioned, platform)]
    others = tuple(name for name in names if name != row.name)
    return _choice(call, asked.of.name, row.name, reason, others)


def _choice(call: Call, name: str, implementation: str, reason: str, others: tuple[str, ...]) -> Choice:
    rule = call.rule.removesuffix("_rule")
    return Choice(rule, name, implementation, reason, others, call.operands, call.scope, call.where)


def _short(where: str) -> str:
    """The last two parts of a path are enough to find it by."""
    return "/".join(Path(where).parts[-2:])
