"""Bouvrie's own layers: sub-sampling with a gain and a bias, and the learned combination of maps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from jaxcnnbp.geometry import Padding, Window, per_axis
from jaxcnnbp.geometry.parse import require_count
from jaxcnnbp.geometry.window import Ints
from jaxcnnbp.nn.layer import Backward, Layered, Params, check_input_shape, glorot_uniform
from jaxcnnbp.ops.bouvrie import (
    CombineResiduals,
    SubsampleResiduals,
    combine_bwd,
    combine_fwd,
    combine_maps,
    subsample,
    subsample_bwd,
    subsample_fwd,
)
from jaxcnnbp.ops.conv.api import conv_geometry
from jaxcnnbp.ops.conv.geometry import ConvGeometry
from jaxcnnbp.ops.dense import add_bias, sum_to_channels
from jaxcnnbp.ops.pool.parse import parse_pool


@dataclass(frozen=True)
class Subsample(Layered):
    """u = beta down(x) + b, one beta and one b a map; an activation follows as a layer of its own.

    Attributes:
      window: extents of the blocks that are summed, an int or one an axis.
      ceil_mode: whether partial blocks at the far edge count; else the blocks must divide the input.

    Example:
      >>> import jax
      >>> Subsample(2).init(jax.random.key(0), (1, 24, 24, 6))["beta"].shape
      (6,)

    Source: Bouvrie (2006), section 3.2.
    """

    window: int | tuple[int, ...]
    ceil_mode: bool = False
    kind = "subsample"

    def init(self, key: Array, input_shape: Ints, dtype: DTypeLike = jnp.float32) -> Params:
        """`beta` one over the block's cells, so that the layer begins as the mean; `bias` zero."""
        del key
        shape = check_input_shape(input_shape)
        cells = math.prod(per_axis(self.window, len(shape) - 2, "window"))
        maps = shape[-1:]
        return {"beta": jnp.full(maps, 1 / cells, dtype), "bias": jnp.zeros(maps, dtype)}

    def apply(self, params: Params, x: Array) -> Array:
        """beta down(x) + b."""
        return subsample(x, params["beta"], params["bias"], self._size(x), ceil_mode=self.ceil_mode)

    def forward(self, params: Params, x: Array) -> tuple[Array, tuple[SubsampleResiduals, Window]]:
        """beta down(x) + b, and down(x) for dbeta."""
        size = self._size(x)
        x, window = parse_pool(x, size, size, "VALID", None, self.ceil_mode)
        u, residuals = subsample_fwd(x, params["beta"], window)
        return add_bias(u, params["bias"]), (residuals, window)

    def backward(self, params: Params, residuals: tuple[SubsampleResiduals, Window], delta: Array) -> Backward:
        """dbeta = sum(delta o down(x)), db = sum delta, dx = up(beta delta)."""
        del params
        kept, window = residuals
        dx, dbeta = subsample_bwd(window, kept, delta)
        return Backward({"beta": dbeta, "bias": sum_to_channels(delta)}, dx)

    def _size(self, x: Array) -> tuple[int, ...]:
        return (self.window,) * (x.ndim - 2) if isinstance(self.window, int) else self.window


@dataclass(frozen=True)
class CombineMaps(Layered):
    """u_j = sum_i alpha_ij (x_i * k_ij) + b_j with alpha = softmax(c): which maps to combine is learned.

    Attributes:
      features: output maps.
      window: taps, an int or one an axis.
      padding: as `jaxcnnbp.convolve` takes it.
      true_convolution: whether the kernel is flipped.
      initializer: `(key, shape, fan_in, fan_out, dtype) -> kernel`.

    Example:
      >>> import jax
      >>> CombineMaps(12, 5).init(jax.random.key(0), (1, 12, 12, 6))["logits"].shape
      (6, 12)

    Source: Bouvrie (2006), section 3.3.
    """

    features: int
    window: int | tuple[int, ...]
    padding: Padding = "VALID"
    true_convolution: bool = True
    initializer: Callable[..., Array] = glorot_uniform
    kind = "combine"

    def __post_init__(self) -> None:
        require_count(self.features, "features")

    def init(self, key: Array, input_shape: Ints, dtype: DTypeLike = jnp.float32) -> Params:
        """`kernel` by the initializer for one map in, `logits` near zero, so that all maps begin alike; `bias` zero."""
        shape = check_input_shape(input_shape)
        size = per_axis(self.window, len(shape) - 2, "window")
        taps, depth = math.prod(size), shape[-1]
        for_kernel, for_logits = jax.random.split(key)
        return {
            "kernel": self.initializer(for_kernel, (*size, depth, self.features), taps, taps, dtype),
            "logits": jax.random.normal(for_logits, (depth, self.features), dtype) * jnp.asarray(0.1, dtype),
            "bias": jnp.zeros((self.features,), dtype),
        }

    def apply(self, params: Params, x: Array) -> Array:
        """The combined maps before their activation."""
        operands = x, params["kernel"], params["logits"], params["bias"]
        return combine_maps(*operands, padding=self.padding, true_convolution=self.true_convolution)

    def forward(self, params: Params, x: Array) -> tuple[Array, tuple[CombineResiduals, ConvGeometry]]:
        """The combined maps, and what their rule keeps."""
        geometry = conv_geometry(x, params["kernel"], 1, self.padding, 1, 1, self.true_convolution)
        u, residuals = combine_fwd(x, params["kernel"], params["logits"], geometry)
        return add_bias(u, params["bias"]), (residuals, geometry)

    def backward(self, params: Params, residuals: tuple[CombineResiduals, ConvGeometry], delta: Array) -> Backward:
        """dk = alpha dK, dc_i = alpha_i (dalpha_i - sum_k dalpha_k alpha_k), db = sum delta."""
        del params
        kept, geometry = residuals
        dx, dk, dc = combine_bwd(geometry, kept, delta)
        return Backward({"kernel": dk, "logits": dc, "bias": sum_to_channels(delta)}, dx)
