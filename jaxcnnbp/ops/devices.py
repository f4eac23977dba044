"""What the rules owe to meshes of devices, where the types of arrays say what lies where.

Inside `jax.shard_map` they say what differs from device to device, under explicit axes how an array is split.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec


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
    return not is_manual and _cpu_devices() > 1


def _cpu_devices() -> int:
    """How many there are, in all processes; none where JAX was told to leave CPUs alone (`JAX_PLATFORMS=cuda`)."""
    try:
        return len(jax.devices("cpu"))
    except RuntimeError:
        return 0


def placed(rule: Callable[..., Any], *arrays: Array, sharding: Any) -> Any:
    """`rule(*arrays)`, its outputs laid over the devices as `sharding` (of lax's own output) says, if it says anything.

    Where shardings are part of the types (`jax.sharding.AxisType.Explicit`) the forms of a rule would each have to say
    where their reshapes and slices lie. The compiler knows: inside, the axes of the mesh are its own, and only operands
    and outputs, and so their gradients, carry the types that lax gives them.
    """
    axes = explicit_axes(sharding)
    if not axes:
        return rule(*arrays)
    placed_rule = jax.sharding.auto_axes(rule, axes=axes, out_sharding=sharding)
    return placed_rule(*(_on_mesh(a, sharding.mesh) for a in arrays))


def explicit_axes(sharding: Any) -> tuple[str, ...]:
    """The axes of a mesh, if `sharding` is on one, that are part of the types of arrays."""
    mesh = getattr(sharding, "mesh", None)
    if mesh is None or mesh.empty:
        return ()
    rows = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return tuple(name for name, kind in rows if kind == AxisType.Explicit)


def _on_mesh(array: Array, mesh: Any) -> Array:
    """An operand that is on no mesh as one that all devices hold: else its gradient would come back on another mesh."""
    return jax.reshard(array, NamedSharding(mesh, PartitionSpec())) if jax.typeof(array).sharding.mesh.empty else array


def placed_alike(rule: Callable[..., Any], x: Array, *others: Array) -> Any:
    """`rule(x, *others)`, each output laid over the devices as `x` is, which is what lax does with windows."""
    return placed(rule, x, *others, sharding=jax.typeof(x).sharding)
