"""Grouped convolutions on CPUs, where XLA has no fast form: one group after another.

A few groups are convolutions of their own, side by side; many are a loop, each one matrix product; narrow ones are
merged until they fill a vector. Each form has the signature and the meaning of the plain form in `ops.conv.forms`.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnnbp.ops.conv.cpu.im2col import input_grad_by_patches, largest_divisor
from jaxcnnbp.ops.conv.geometry import ConvGeometry, Form

LANES = 16  # float32 numbers of the widest vector, 512 bits


def each_group(rule: Form, a: Array, b: Array, geometry: ConvGeometry) -> Array:
    """Any of the three rules: channels of the operands, and of the result, lie group by group on the last axis."""
    one = replace(geometry, groups=1)
    of_a, of_b = (jnp.split(operand, geometry.groups, -1) for operand in (a, b))
    return lax.concatenate([rule(p, q, one) for p, q in zip(of_a, of_b, strict=True)], a.ndim - 1)


def in_turn(rule: Form, a: Array, b: Array, geometry: ConvGeometry) -> Array:
    """The same in a loop: any number of groups is one program."""
    one, groups = replace(geometry, groups=1), geometry.groups
    y = lax.map(lambda pair: rule(pair[0], pair[1], one), (_split_groups(a, groups), _split_groups(b, groups)))
    return jnp.moveaxis(y, 0, -2).reshape(*y.shape[1:-1], groups * y.shape[-1])


def input_grad_merged(rule: Form, delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """That of fewer, wider groups: several kernels each, as blocks on a diagonal.

    Products that are narrower than a vector leave its lanes empty; here zeros fill them.
    """
    *size, in_channels, features = kernel.shape
    count = merged_groups(geometry.groups, in_channels, features // geometry.groups)
    groups = geometry.groups // count
    blocks = kernel.reshape(*size, 1, in_channels, groups, count, features // geometry.groups)
    diagonal = np.eye(count, dtype=bool).reshape(count, 1, 1, count, 1)
    wide_kernel = jnp.where(diagonal, blocks, 0).reshape(*size, count * in_channels, features)
    return rule(delta, wide_kernel, replace(geometry, groups=groups))


def merged_groups(groups: int, in_channels: int, out_channels: int) -> int:
    """How many groups to merge into one: as many as fill a vector, at most."""
    return largest_divisor(groups, max(1, LANES // max(in_channels, out_channels)))


def input_grad_side_by_side(delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """`dx_g = scatter(delta_g k_g^T)` of all groups at once: one program, whatever their number."""

    def sent_back(delta_g: Array, k_g: Array) -> Array:
        return input_grad_by_patches(delta_g, k_g, replace(geometry, groups=1))

    dx = jax.vmap(sent_back)(_split_groups(delta, geometry.groups), _split_groups(kernel, geometry.groups))
    return jnp.moveaxis(dx, 0, -2).reshape(*dx.shape[1:-1], -1)


def _split_groups(a: Array, groups: int) -> Array:
    """Last axis `[... (groups, c)] -> [groups ... c]`: also of a kernel, whose inputs are one group's already."""
    return jnp.moveaxis(a.reshape(*a.shape[:-1], groups, a.shape[-1] // groups), -2, 0)
