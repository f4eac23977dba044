"""What `manual_backward` would do to a function, without running it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from jax.extend import source_info_util
from jax.extend.core import Jaxpr, JaxprEqn

from jaxcnnbp._compat import type_in_words
from jaxcnnbp.transform.custom import CUSTOM, rule_of
from jaxcnnbp.transform.inner import inner_rule
from jaxcnnbp.transform.interpreter import inner_traces, opened
from jaxcnnbp.transform.manual import Manual, primitives_called
from jaxcnnbp.transform.mutable import lifted
from jaxcnnbp.transform.rules import SWAPPABLE
from jaxcnnbp.transform.trace import trace

# The rules of this package without a window: not what anybody looks for here.
NO_WINDOW = {"value", "dense", "add_bias", "pad", "entropy", "squared", "cross_entropy"}


@dataclass(frozen=True)
class Swap:
    """One convolution or pooling that was found.

    Attributes:
      rule: the name that `only=` uses, or that of a rule of this package that is there already.
      operands: types of the operands, such as `float32[8,28,28,3]`.
      path: what holds it, outermost first, such as `jit(step)/scan`.
      where: the line that called it.
      swapped: whether it gets a rule of this package.
      reason: why not, or what to know; empty if there is nothing to say.
    """

    rule: str
    operands: tuple[str, ...]
    path: str
    where: str
    swapped: bool
    reason: str

    def __str__(self) -> str:
        verdict = "swapped" if self.swapped else "left"
        place = f" in {self.path}" if self.path else ""
        reason = f" ({self.reason})" if self.reason else ""
        return f"{verdict:<8}{self.rule:<16}{', '.join(self.operands)}{place}, {self.where}{reason}"


@dataclass(frozen=True)
class Swaps:
    """Everything that `manual_backward` meets in a function; `print` shows it line by line."""

    found: tuple[Swap, ...]

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[Swap]:
        return iter(self.found)

    @property
    def swapped(self) -> tuple[Swap, ...]:
        """Those that get a rule of this package."""
        return tuple(swap for swap in self.found if swap.swapped)

    @property
    def left(self) -> tuple[Swap, ...]:
        """Those that stay JAX's."""
        return tuple(swap for swap in self.found if not swap.swapped)

    def __str__(self) -> str:
        if not self.found:
            return "no convolution and no pooling found"
        kinds = Counter(swap.rule for swap in self.swapped)
        counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "nothing"
        choice = "(`explain_choice` of what `manual_backward` returns says what computes each)"
        return "\n".join([f"{counts} swapped, {len(self.left)} left", *map(str, self.found), choice])


def explain_swaps(fun: Callable[..., Any], only: str | Iterable[str] | None = None) -> Callable[..., Swaps]:
    """What `manual_backward(fun, only)` swaps in `fun`, what it leaves, and why.

    Args:
      fun: a function that JAX can trace.
      only: as `manual_backward` takes it.

    Returns:
      A function of the arguments of `fun` that traces it, runs nothing, and gives the `Swaps`.

    Raises:
      ValueError: if `only` names no rule.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> def layer(x, kernel):
      ...     return jax.lax.conv(x, kernel, (1,), "VALID")
      >>> swaps = explain_swaps(layer)(jnp.ones((1, 1, 4)), jnp.ones((1, 1, 2)))
      >>> swaps.swapped[0].rule, len(swaps.left)
      ('conv', 0)

    Source: `transform.rules`, `transform.inner`.
    """
    reading = Manual(primitives_called(only))

    def explain(*args: Any, **kwargs: Any) -> Swaps:
        pure, _ = lifted(fun, args, kwargs)
        closed, _ = trace(pure)
        return Swaps(tuple(_walk(reading, closed.jaxpr, (), "")))

    return explain


def _walk(reading: Manual, jaxpr: Jaxpr, path: tuple[str, ...], outside: str, note: str = "") -> Iterator[Swap]:
    """`outside` is the reason why the whole of `jaxpr` is left to JAX, if it is; `note` what to know if it is not."""
    for eqn in jaxpr.eqns:
        if eqn.primitive in SWAPPABLE:
            yield _found(reading, eqn, path, outside, note)
        elif ours := rule_of(eqn):
            if ours.name not in NO_WINDOW:
                yield _swap(ours.name.removesuffix("_rule"), eqn, path, False, "has a rule of this package already")
        else:
            barrier, remark = outside or _barrier(reading, eqn), note or CUSTOM.get(eqn.primitive, "")
            for inner in inner_traces(eqn):
                yield from _walk(reading, opened(inner), (*path, _label(eqn)), barrier, remark)


def _found(reading: Manual, eqn: JaxprEqn, path: tuple[str, ...], outside: str, note: str) -> Swap:
    kind = SWAPPABLE[eqn.primitive]
    chosen = "" if eqn.primitive in reading.chosen else "not in `only`"
    against = outside or chosen or kind.refuses(eqn) or ""
    return _swap(kind.name, eqn, path, not against, against or note or _remark(eqn))


def _swap(name: str, eqn: JaxprEqn, path: tuple[str, ...], swapped: bool, reason: str) -> Swap:
    operands = tuple(type_in_words(atom.aval) for atom in eqn.invars)
    where = source_info_util.summarize(eqn.source_info)
    return Swap(name, operands, "/".join(path), where, swapped, reason)


def _barrier(reading: Manual, eqn: JaxprEqn) -> str:
    if inner_rule(eqn) is None:
        return f"inside `{eqn.primitive.name}`, which is not entered"
    return "" if reading.enters(eqn) else "recomputed by a gradient that was taken before"


def _remark(eqn: JaxprEqn) -> str:
    """A gradient taken inside the function has its convolutions already."""
    if "transpose(" in str(eqn.source_info.name_stack):
        return "part of a gradient that was taken inside: wrap what jax.grad receives, not what it returns"
    return ""


def _label(eqn: JaxprEqn) -> str:
    name = eqn.params.get("name")
    return f"{eqn.primitive.name}({name})" if isinstance(name, str) else eqn.primitive.name
