"""What is in force where a rule is called is in force in its backward pass.

A backward pass runs later than its forward pass: after the `with jax.enable_x64(True)` or the
`with jax.default_matmul_precision("highest")` that stood around the call. lax fixes such things in the equation when it
is called. A rule is called at one moment and traced backwards at another, so what was in force is noted at the call.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from jaxcnnbp.modes import chosen_implementation, mode, tuning_in_force

# Settings that JAX traces by, each with its context manager. All are part of the key under which `jax.jit` keeps a
# trace, so that what a trace has noted holds for whoever calls it.
_JAX: dict[str, Callable[[Any], Any]] = {
    "jax_enable_x64": jax.enable_x64,
    "jax_default_matmul_precision": jax.default_matmul_precision,
    "jax_numpy_dtype_promotion": jax.numpy_dtype_promotion,
    "jax_numpy_rank_promotion": jax.numpy_rank_promotion,
    "jax_default_device": jax.default_device,
    "jax_disable_jit": jax.disable_jit,
}
# Contexts of this package.
_OURS = (mode, chosen_implementation, tuning_in_force)


@dataclass(frozen=True)
class InForce:
    """What was in force at one moment: the values of `_JAX`, then those of `_OURS`."""

    values: tuple[Any, ...]

    def again(self) -> ExitStack:
        """A context in which it is in force once more."""
        stack = ExitStack()
        now = in_force().values
        for manager, value, current in zip((*_JAX.values(), *_OURS), self.values, now, strict=True):
            if value != current:
                stack.enter_context(manager(value))
        return stack


def in_force() -> InForce:
    """What is in force now."""
    return InForce((*(getattr(jax.config, name) for name in _JAX), *(context.value for context in _OURS)))


@dataclass(frozen=True)
class Under:
    """`fun`, run under `settings`: equal ones are equal, so that what was traced for one serves the other."""

    settings: InForce
    fun: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        with self.settings.again():
            found = self.fun(*args)
        if isinstance(found, tuple) and any(isinstance(part, partial) for part in found):
            return tuple(self._later(part) for part in found)
        return found

    def _later(self, part: Any) -> Any:
        """A gradient that is left to the caller (`wanted`) is computed under the same settings."""
        return partial(Under(self.settings, part.func), *part.args) if isinstance(part, partial) else part
