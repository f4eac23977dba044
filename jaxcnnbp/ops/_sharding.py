"""What the rules owe to meshes of devices, where the types of arrays say what lies where.

Inside `jax.shard_map` they say what differs from device to device, under explicit axes how an array is split.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxcnnbp._compat import varying_axes
from jaxcnnbp.hand_written import unify_varying_axes


def zeros_varying_like(shape: jax.ShapeDtypeStruct, *arrays: Array) -> Array:
    """Zeros that vary over the mesh axes that any of `arrays` varies over."""
    return unify_varying_axes(jnp.zeros(shape.shape, shape.dtype), *arrays)[0]


def may_be_partitioned(x: Array) -> bool:
    """Whether the compiler may have to lay `x` over several CPUs.

    Inside a `shard_map` over all axes of the mesh every device has its own images; over some of them, the compiler has
    the others. With a single device there is nothing to lay out.
    """
    mesh, varying = jax.sharding.get_abstract_mesh(), varying_axes(x)
    is_manual = mesh.are_all_axes_manual if mesh.axis_names else bool(varying)
    return not is_manual and _cpu_devices() > 1


def _cpu_devices() -> int:
    """How many there are, in all processes; none where JAX was told to leave CPUs alone (`JAX_PLATFORMS=cuda`)."""
    try:
        return len(jax.devices("cpu"))
    except RuntimeError:
        return 0


def with_sharding(rule: Callable[..., Any], *arrays: Array, sharding: Any) -> Any:
    """`rule(*arrays)`, its outputs laid over the devices as `sharding` (of lax's own output) says, if it says anything.

    Where shardings are part of the types (`jax.sharding.AxisType.Explicit`) the forms of a rule would each have to say
    where their reshapes and slices lie. The compiler knows: inside, the axes of the mesh are its own, and only operands
    and outputs, and so their gradients, carry the types that lax gives them.
    """
    mesh = getattr(sharding, "mesh", None)
    axes = explicit_axes(mesh)
    if mesh is None or not axes:
        return rule(*arrays)
    return _with_automatic_axes(rule, axes, sharding)(*(_on_mesh(a, mesh) for a in arrays))


def with_sharding_by(rule: Callable[..., Any], spec: Callable[..., Sequence[Any]], *arrays: Array) -> Any:
    """The same, where lax has no output to ask: `spec` makes the axes of the outputs from those of the arrays.

    An axis of the mesh that does not divide the extent it is meant for, or that the output has already, is left out.
    """
    meshes = [jax.typeof(a).sharding.mesh for a in arrays]
    mesh = next(filter(explicit_axes, meshes), None)
    if mesh is None:
        return rule(*arrays)
    axes, wanted = explicit_axes(mesh), spec(*map(_axes_of, arrays))
    arrays = tuple(_on_mesh(a, mesh) for a in arrays)
    shapes = jax.eval_shape(_with_automatic_axes(rule, axes, NamedSharding(mesh, PartitionSpec())), *arrays)
    shardings = jax.tree.map(lambda out: NamedSharding(mesh, _fitted(wanted, out.shape, mesh)), shapes)
    return _with_automatic_axes(rule, axes, shardings)(*arrays)


def with_sharding_like(rule: Callable[..., Any], x: Array, *others: Array) -> Any:
    """`rule(x, *others)`, each output laid over the devices as `x` is, which is what lax does with windows."""
    return with_sharding_by(rule, lambda of_x, *_: of_x, x, *others)


def explicit_axes(mesh: Any) -> tuple[str, ...]:
    """The axes of `mesh`, if there is one, that are part of the types of arrays."""
    if mesh is None or mesh.empty:
        return ()
    rows = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return tuple(name for name, kind in rows if kind == AxisType.Explicit)


def _with_automatic_axes(rule: Callable[..., Any], axes: tuple[str, ...], sharding: Any) -> Callable[..., Any]:
    return jax.sharding.auto_axes(rule, axes=axes, out_sharding=sharding)


def _on_mesh(array: Array, mesh: Any) -> Array:
    """An operand that is on no mesh as one that all devices hold: else its gradient would come back on another mesh."""
    return jax.reshard(array, NamedSharding(mesh, PartitionSpec())) if jax.typeof(array).sharding.mesh.empty else array


def _axes_of(array: Array) -> tuple[Any, ...]:
    """What each extent of `array` is spread over: a name, a tuple of them, or None."""
    spec = tuple(jax.typeof(array).sharding.spec)
    return (*spec, *(None,) * (array.ndim - len(spec)))


def _fitted(wanted: Sequence[Any], shape: Sequence[int], mesh: Any) -> PartitionSpec:
    """`wanted` as far as `shape` allows."""
    taken, spec = set[str](), list[Any]()
    for names, extent in zip(wanted, shape, strict=False):
        each = tuple(n for n in (names if isinstance(names, tuple) else (names,)) if n is not None)
        fits = each and taken.isdisjoint(each) and extent % math.prod(mesh.shape[n] for n in each) == 0
        taken.update(each if fits else ())
        spec.append(names if fits else None)
    return PartitionSpec(*spec)
