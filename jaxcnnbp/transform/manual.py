"""`manual_backward`: a function with this package's rules in the place of JAX's convolutions and pools."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Primitive

from jaxcnnbp._compat import name_of, with_compiler_options, with_weak_type, without_compiler_options
from jaxcnnbp.modes import mode
from jaxcnnbp.recording import recording
from jaxcnnbp.transform.custom import is_of_this_package
from jaxcnnbp.transform.inner import Inner, inner_rule
from jaxcnnbp.transform.interpreter import bind, context_of, evaluate, inner_traces, opened
from jaxcnnbp.transform.mutable import lifted
from jaxcnnbp.transform.rules import SWAPPABLE
from jaxcnnbp.transform.trace import trace

Function = TypeVar("Function", bound=Callable[..., Any])
Trace = ClosedJaxpr | Jaxpr


def manual_backward(fun: Function, only: str | Iterable[str] | None = None) -> Function:
    """The same function, with every convolution and pooling in it differentiated by the rules of this package.

    Also inside `jit`, `scan`, `while_loop`, `cond`, `checkpoint`, `vmap` and `shard_map`. Of a function with a
    `custom_vjp` or `custom_jvp` the forward is swapped, its own derivative stands. `fun` is traced whenever the result
    is called, so Python control flow sees tracers, as under `jax.jit`; whatever is not an array (flags, names, modules)
    reaches `fun` as it is, and Flax NNX modules among the arguments are changed in place as `fun` changes them. Wrap
    what `jax.grad` receives, not the gradient: that has its backward pass already.

    Args:
      fun: any function that JAX can trace; it may close over tracers.
      only: which rules to use, all if None: one or several of `"conv"`, `"max_pool"`, `"min_pool"`, `"sum_pool"`
        (which mean pools are made of) and `"reduce_window"` (every other reducer).

    Returns:
      A function of the same arguments and results; pure forward mode (`jax.jvp`) goes through its rules under
      `jaxcnnbp.mode("both_ways")`. Under `jaxcnnbp.mode("autodiff")` it is `fun` itself.

    Raises:
      ValueError: if `only` names no rule.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> def pooled(x):  # JAX has no gradient for dilated windows
      ...     return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (2,), (1,), "VALID", window_dilation=(2,)).sum()
      >>> jax.grad(manual_backward(pooled))(jnp.array([3., 1., 2., 5.]))
      Array([1., 0., 0., 1.], dtype=float32)

    Source: `ops.conv.rule`, `ops.pool.max`, `ops.pool.mean`; after *Autodidax*, JAX's own account of its interpreters.
    """
    reading = Manual(primitives_called(only))
    if not jax.tree_util.all_leaves([fun]):
        return cast(Function, ManualModule(fun, reading))

    @functools.wraps(fun, updated=())
    def manual(*args: Any, **kwargs: Any) -> Any:
        return _called(fun, reading, args, kwargs)

    return cast(Function, manual)


def _called(fun: Callable[..., Any], reading: Manual, args: Any, kwargs: Any) -> Any:
    """`fun(*args, **kwargs)` by the rules; on its own, so that what `manual_backward` returns holds nothing else: it
    can be pickled wherever `fun` can.
    """
    if mode.value == "autodiff":
        return fun(*args, **kwargs)
    fun, options = without_compiler_options(fun)
    pure, update = lifted(fun, args, kwargs)
    closed, rebuild = trace(pure, named_after=fun)

    def equation(eqn: JaxprEqn, values: list[Any]) -> Sequence[Any]:
        # With options the trace is one equation, the call of the compiled function. What is only looked at has none.
        compiled = options and recording.value is None
        return reading.equation(with_compiler_options(eqn, options) if compiled else eqn, values)

    return update(rebuild(evaluate(closed.jaxpr, closed.consts, (), equation)))


@jax.tree_util.register_pytree_with_keys_class
class ManualModule:
    """`manual_backward` of a callable pytree, such as an Equinox module: what it holds is still seen as its leaves."""

    def __init__(self, fun: Callable[..., Any], reading: Manual):
        self.fun, self.reading = fun, reading

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return self.fun

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _called(self.fun, self.reading, args, kwargs)

    def tree_flatten_with_keys(self) -> tuple[Any, Any]:
        return ((jax.tree_util.GetAttrKey("fun"), self.fun),), self.reading

    @classmethod
    def tree_unflatten(cls, reading: Manual, children: Any) -> ManualModule:
        (fun,) = children
        return cls(fun, reading)


def primitives_called(only: str | Iterable[str] | None) -> frozenset[Primitive]:
    """The primitives whose rules `only` names."""
    names = {kind.name: primitive for primitive, kind in SWAPPABLE.items()}
    chosen = names if only is None else (only,) if isinstance(only, str) else tuple(only)
    for name in chosen:
        if name not in names:
            raise ValueError(f"`only` (={only!r}) names no rule {name!r}; use some of {', '.join(map(repr, names))}.")
    return frozenset(names[name] for name in chosen)


@dataclass(frozen=True)
class Manual:
    """The reading of a trace in which the primitives `chosen` have this package's rules."""

    chosen: frozenset[Primitive]

    def __reduce__(self) -> Any:
        """Pickled by the names of the rules: a primitive is known by its identity, which no copy of it has."""
        return _reading_of, (tuple(SWAPPABLE[primitive].name for primitive in self.chosen),)

    def equation(self, eqn: JaxprEqn, values: list[Any]) -> Sequence[Any]:
        """The outputs of one equation."""
        if self.swaps(eqn):
            outputs = SWAPPABLE[eqn.primitive].apply(eqn, values)
            return [with_weak_type(y, var.aval) for y, var in zip(outputs, eqn.outvars, strict=True)]
        if self._reaches_into(eqn):
            return cast(Inner, inner_rule(eqn))(self, eqn, values)
        return bind(eqn, values)

    def swaps(self, eqn: JaxprEqn) -> bool:
        """Whether the equation itself is replaced."""
        return eqn.primitive in self.chosen and SWAPPABLE[eqn.primitive].refuses(eqn) is None

    def enters(self, eqn: JaxprEqn) -> bool:
        """Whether the traces that the equation holds are read as well."""
        differentiated = eqn.params.get("differentiated", False)
        return inner_rule(eqn) is not None and not differentiated and not is_of_this_package(eqn)

    def touches(self, held: Trace) -> bool:
        """Whether anything in `held` is replaced; what is not touched is bound again just as it was."""
        return self._recall(_touched, held, self._is_touched)

    def rewritten(self, closed: ClosedJaxpr) -> ClosedJaxpr:
        """`closed` with the rules in it: always the same object, so that what was compiled for it is found again."""
        return self._recall(_rewritten, closed, self._rewrite)

    def _recall(self, memory: WeakKeyDictionary[Trace, dict[Any, Any]], held: Trace, make: Callable[[Any], Any]) -> Any:
        """What was made of a trace, once; of those in it first, so that the depth of the stack does not grow."""
        key = self, mode.value
        if key not in memory.get(held, {}):
            for one, context in self._inside_out(held, Jaxpr if memory is _rewritten else ()):
                if key not in memory.setdefault(one, {}):
                    with context:
                        memory[one][key] = make(one)
        return memory[held][key]

    def _inside_out(self, held: Trace, closed_to: Any) -> list[tuple[Trace, Any]]:
        """`held` and the traces in it that are entered, each after those that it holds, and in which context it is.

        What is of the kind `closed_to` is left out: only the primitive that holds it can say under which axes it runs.
        """
        order: dict[int, tuple[Trace, Any]] = {}
        waiting: list[tuple[Trace, Any, bool]] = [(held, nullcontext(), False)]
        while waiting:
            one, context, are_inner_listed = waiting.pop()
            if are_inner_listed:
                order[id(one)] = one, context
            elif id(one) not in order:
                waiting.append((one, context, True))
                for eqn in filter(self.enters, opened(one).eqns):
                    inner = [trace for trace in inner_traces(eqn) if not isinstance(trace, closed_to)]
                    waiting.extend((trace, context_of(eqn), False) for trace in inner)
        return list(order.values())

    def _is_touched(self, held: Trace) -> bool:
        return any(map(self._reaches, opened(held).eqns))

    def _rewrite(self, closed: ClosedJaxpr) -> ClosedJaxpr:
        if not self.touches(closed):
            return closed

        def body(*args: Any) -> list[Any]:
            return evaluate(closed.jaxpr, closed.consts, args, self.equation)

        body.__name__ = name_of(closed.jaxpr)
        return jax.make_jaxpr(body)(*closed.in_avals)

    def _reaches(self, eqn: JaxprEqn) -> bool:
        return self.swaps(eqn) or self._reaches_into(eqn)

    def _reaches_into(self, eqn: JaxprEqn) -> bool:
        return self.enters(eqn) and any(map(self.touches, inner_traces(eqn)))


def _reading_of(names: tuple[str, ...]) -> Manual:
    return Manual(primitives_called(names))


# Keyed by the identity of a trace: JAX keeps the trace of a function that was traced before, and drops it in the end.
_touched: WeakKeyDictionary[Trace, dict[Any, bool]] = WeakKeyDictionary()
_rewritten: WeakKeyDictionary[Trace, dict[Any, Any]] = WeakKeyDictionary()
