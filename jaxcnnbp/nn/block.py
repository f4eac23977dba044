"""The fused block: a convolution, its activation and its pool as one layer."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from jaxcnnbp.geometry.window import Ints
from jaxcnnbp.nn.activations import Activation, Relu
from jaxcnnbp.nn.conv import Conv
from jaxcnnbp.nn.layer import Backward, Params
from jaxcnnbp.nn.pool import MaxPool, MeanPool
from jaxcnnbp.ops.block import Block, BlockResiduals, block_bwd, block_fwd
from jaxcnnbp.ops.conv_block import conv_block, parse_activation, parse_block_pool

_RELU = Relu()


@dataclass(frozen=True)
class ConvBlock:
    """A convolution layer, an activation and a pool, in one rule that keeps only what the backward pass needs.

    The parameters are those of the convolution, and outputs and gradients those of the three layers one after another.
    Its delta, as `nn.backprop` gives it, is that of the pooled output.

    Attributes:
      conv: the convolution and its bias.
      activation: an activation, relu if it is left out.
      pool: a `MaxPool` (with `ties="first"`) or a `MeanPool`; None for none.

    Raises:
      TypeError, ValueError: with the argument and its value.

    Example:
      >>> import jax
      >>> layer = ConvBlock(Conv(6, 5), Relu(), MaxPool(2))
      >>> params = layer.init(jax.random.key(0), (1, 28, 28, 1))
      >>> params["kernel"].shape, layer.output_shape((1, 28, 28, 1))
      ((5, 5, 1, 6), (1, 12, 12, 6))

    Source: `ops.block`.
    """

    conv: Conv
    activation: Activation = _RELU
    pool: MaxPool | MeanPool | None = None
    kind = "block"

    def __post_init__(self) -> None:
        kinds = {"conv": Conv, "activation": Activation, "pool": MaxPool | MeanPool | None}
        for name, kind in kinds.items():
            if not isinstance(getattr(self, name), kind):
                wanted = "MaxPool, MeanPool or None" if name == "pool" else f"nn.{kind.__name__}"
                raise TypeError(f"`{name}` (={getattr(self, name)!r}) must be {wanted}, as `nn` has it.")
        if isinstance(self.pool, MaxPool) and self.pool.ties != "first":
            raise ValueError(
                f"`pool` (={self.pool!r}) must have ties='first': a block records one winner; use separate layers."
            )

    def init(self, key: Array, input_shape: Ints, dtype: DTypeLike = jnp.float32) -> Params:
        """The parameters of the convolution."""
        params = self.conv.init(key, input_shape, dtype)
        self.output_shape(input_shape)
        return params

    def output_shape(self, input_shape: Ints) -> Ints:
        """`(batch, *output, features)`."""
        maps = self.conv.output_shape(input_shape)
        return maps if self.pool is None else self.pool.output_shape(maps)

    def apply(self, params: Params, x: Array) -> Array:
        """The pooled activations."""
        return conv_block(
            x,
            params["kernel"],
            params.get("bias"),
            **self.conv.options,
            true_convolution=self.conv.true_convolution,
            activation=self.activation.name,
            activation_argument=self.activation.argument,
            **self._pool_options(),
        )

    def forward(self, params: Params, x: Array) -> tuple[Array, BlockResiduals]:
        """The pooled activations, and what the backward pass needs."""
        kernel = self.conv.connected(params["kernel"])
        return block_fwd(x, kernel, params.get("bias"), self._plan(x, kernel))

    def backward(self, params: Params, residuals: BlockResiduals, delta: Array) -> Backward:
        """Through the pool's winners or its blocks, the activation and the convolution."""
        del params
        dx, dk, db = block_bwd(self._plan(residuals.x, residuals.kernel), residuals, delta)
        gradients = {"kernel": self.conv.connected(dk)} | ({} if db is None else {"bias": db})
        return Backward(gradients, dx)

    def _plan(self, x: Array, kernel: Array) -> Block:
        border, geometry = self.conv.geometry(x, kernel)
        named = parse_activation(self.activation.name, self.activation.argument)
        pool = parse_block_pool(geometry.window.output, **self._pool_options())
        return Block(geometry, self.conv.use_bias, *named, pool, border)

    def _pool_options(self) -> dict:
        pool = self.pool
        if pool is None:
            return dict(pool=None)
        options = dict(
            pool=pool.window,
            pool_strides=pool.window if pool.stride is None else pool.stride,
            pool_padding=pool.padding,
            ceil_mode=pool.ceil_mode,
        )
        if isinstance(pool, MaxPool):
            return options | dict(pool_dilation=pool.dilation)
        return options | dict(pool_kind="mean", count_include_pad=pool.count_include_pad)
