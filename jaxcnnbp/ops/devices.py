"""What the rules owe to `jax.shard_map`, inside which the types of arrays say what differs from device to device."""

from __future__ import annotations

import jax
import jax.numpy as jnp
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


def alike_zeros(shape: jax.ShapeDtypeStruct, *arrays: Array) -> Array:
    """Zeros, marked as different on all devices that any of `arrays` differs on."""
    return alike(jnp.zeros(shape.shape, shape.dtype), *arrays)[0]


def may_be_partitioned(x: Array) -> bool:
    """Whether the compiler may have to lay `x` over several devices: a loop over images would gather them.

    Inside `shard_map` every device has its own images, and with a single device there is nothing to lay out.
    """
    if jax.typeof(x).manual_axis_type.varying:
        return False
    mesh = jax.sharding.get_abstract_mesh()
    is_manual = bool(mesh.axis_names) and mesh.are_all_axes_manual
    return not is_manual and len(jax.devices("cpu")) > 1
