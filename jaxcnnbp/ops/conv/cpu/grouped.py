"""Grouped convolutions on CPUs, where XLA has no fast form: one group after another.

A few groups are convolutions of their own, side by side; many are a loop, each one matrix product. Each form has the
signature and the meaning of the plain form in `ops.conv.forms`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxcnnbp.ops.conv.cpu.im2col import input_grad_sent_back, patches
from jaxcnnbp.ops.conv.geometry import ConvGeometry, dual, transposed_kernel
from jaxcnnbp.ops.numerics import wide
from jaxcnnbp.taps import pad_once

Over = Callable[[Callable[..., Array], tuple[Array, Array]], Array]  # how a function goes over the groups


def each_group(
    rule: Callable[[Array, Array, ConvGeometry], Array], a: Array, b: Array, geometry: ConvGeometry
) -> Array:
    """Any of the three rules: channels of the operands, and of the result, lie group by group on the last axis."""
    one = replace(geometry, groups=1)
    of_a, of_b = (jnp.split(operand, geometry.groups, -1) for operand in (a, b))
    return lax.concatenate([rule(p, q, one) for p, q in zip(of_a, of_b, strict=True)], a.ndim - 1)


def in_turn(rule: Callable[[Array, Array, ConvGeometry], Array], a: Array, b: Array, geometry: ConvGeometry) -> Array:
    """The same in a loop: any number of groups is one program."""
    one, groups = replace(geometry, groups=1), geometry.groups
    y = _over_groups(lambda p, q: rule(p, q, one), split_groups(a, groups), split_groups(b, groups))
    return jnp.moveaxis(y, 0, -2).reshape(*y.shape[1:-1], groups * y.shape[-1])


def forward_by_group(x: Array, kernel: Array, geometry: ConvGeometry, over: Over = lax.map) -> Array:
    """`y_g = patches(x_g) k_g`, the patches of all taps side by side."""
    padded, window = pad_once(x, geometry.window)
    local = replace(geometry, window=window, groups=1)

    def product(x_g: Array, k_g: Array) -> Array:
        return _dot(patches(x_g, local), k_g.reshape(-1, k_g.shape[-1]), local)

    y = _over_groups(product, split_groups(padded, geometry.groups), split_groups(kernel, geometry.groups), over)
    return jnp.moveaxis(y, 0, -2).reshape(x.shape[0], *geometry.window.output, kernel.shape[-1])


def input_grad_by_group(delta: Array, kernel: Array, geometry: ConvGeometry, over: Over = lax.map) -> Array:
    """The convolution of delta with the flipped kernel, group by group."""
    return forward_by_group(delta, transposed_kernel(kernel, geometry), dual(geometry), over)


def input_grad_side_by_side(delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """`dx_g = scatter(delta_g k_g^T)` of all groups at once: one program, whatever their number."""

    def sent_back(delta_g: Array, k_g: Array) -> Array:
        return input_grad_sent_back(delta_g, k_g, replace(geometry, groups=1))

    dx = jax.vmap(sent_back)(split_groups(delta, geometry.groups), split_groups(kernel, geometry.groups))
    return jnp.moveaxis(dx, 0, -2).reshape(*dx.shape[1:-1], -1)


def kernel_grad_by_group(x: Array, delta: Array, geometry: ConvGeometry, over: Over = lax.map) -> Array:
    """`dk_g^T = delta_g^T patches(x_g)`."""
    padded, window = pad_once(x, geometry.window)
    local = replace(geometry, window=window, groups=1)

    def product(x_g: Array, delta_g: Array) -> Array:
        by_feature = lax.optimization_barrier(delta_g.reshape(-1, delta_g.shape[-1]).T)
        return _dot(by_feature, patches(x_g, local), local)

    grads = _over_groups(product, split_groups(padded, geometry.groups), split_groups(delta, geometry.groups), over)
    shape = geometry.kernel_shape(x.shape[-1], delta.shape[-1])
    return grads.transpose(2, 0, 1).reshape(shape)


def split_groups(a: Array, groups: int) -> Array:
    """Last axis `[... (groups, c)] -> [groups ... c]`: also of a kernel, whose inputs are one group's already."""
    return jnp.moveaxis(a.reshape(*a.shape[:-1], groups, a.shape[-1] // groups), -2, 0)


def _dot(a: Array, b: Array, geometry: ConvGeometry) -> Array:
    return lax.dot(a, b, precision=geometry.precision, preferred_element_type=wide(a.dtype))


def side_by_side(product: Callable[..., Array], groups: tuple[Array, Array]) -> Array:
    """All groups at once, as one batched matrix product: where a loop would wait for the device in every turn."""
    return jax.vmap(product)(groups)


def _over_groups(product: Callable[[Array, Array], Array], a: Array, b: Array, over: Over = lax.map) -> Array:
    return over(lambda pair: product(*pair), (a, b))
