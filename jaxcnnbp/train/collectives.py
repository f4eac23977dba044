"""Parameters in parts, and sums over devices: each a single collective, however many arrays there are.

A leaf of n elements that d devices share is, with its split axis first, a matrix (d, n / d) of one row a device. Side
by side the matrices of all leaves are one, which one all-gather makes and one reduce-scatter takes apart. What is not
in parts goes, as one vector, into one all-reduce.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxcnnbp.train.layout import DATA

Axes = tuple[int | None, ...]  # of each leaf the axis it is split along, None for whole ones; missing ones are None


def gather_parts(tree: Any, axes: Axes) -> Any:
    """Inside `shard_map`: whole arrays from the parts that the devices hold.

    All are marked as different on every device, or JAX would sum the gradient of each on its own.
    """
    leaves, structure = jax.tree.flatten(tree)
    first = [jnp.moveaxis(leaf, axis, 0) for leaf, axis in _parted(leaves, axes)]
    whole = iter(_gather(first) if first else ())
    found = [
        jax.lax.pcast(leaf, DATA, to="varying") if axis is None else jnp.moveaxis(next(whole), 0, axis)
        for leaf, axis in zip(leaves, axes, strict=True)
    ]
    return jax.tree.unflatten(structure, found)


def sum_over_devices(tree: Any, axes: Axes) -> Any:
    """Inside `shard_map`: sums over all devices of arrays of one type; with a split axis, only this device's part."""
    leaves, structure = jax.tree.flatten(tree)
    axes = axes + (None,) * (len(leaves) - len(axes))
    whole = iter(_sum([leaf for leaf, axis in zip(leaves, axes, strict=True) if axis is None]))
    parts = iter(_sum_into_parts(_parted(leaves, axes)))
    return jax.tree.unflatten(structure, [next(whole if axis is None else parts) for axis in axes])


def _parted(leaves: list[jax.Array], axes: Axes) -> list[tuple[jax.Array, int]]:
    return [(leaf, axis) for leaf, axis in zip(leaves, axes, strict=True) if axis is not None]


def _gather(parts: list[jax.Array]) -> list[jax.Array]:
    vector, apart = ravel_pytree(parts)
    rows = jax.vmap(apart)(jax.lax.all_gather(vector, DATA))
    return [jax.lax.collapse(row, 0, 2) for row in rows]


def _sum(leaves: list[jax.Array]) -> list[jax.Array]:
    vector, apart = ravel_pytree(leaves)
    return apart(jax.lax.psum(vector, DATA))


def _sum_into_parts(parted: list[tuple[jax.Array, int]]) -> list[jax.Array]:
    if not parted:
        return []
    devices = jax.lax.axis_size(DATA)
    first = [jnp.moveaxis(leaf, axis, 0) for leaf, axis in parted]
    rows = [leaf.reshape(devices, len(leaf) // devices, *leaf.shape[1:]) for leaf in first]
    _, apart = ravel_pytree([row[0] for row in rows])
    own = apart(jax.lax.psum_scatter(jax.vmap(lambda row: ravel_pytree(row)[0])(rows), DATA))
    return [jnp.moveaxis(part, 0, axis) for part, (_, axis) in zip(own, parted, strict=True)]
