"""What the rules owe to `jax.shard_map`, inside which the types of arrays say what differs from device to device."""

from __future__ import annotations

import jax
from jax import Array, lax


def alike(*arrays: Array) -> tuple[Array, ...]:
    """`arrays`, each marked as different on all devices that any of them differs on, as lax marks its operands.

    `jax.custom_vjp` does not do it. The transpose of the mark is a sum over the devices: the gradient of a kernel that
    all share is the sum of those that each finds on its images.
    """
    axes = [jax.typeof(a).manual_axis_type.varying for a in arrays]
    every = frozenset().union(*axes)
    missing = [tuple(sorted(every - own)) for own in axes]
    return tuple(lax.pcast(a, m, to="varying") if m else a for a, m in zip(arrays, missing, strict=True))
