"""Convolution and its two gradients.

Along one spatial axis, with `n(u, t) = u * stride + t * dilation - low` and `p[u, t] = x[n(u, t)]`:

    forward        y[u]  = sum_t p[u, t] k[t]
    input grad     dx[n] = sum of delta[u] k[t] over all (u, t) with n(u, t) = n
    kernel grad    dk[t] = sum_u p[u, t] delta[u]

For stride 1 the input gradient is the *full* convolution of delta with the flipped kernel:
dx[n] = sum_t delta[n + low - t * dilation] k[t]. A true convolution flips its kernel first (`mirrored`), so its
kernel gradient is flipped back, and its delta meets the kernel as it stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcnnbp.hand_written import hand_written
from jaxcnnbp.ops._dtypes import cast, common
from jaxcnnbp.ops.conv.connections import each_from_its_maps
from jaxcnnbp.ops.conv.dispatch import choose_forward, choose_input_grad, choose_kernel_grad
from jaxcnnbp.ops.conv.geometry import ConvGeometry, as_correlation
from jaxcnnbp.recording import recording
from jaxcnnbp.wanted import Gradient


class ConvResiduals(NamedTuple):
    """What the backward pass needs."""

    x: Array  # for the kernel gradient
    kernel: Array  # for the input gradient


@hand_written
@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """`(batch, *spatial, in)`, `(*window, in / groups, out)` -> `(batch, *output, out)`."""
    return forward(x, kernel, geometry)


@jax.named_scope("conv.forward")
def forward(x: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """y[u] = sum_t p[u, t] k[t]."""
    shape = geometry.output_shape(x.shape[0], kernel.shape[-1])
    if x.size == 0 or kernel.size == 0 or 0 in geometry.window.output:
        return jnp.zeros(shape, geometry.output_dtype or x.dtype)
    return each_from_its_maps(choose_forward, x, as_correlation(kernel, geometry), geometry, -1, math.prod(shape))


@jax.named_scope("conv.input_grad")
def input_grad(delta: Array, kernel: Array, geometry: ConvGeometry) -> Array:
    """dx = scatter(delta[u] k[t])."""
    if delta.size == 0 or kernel.size == 0 or 0 in geometry.window.spatial:
        return jnp.zeros((delta.shape[0], *geometry.window.spatial, kernel.shape[-2] * geometry.groups), kernel.dtype)
    delta, k = _promote(delta, as_correlation(kernel, geometry))
    cells = delta.shape[0] * math.prod(geometry.window.spatial) * kernel.shape[-2]
    return cast(each_from_its_maps(choose_input_grad, delta, k, geometry, -2, cells), kernel.dtype)


@jax.named_scope("conv.kernel_grad")
def kernel_grad(x: Array, delta: Array, geometry: ConvGeometry) -> Array:
    """dk[t] = sum_u p[u, t] delta[u]."""
    dtype = x.dtype
    if delta.size == 0 or x.size == 0:
        return jnp.zeros(geometry.kernel_shape(x.shape[-1], delta.shape[-1]), dtype)
    x, delta = _promote(x, delta)
    return cast(as_correlation(choose_kernel_grad(x, delta, geometry), geometry), dtype)


def conv_fwd(x: Array, kernel: Array, geometry: ConvGeometry) -> tuple[Array, ConvResiduals]:
    """:: (x, kernel) -> (y, residuals)."""
    return forward(x, kernel, geometry), ConvResiduals(x, kernel)


def conv_bwd(geometry: ConvGeometry, kept: ConvResiduals, delta: Array) -> tuple[Gradient, Gradient]:
    """:: (residuals, CT y) -> (CT x, CT kernel); the one that nobody asked for is not even traced."""
    return partial(input_grad, delta, kept.kernel, geometry), partial(kernel_grad, kept.x, delta, geometry)


def _promote(a: Array, b: Array) -> tuple[Array, Array]:
    """Both operands in one type: delta has the output's, which `preferred_element_type` may have set apart."""
    dtype = common(a.dtype, b.dtype)
    return cast(a, dtype), cast(b, dtype)


def _noted(name: str, op: Callable[..., Array]) -> Callable[[Array, Array, ConvGeometry], Array]:
    """A rule that is called by itself, not by a `jax.custom_vjp`, known to `explain_choice`."""

    def call(a: Array, b: Array, geometry: ConvGeometry) -> Array:
        if recording.value is not None:
            recording.value.note(name, (a, b), lambda: op(a, b, geometry))
        return op(a, b, geometry)

    return call


input_grad_op = _noted("conv_input_grad", jax.jit(input_grad, static_argnums=2, inline=True))
kernel_grad_op = _noted("conv_kernel_grad", jax.jit(kernel_grad, static_argnums=2, inline=True))

conv.defvjp(conv_fwd, conv_bwd, shared=("kernel",))
