"""What this package needs of JAX that has no public name, one function each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jax.extend.core import JaxprEqn


def without_compiler_options(fun: Callable[..., Any]) -> tuple[Callable[..., Any], tuple[tuple[str, Any], ...]]:
    """A function made by `jax.jit(..., compiler_options=...)` as one without, which may be traced, and its options."""
    info = getattr(fun, "_jit_info", None)
    options = getattr(info, "compiler_options_kvs", ())
    if info is None or not options:
        return fun, ()
    from jax._src.pjit import _cpp_pjit

    return _cpp_pjit(fun.__wrapped__, info._replace(compiler_options_kvs=())), options


def with_compiler_options(eqn: JaxprEqn, options: tuple[tuple[str, Any], ...]) -> JaxprEqn:
    """The call of a compiled function, to be compiled with `options`."""
    return eqn.replace(params=eqn.params | {"compiler_options_kvs": options})
