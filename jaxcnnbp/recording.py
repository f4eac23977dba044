"""What a trace meets: `explain_choice` traces a function with a `Recorder` in force, and every rule notes its calls.

The ticket in force is part of the key under which `jax.jit` keeps a trace. Each call of a public function gets one of
its own, so that no two of them share a trace, and none is missed because an earlier one was kept.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
from jax.extend import source_info_util

recording = jax.make_user_context(None)

# Whose lines are not what a user calls the place of a call.
_NOT_USERS = tuple(str(Path(sys.modules[name].__file__ or "").parent) for name in ("jax", "jaxcnnbp"))


@dataclass
class Call:
    """One call of a rule."""

    rule: str  # its name
    operands: tuple[str, ...]  # their types, such as `float32[8,28,28,3]`
    scope: str  # the `jax.named_scope` around the call
    where: str  # the line that called it
    problems: list[Any] = field(default_factory=list)  # what had to be chosen in its passes, in order


@dataclass(eq=False)
class Recorder:
    """All calls of one trace."""

    calls: list[Call] = field(default_factory=list)
    tracing: Call | None = None  # the call whose passes are being traced


@dataclass(frozen=True, eq=False)
class Ticket:
    """The place of one call."""

    recorder: Recorder
    scope: str = ""
    where: str = ""

    def note(self, rule: str, operands: Any, passes: Callable[[], Any]) -> None:
        """Notes a call, and what has to be chosen where `passes`, all of its passes, are traced; nothing is run."""
        if self.recorder.tracing is not None:
            return
        types = tuple(jax.typeof(a).str_short() for a in jax.tree.leaves(operands))
        call = Call(rule, types, self.scope or _scope(), self.where or _where())
        self.recorder.calls.append(call)
        self.recorder.tracing = call
        try:
            jax.make_jaxpr(lambda: (passes(), ())[1])()
        finally:
            self.recorder.tracing = None

    def takes(self, problem: Any) -> bool:
        """Whether the passes of a call are being traced; then `problem` is one that they have to choose for."""
        if self.recorder.tracing is not None:
            self.recorder.tracing.problems.append(problem)
        return self.recorder.tracing is not None


def next_call() -> AbstractContextManager[Any]:
    """A context with a ticket for the call that is made now; only where one is in force."""
    return recording(Ticket(recording.value.recorder, _scope(), _where()))


def _scope() -> str:
    """The names around a call, without transformations that stand around none, as in `jvp(vmap())`."""
    stack = str(source_info_util.current_name_stack())
    while (shorter := re.sub(r"\w+\(\)", "", stack)) != stack:
        stack = shorter
    return stack.strip("/")


def _where() -> str:
    traceback = source_info_util.current().traceback
    for frame in traceback.frames if traceback is not None else ():
        if not frame.file_name.startswith(_NOT_USERS):
            return f"{frame.file_name}:{frame.line_num} ({frame.function_name})"
    return ""
