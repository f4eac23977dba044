"""What the compiler says of a program without running it: its memory, how long it took, what passes between passes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental.compilation_cache.compilation_cache import reset_cache


@dataclass(frozen=True)
class Compiled:
    """A program, and what the compiler says of it."""

    function: Callable[..., Any]
    seconds: float  # to trace, lower and compile
    temp_bytes: int | None  # largest temporary memory; None where the platform does not say


def compile_cold(jitted: Any, *args: Any) -> Compiled:
    """Compile a function under `jax.jit` for some arguments, past every cache on disk."""
    with _without_cache():
        begin = time.perf_counter()
        compiled = jitted.lower(*args).compile()
        seconds = time.perf_counter() - begin
    analysis = compiled.memory_analysis()
    return Compiled(compiled, seconds, None if analysis is None else int(analysis.temp_size_in_bytes))


def temporary(programs: Mapping[str, Compiled]) -> dict[str, int]:
    """The temporary memory of each program, where the platform tells."""
    return {side: program.temp_bytes for side, program in programs.items() if program.temp_bytes is not None}


@contextlib.contextmanager
def _without_cache() -> Iterator[None]:
    was_on = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    reset_cache()  # JAX asks only once in a process whether there is one
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", was_on)
        reset_cache()


def residual_bytes(function: Callable[..., Any], *args: Any, has_aux: bool = False) -> int:
    """Bytes that wait for the backward pass: everything the forward pass keeps, inputs and parameters among it.

    Example:
      >>> import jax.numpy as jnp
      >>> residual_bytes(jnp.sin, jnp.ones(8))
      32
    """
    kept = jax.eval_shape(lambda *a: jax.vjp(function, *a, has_aux=has_aux)[1], *args)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))
