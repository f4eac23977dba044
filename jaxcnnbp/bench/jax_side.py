"""A case in JAX: the layer by this package and by lax alone, and its passes as compiled programs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxcnnbp
from jaxcnnbp.bench.cases import Case

_AXES = {1: "H", 2: "HW", 3: "HWD"}


def manual_layer(case: Case) -> Callable[..., jax.Array]:
    """The layer by this package: `f(x, kernel)`, or `f(x)` for a pool."""
    if case.is_pool:
        pool = getattr(jaxcnnbp, case.op)
        strides, pads = (case.stride,) * case.rank, ((case.padding,) * 2,) * case.rank
        options = {"window_dilation": (case.dilation,) * case.rank} if case.dilation > 1 else {}
        return lambda x: pool(x, case.window, strides, pads, **options)
    return _convolution(case, jaxcnnbp)


def autodiff_layer(case: Case) -> Callable[..., jax.Array]:
    """The layer as somebody without this package writes it, in lax; pools are `flax.linen`'s, word for word."""
    return _lax_pool(case) if case.is_pool else _convolution(case, lax)


def _convolution(case: Case, home: Any) -> Callable[..., jax.Array]:
    layout = f"N{_AXES[case.rank]}C"
    numbers = (layout, f"{_AXES[case.rank]}IO", layout)
    steps, pads = (case.stride,) * case.rank, ((case.padding,) * 2,) * case.rank
    if case.op == "conv_transpose":
        pads = tuple((k - 1 - case.padding,) * 2 for k in case.window)
        return lambda x, kernel: home.conv_transpose(x, kernel, steps, pads, dimension_numbers=numbers)
    return lambda x, kernel: home.conv_general_dilated(
        x,
        kernel,
        steps,
        pads,
        rhs_dilation=(case.dilation,) * case.rank,
        dimension_numbers=numbers,
        feature_group_count=case.groups,
    )


def _lax_pool(case: Case) -> Callable[..., jax.Array]:
    window, strides = (1, *case.window, 1), (1, *(case.stride,) * case.rank, 1)
    pads = ((0, 0), *((case.padding, case.padding),) * case.rank, (0, 0))
    dilation = (1, *(case.dilation,) * case.rank, 1)
    start, combine = (-np.inf, lax.max) if case.op == "max_pool" else (0.0, lax.add)

    def pool(x: jax.Array) -> jax.Array:
        y = lax.reduce_window(x, np.asarray(start, x.dtype), combine, window, strides, pads, None, dilation)
        return y if case.op == "max_pool" else y / np.asarray(math.prod(case.window), x.dtype)

    return pool


def arrays(case: Case, dtype: str, seed: int = 0) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Random input, kernel (of shape `(0,)` for a pool) and delta; normal, the kernel so that outputs are near 1."""
    generator = np.random.default_rng(seed)
    kernel_shape = (0,) if case.is_pool else case.kernel_shape
    scale = 1.0 if case.is_pool else 1 / math.sqrt(math.prod(kernel_shape[:-1]))
    drawn = [generator.standard_normal(s, np.float32) for s in (case.shape, kernel_shape, case.output_shape)]
    x, kernel, delta = (jnp.asarray(a, jnp.dtype(dtype)) for a in (drawn[0], scale * drawn[1], drawn[2]))
    return x, kernel, delta


@dataclass(frozen=True)
class TimedPass:
    """One pass, ready to be lowered: a function under `jax.jit`, and its arguments."""

    function: Any
    args: tuple[Any, ...]


def programs(layer: Callable[..., jax.Array], case: Case, operands: tuple[jax.Array, ...]) -> dict[str, TimedPass]:
    """The passes of a layer: what a training step calls, and each gradient from what the forward pass kept.

    Raises:
      NotImplementedError: the layer has no gradient.
    """
    *inputs, delta = operands if not case.is_pool else (operands[0], operands[2])

    def together(delta: jax.Array, *inputs: jax.Array) -> tuple[jax.Array, ...]:
        y, back = jax.vjp(layer, *inputs)
        return (y, *back(delta))

    jax.eval_shape(together, delta, *inputs)  # raises if there is no gradient
    kept, pull_back = _forward_and_rest(layer, inputs)
    found = {
        "forward": TimedPass(jax.jit(layer), tuple(inputs)),
        "input grad": TimedPass(jax.jit(lambda kept, delta: pull_back(kept, delta)[0]), (kept, delta)),
        "kernel grad": TimedPass(jax.jit(lambda kept, delta: pull_back(kept, delta)[1]), (kept, delta)),
        "together": TimedPass(jax.jit(together), (delta, *inputs)),
    }
    return {step: found[step] for step in case.passes}


def _forward_and_rest(layer: Callable[..., jax.Array], inputs: list[jax.Array]) -> tuple[list[jax.Array], Any]:
    """What the forward pass keeps, and the backward pass as a function of that and of delta."""
    structure = jax.tree.structure(jax.eval_shape(lambda *a: jax.vjp(layer, *a)[1], *inputs))
    kept = jax.jit(lambda *a: jax.tree.leaves(jax.vjp(layer, *a)[1]))(*inputs)
    return kept, lambda kept, delta: jax.tree.unflatten(structure, kept)(delta)
