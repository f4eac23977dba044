"""A tuning: which implementation was the fastest for the problems of a program, measured one by one."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from jaxcnnbp.errors import InputError
from jaxcnnbp.modes import tuning_in_force
from jaxcnnbp.ops.conv.problem import ConvProblem
from jaxcnnbp.ops.processor import cpu_kind

VARIABLE = "JAXCNNBP_TUNING"
_FORMAT = 1


def device() -> str:
    """What the default device is called in tunings: `cpu-avx2`, or as JAX has it, `NVIDIA H200`."""
    kind = jax.devices()[0].device_kind
    return f"cpu-{cpu_kind()}" if kind == "cpu" else kind


@dataclass(frozen=True)
class Tuned:
    """One pass of one problem.

    Attributes:
      key: pass and problem, as `key_of` writes them.
      implementation: what serves it.
      seconds: of one call, by implementation.
      calls: how often the program calls it.
    """

    key: str
    implementation: str
    seconds: tuple[tuple[str, float], ...] = field(default=(), compare=False)
    calls: int = field(default=1, compare=False)


@dataclass(frozen=True)
class Tuning:
    """Which implementation serves the convolutions of a program; in force inside `with tuning:`.

    It is part of the key under which `jax.jit` keeps a compiled function, and two are equal if they choose the same. A
    convolution that it does not know is chosen as without it. The environment variable `JAXCNNBP_TUNING` names a file
    with one that is in force from the beginning.

    Attributes:
      rows: one a pass of a problem.
      device: the kind of device that it was measured on.
      left_out: how many passes there was no time for.

    Raises:
      ValueError: from `with`, on another kind of device than it was measured on.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxcnnbp import autotune, correlate
      >>> tuning = autotune(correlate, jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 3, 4)), seconds=0.1)
      >>> with tuning:
      ...     y = correlate(jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 3, 4)))
      >>> Tuning.loads(tuning.dumps()) == tuning
      True
    """

    rows: tuple[Tuned, ...] = ()
    device: str = field(default_factory=device)
    left_out: int = field(default=0, compare=False)
    _entered: dict[int, list[AbstractContextManager[Any]]] = field(default_factory=dict, init=False, compare=False)

    def choice(self, pass_name: str, problem: ConvProblem) -> str | None:
        """The implementation that serves a pass of a problem, None if it is not known."""
        return self._choices.get(key_of(pass_name, problem))

    @functools.cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits that are the same for equal tunings, on every machine."""
        return hashlib.sha256(repr((sorted(self._choices.items()), self.device)).encode()).hexdigest()[:12]

    def __hash__(self) -> int:
        return self._hash  # every call of a jitted function asks for it

    @functools.cached_property
    def _hash(self) -> int:
        return hash((self.rows, self.device))

    @functools.cached_property
    def _choices(self) -> dict[str, str]:
        return {row.key: row.implementation for row in self.rows}

    def dumps(self) -> str:
        """The tuning as JSON."""
        rows = [
            {
                "problem": row.key,
                "implementation": row.implementation,
                "seconds": dict(row.seconds),
                "calls": row.calls,
            }
            for row in self.rows
        ]
        values = {"format": _FORMAT, "device": self.device, "left_out": self.left_out, "rows": rows}
        return json.dumps(values, indent=1) + "\n"

    @staticmethod
    def loads(text: str) -> Tuning:
        """What `dumps` wrote.

        Raises:
          ValueError: if it is something else.
        """
        try:
            values = json.loads(text)
            rows = tuple(
                Tuned(row["problem"], row["implementation"], tuple(row["seconds"].items()), row["calls"])
                for row in values["rows"]
            )
            if values["format"] == _FORMAT:
                return Tuning(rows, values["device"], values["left_out"])
            fault = f"has the format {values['format']}, and this version reads {_FORMAT}"
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            fault = f"is not what `Tuning.dumps` writes ({type(error).__name__}: {error})"
        raise InputError(f"`text` (={text[:40]!r}...) {fault}; tune again.")

    def __enter__(self) -> Tuning:
        _require_device(self)
        context = tuning_in_force(self)
        self._entered.setdefault(threading.get_ident(), []).append(context)
        context.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._entered[threading.get_ident()].pop().__exit__(*exception)

    def __repr__(self) -> str:
        lines = [f"{len(self.rows)} passes on {self.device}; ms a call, the implementation that serves first"]
        for row in self.rows:
            times = f"  {row.calls} x  {row.key}" if row.calls > 1 else f"  {row.key}"
            others = sorted(dict(row.seconds).items(), key=lambda item: (item[0] != row.implementation, item[1]))
            lines.append(f"{times}\n      " + ", ".join(f"{name} {1e3 * seconds:.3g}" for name, seconds in others))
        if self.left_out:
            lines.append(f"no time for {self.left_out} more: give more `seconds`")
        return "\n".join(lines)


def key_of(pass_name: str, problem: ConvProblem) -> str:
    """A pass of a problem in words, such as `forward float32[8,28,28,3] * [3,3,3,64], stride 2x2`."""
    window, groups = problem.geometry.window, problem.geometry.groups
    image = ",".join(map(str, (problem.images, *window.spatial, problem.in_channels * groups)))
    kernel = ",".join(map(str, (*window.size, problem.in_channels, problem.out_channels * groups)))
    parts = [f"{pass_name} {problem.dtype}[{image}] * [{kernel}]"]
    for name, values in (("stride", window.stride), ("dilation", window.dilation), ("gaps", window.input_dilation)):
        if set(values) - {1}:
            parts.append(f"{name} {'x'.join(map(str, values))}")
    if any(map(any, window.padding)):
        parts.append("padding " + " ".join(f"{low}+{high}" for low, high in window.padding))
    if groups > 1:
        parts.append(f"{groups} groups")
    return ", ".join(parts)


def in_force() -> Tuning | None:
    """That of the innermost `with tuning:`, or that which is installed."""
    return tuning_in_force.value or installed()


@functools.cache
def installed() -> Tuning | None:
    """The tuning that the environment variable `JAXCNNBP_TUNING` names, None for none."""
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    try:
        found = Tuning.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"`{VARIABLE}` (={path!r}) cannot be read ({error.strerror}); name a file that `jaxcnnbp tune -o` wrote."
        ) from error
    _require_device(found)
    return found


def _require_device(tuning: Tuning) -> None:
    if tuning.device != device():
        raise InputError(f"`tuning` was measured on {tuning.device!r}, and this is {device()!r}; tune again here.")
