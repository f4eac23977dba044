"""Which implementation serves a pass of a convolution.

In this order: the one that `implementation` asks for; on a CPU the one that the tuning in force found fastest for this
very problem; the one that the nearest measured problems say is fastest (`measured`); lax's own.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
from jax.export import is_symbolic_dim

from jaxcnnbp.errors import InputError
from jaxcnnbp.ops.conv.cuda import Faster
from jaxcnnbp.ops.conv.geometry import Form
from jaxcnnbp.ops.conv.measured import expected_best
from jaxcnnbp.ops.conv.problem import ConvProblem, Implementation, Spread
from jaxcnnbp.ops.conv.tuning import Tuning

DEFAULT = "the default where nothing was measured to be faster"


@dataclass(frozen=True)
class Pass:
    """One of the three passes of a convolution, with everything that can compute it.

    Attributes:
      name: `"forward"`, `"input grad"` or `"kernel grad"`.
      on_cpu: what can serve on CPUs.
      on_cuda: what was measured to be faster than lax's on an NVIDIA GPU.
      by_name: what serves only where it is asked for.
      lax_form: lax's own convolution.
    """

    name: str
    on_cpu: tuple[Implementation, ...]
    on_cuda: tuple[Faster, ...]
    by_name: tuple[Implementation, ...]
    lax_form: Form

    @cached_property
    def by_lax(self) -> Implementation:
        """lax's own convolution, which XLA lays wrongly over several devices."""
        return Implementation(self.lax_form, lambda _: True, single_device=True, uncounted=True)

    @property
    def all(self) -> tuple[Implementation, ...]:
        """Everything, what is for CPUs first."""
        return (*self.on_cpu, *(row.implementation for row in self.on_cuda), *self.by_name, self.by_lax)

    def supporting(self, problem: ConvProblem, partitioned: bool, platform: str | None = None) -> list[Implementation]:
        """What means this pass of the convolution, one a name, on the default platform if None."""
        return _by_name(row for row in self.all if row.serves(problem, partitioned, _as_lowered(platform)))


class Served(NamedTuple):
    """What serves one pass of one convolution on each platform."""

    on_cpu: Implementation
    exact: Implementation  # on a CPU where numbers are not finite
    on_cuda: Implementation
    elsewhere: Implementation
    reasons: dict[str, str]  # by platform: `"cpu"`, `"cuda"` and `""`

    def on(self, platform: str | None = None) -> tuple[Implementation, str]:
        """What serves on a platform, the default one if None, and why."""
        name = _as_lowered(platform)
        found = {"cpu": self.on_cpu, "cuda": self.on_cuda}.get(name, self.elsewhere)
        return found, self.reasons.get(name, self.reasons[""])


@dataclass(frozen=True)
class Asked:
    """What there is to choose for one pass.

    Attributes:
      of: the pass.
      problem: the convolution.
      partitioned: whether the arrays may lie on several devices.
      implementation: the name that `implementation` asks for, None for none.
      tuning: the one in force, None for none.
    """

    of: Pass
    problem: ConvProblem
    partitioned: bool
    implementation: str | None = None
    tuning: Tuning | None = None

    def served(self, platform: str | None = None) -> Served:
        """What serves.

        Raises InputError if the implementation asked for computes this pass, but not of this convolution.
        """
        default = self._measured()
        if self.implementation is None or not any(row.name == self.implementation for row in self.of.all):
            return default
        able = self.of.supporting(self.problem, self.partitioned, platform)
        found = next((row for row in able if row.name == self.implementation), None)
        if found is None:
            raise InputError(self._refusal(able))
        reasons: dict[str, str] = dict.fromkeys(("cpu", "cuda", ""), "asked for by `implementation`")
        if self.implementation == "xla":
            on_cuda = default.on_cuda if self.problem.exceeds_cudnn else self.of.by_lax
            return default._replace(on_cpu=found, on_cuda=on_cuda, reasons=reasons)
        return Served(found, default.exact, found, found, reasons)

    def _measured(self) -> Served:
        able = _by_name(row for row in self.of.on_cpu if row.serves(self.problem, self.partitioned))
        if not self.problem.few_taps:
            # The formula writes every tap out: it serves by its name, or where nothing else does.
            able = [row for row in able if row.name != "reference"] or able
        on_cpu, reason = self._fastest(able)
        # What stands in where numbers are not finite is to compile soon, not to be fast: lax's own, listed first.
        exact = next(row for row in able if row.spreads is Spread.NOWHERE)
        on_cuda, why = self._on_cuda(able)
        return Served(on_cpu, exact, on_cuda, self.of.by_lax, {"cpu": reason, "cuda": why, "": DEFAULT})

    def _on_cuda(self, able: list[Implementation]) -> tuple[Implementation, str]:
        """What serves on an NVIDIA GPU, and why."""
        if self.problem.exceeds_cudnn:
            formula = next((row for row in able if row.name == "tap_groups"), self.of.on_cpu[-1])
            return formula, "cuDNN convolves over three axes at the most"
        faster = next((row for row in self.of.on_cuda if row.serves(self.problem)), None)
        return (faster.implementation, faster.measured) if faster else (self.of.by_lax, DEFAULT)

    def _fastest(self, able: list[Implementation]) -> tuple[Implementation, str]:
        """What is expected to take the least time on this CPU, and why."""
        names = {row.name: row for row in able}
        if self.tuning is not None and (tuned := self.tuning.choice(self.of.name, self.problem)) in names:
            return names[tuned], "measured for this problem by the tuning in force"
        if not is_symbolic_dim(self.problem.images):
            name, reason = _expected(self.of.name, self.problem, tuple(names))
            if name is not None:
                return names[name], reason
        return able[0], "nothing like it was measured"

    def _refusal(self, able: list[Implementation]) -> str:
        problem, window = self.problem, self.problem.geometry.window
        size, stride = ("x".join(map(str, each)) or "1" for each in (window.size, window.stride))
        devices = ", whose arrays may lie on several devices" if self.partitioned else ""
        return (
            f"`implementation` (={self.implementation!r}) must have a form for the {self.of.name} pass of this"
            f" convolution (window {size}, stride {stride}, groups={problem.geometry.groups}, {problem.in_channels} to"
            f" {problem.out_channels} channels in each){devices}; use one of"
            f" {', '.join(repr(row.name) for row in able)}, or None."
        )


_expected = functools.lru_cache(4096)(expected_best)


def _as_lowered(platform: str | None) -> str:
    """The platform by the name under which JAX lowers for it; the default one if None."""
    return {"gpu": "cuda"}.get(name := platform or jax.default_backend(), name)


def _by_name(rows: Any) -> list[Implementation]:
    """The first of each name."""
    found: dict[str, Implementation] = {}
    for row in rows:
        found.setdefault(row.name, row)
    return list(found.values())
