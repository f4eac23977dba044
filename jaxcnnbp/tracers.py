"""What a value tells about the transformation it is under."""

from __future__ import annotations

from typing import Any

import jax
from jax._src.interpreters.batching import BatchTracer  # has no public name
from jax.interpreters.ad import JVPTracer


def in_forward_mode(value: Any) -> bool:
    """Whether `value` carries a tangent of a pure `jax.jvp`, which `jax.custom_vjp` refuses and lax's form does not.

    Reverse mode linearizes, and forward over reverse shows that first: its tracers are of another class. A function
    that was staged before (by `jit` or `scan`) is not called again for its tangents; the way out is there
    `mode("autodiff")`.
    """
    while isinstance(value, BatchTracer):
        value = value.val
    return isinstance(value, JVPTracer) and getattr(jax.config, "jax_use_direct_linearize", True)
