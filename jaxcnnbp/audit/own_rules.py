"""The rules that the author of a function wrote: found, and taken away at their call.

A rule inside an inner gradient (a gradient penalty, a Hessian-vector product, `vmap(grad)`) has run by the time that
the function is a trace. So it is taken away where it is called, before anything is differentiated: calling a
`jax.custom_vjp` or `jax.custom_jvp` then calls the function that it was made from. JAX's own rules (of `jax.nn.relu`,
of special functions) belong to the definition of what they differentiate, and stay.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import dropwhile, islice
from pathlib import Path
from traceback import walk_stack
from types import CodeType
from typing import Any

import jax
from jax.extend.core import JaxprEqn
from jax.extend.core.primitives import stop_gradient_p

_JAX = Path(jax.__file__).parent
# What JAX raises where it cannot trace, differentiate or compute something: its errors have no class in common. A
# name or an attribute that is not there is the author's mistake, and is raised as it is.
REFUSALS = (TypeError, ValueError, RuntimeError, LookupError, AssertionError)
KINDS = (jax.custom_vjp, jax.custom_jvp)
Written = tuple[CodeType, ...]
# Part of the key under which `jax.jit` keeps a trace: what was traced with its rules is traced again without them.
_kept = jax.make_user_context("all")
_patching = threading.RLock()


@contextmanager
def without_rules(kinds: tuple[type, ...] = KINDS, but: Written | None = None) -> Iterator[None]:
    """Inside, rules of `kinds` are not there, except JAX's own and the one that was written as `but`."""
    names = tuple(kind.__name__ for kind in kinds)
    key = (*names, but)

    def call(rule: Any, usual: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        asked = _kept.value == key and type(rule).__name__ in names
        gone = asked and not is_of_jax(rule) and written(rule) != but
        return rule.__wrapped__(*args, **kwargs) if gone else usual(rule, *args, **kwargs)

    with _patched(call), _kept(key):
        yield


class Noted(dict[Written, str]):
    """Names of functions with a rule, by where it was written: names may be alike, as those of all lambdas are."""

    foreign = False  # whether one of them is not of this package
    kinds: tuple[type, ...] = KINDS[:1]  # those that may have to be taken away


@contextmanager
def noting() -> Iterator[Noted]:
    """The names of the functions with a rule that are called inside, in the order of their first call."""
    found = Noted()

    def call(rule: Any, usual: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not is_of_jax(rule) and (key := written(rule)) not in found:
            found[key] = getattr(rule, "__name__", type(rule).__name__)
            found.kinds = KINDS if isinstance(rule, jax.custom_jvp) else found.kinds
            found.foreign |= module_of(rule) != __name__.partition(".")[0]
        return usual(rule, *args, **kwargs)

    with _patched(call), _kept(object()):  # a key of its own: a trace that is kept calls nothing
        yield found


def first_that_works(make: Callable[[tuple[type, ...]], Any], kinds: tuple[type, ...]) -> Any:
    """`make` without the author's rules of `kinds`; with each `jax.custom_jvp` where JAX cannot differentiate what it
    is of.
    """
    try:
        return make(kinds)
    except REFUSALS as error:
        if jax.custom_jvp not in kinds:
            raise
        try:
            return make((jax.custom_vjp,))
        except REFUSALS:
            raise error from None


def cut_at(eqn: JaxprEqn) -> str:
    """Where the author stops a gradient by this equation, or ""; JAX does so itself, in `jnp.linalg.solve` for one."""
    if eqn.primitive is not stop_gradient_p:
        return ""
    frames = eqn.source_info.traceback.frames if eqn.source_info.traceback else []
    return _place_of_cut((frame.function_name, frame.file_name, frame.line_num) for frame in frames)


@contextmanager
def noting_cuts() -> Iterator[set[str]]:
    """The places where the author of what is called inside stops a gradient."""
    found, usual = set[str](), stop_gradient_p.bind

    def bind(*args: Any, **params: Any) -> Any:
        stack = ((frame.f_code.co_name, frame.f_code.co_filename, line) for frame, line in walk_stack(None))
        found.update(filter(None, [_place_of_cut(stack)]))
        return usual(*args, **params)

    with _patching, _kept(object()):
        stop_gradient_p.bind = bind
        try:
            yield found
        finally:
            del stop_gradient_p.bind


def _place_of_cut(stack: Iterable[tuple[str, str, int]]) -> str:
    """Where `stop_gradient` was called from, on a stack of (function, file, line) from the inside; "" in JAX."""
    above = dropwhile(lambda frame: frame[0] != "stop_gradient", stack)
    _, file, line = next(islice(above, 1, None), ("", "?", 0))
    return "" if Path(file).is_relative_to(_JAX) else f"{Path(file).name}:{line}"


def written(rule: Any) -> Written:
    """The code of a rule, which is the same of a function that is made anew in every call."""
    codes = (getattr(_inside(part), "__code__", None) for part in (rule, *_derivatives(rule)))
    return tuple(code for code in codes if code is not None)


def is_of_jax(rule: Any) -> bool:
    """Whether JAX wrote it."""
    return module_of(rule) == "jax"


def module_of(rule: Any) -> str:
    """The package that it is of: where its function was written, or, for a function of JAX's, its derivative."""
    modules = (str(getattr(_inside(part), "__module__", "")) for part in (rule, *_derivatives(rule)))
    packages = (module.partition(".")[0] for module in modules)
    return next((name for name in packages if name != "jax"), "jax")


def _derivatives(rule: Any) -> Iterator[Any]:
    """The functions that say what its derivative is; `defjvps` has JAX call them from a function of its own."""
    yield from filter(None, (getattr(rule, name, None) for name in ("fwd", "bwd")))
    if (jvp := getattr(rule, "jvp", None)) is not None:
        held = [cell.cell_contents for cell in getattr(jvp, "__closure__", None) or ()]
        each = [one for cell in held for one in (cell if isinstance(cell, (tuple, list)) else (cell,))]
        yield from (jvp, *filter(callable, each))


def _inside(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


@contextmanager
def _patched(call: Callable[..., Any]) -> Iterator[None]:
    """`call(rule, usual, *args)` instead of `rule(*args)`, for this thread's contexts alone by what `call` asks."""
    with _patching:
        usual = [(kind, kind.__call__) for kind in KINDS]
        for kind, method in usual:
            setattr(kind, "__call__", functools.partialmethod(call, method))  # noqa: B010 - a type checker knows that it is not ours
        try:
            yield
        finally:
            for kind, method in usual:
                setattr(kind, "__call__", method)  # noqa: B010
