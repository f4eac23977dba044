"""The convolution layer, u_j = sum over i in M_j of x_i * k_ij, plus b_j."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from jaxcnnbp.geometry import Padding, per_axis
from jaxcnnbp.geometry.parse import require_count
from jaxcnnbp.geometry.window import Ints
from jaxcnnbp.nn.layer import Backward, Params, check_input_shape, glorot_uniform, shape_after
from jaxcnnbp.ops.conv.api import bordered, connect, conv_geometry, convolve, correlate
from jaxcnnbp.ops.conv.geometry import ConvGeometry
from jaxcnnbp.ops.conv.rule import input_grad_op, kernel_grad_op
from jaxcnnbp.ops.dense import add_bias, sum_to_channels
from jaxcnnbp.ops.pad import Border, pad_input_grad, pad_op


class ConvKept(NamedTuple):
    """What the backward pass needs."""

    x: Array  # for the kernel gradient


@dataclass(frozen=True)
class Conv:
    """A convolution and a bias.

    Attributes:
      features: output maps.
      window: taps, an int or one an axis.
      stride, padding, dilation, groups, padding_mode: as `jaxcnnbp.convolve` takes them.
      use_bias: whether a bias is added.
      connections: `(in, out)` table of bool, the document's M_j: which input map feeds which output map.
      true_convolution: whether the kernel is flipped, as the document has it; frameworks do not.
      initializer: `(key, shape, fan_in, fan_out, dtype) -> kernel`.

    Raises:
      ValueError: with the argument and its value, where it is first used.

    Example:
      >>> import jax
      >>> layer = Conv(6, 5)
      >>> params = layer.init(jax.random.key(0), (1, 28, 28, 1))
      >>> params["kernel"].shape, layer.output_shape((1, 28, 28, 1))
      ((5, 5, 1, 6), (1, 24, 24, 6))

    Source: Bouvrie (2006), section 3.1.
    """

    features: int
    window: int | tuple[int, ...]
    stride: int | tuple[int, ...] = 1
    padding: Padding = "VALID"
    dilation: int | tuple[int, ...] = 1
    groups: int = 1
    use_bias: bool = True
    connections: Any = None
    true_convolution: bool = False
    initializer: Callable[..., Array] = glorot_uniform
    padding_mode: str = "zeros"
    kind = "conv"

    def __post_init__(self) -> None:
        require_count(self.features, "features")
        require_count(self.groups, "groups")
        if self.connections is not None:  # an array is not hashable, and a layer is
            rows = np.asarray(self.connections).tolist()
            object.__setattr__(self, "connections", tuple(map(tuple, rows)))

    def init(self, key: Array, input_shape: Ints, dtype: DTypeLike = jnp.float32) -> Params:
        """`kernel` by the initializer, `bias` zero."""
        shape = check_input_shape(input_shape)
        depth, rest = divmod(shape[-1], self.groups)
        if rest or self.features % self.groups:
            raise ValueError(
                f"`groups` (={self.groups}) must divide both the input channels (={shape[-1]})"
                f" and `features` (={self.features})."
            )
        size = per_axis(self.window, len(shape) - 2, "window")
        taps = math.prod(size)
        kernel = self.initializer(
            key, (*size, depth, self.features), taps * depth, taps * self.features // self.groups, dtype
        )
        params = {"kernel": kernel} | ({"bias": jnp.zeros((self.features,), dtype)} if self.use_bias else {})
        shape_after(self, jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, jnp.float32), params), shape)
        return params

    def output_shape(self, input_shape: Ints) -> Ints:
        """`(batch, *output, features)`."""
        params = jax.eval_shape(lambda: self.init(jax.random.key(0), input_shape))
        return shape_after(self, params, input_shape)

    def apply(self, params: Params, x: Array) -> Array:
        """The maps before their activation."""
        operation = convolve if self.true_convolution else correlate
        y = operation(
            x,
            params["kernel"],
            stride=self.stride,
            padding=self.padding,
            padding_mode=self.padding_mode,
            dilation=self.dilation,
            groups=self.groups,
            connections=self._table(),
        )
        return add_bias(y, params["bias"]) if self.use_bias else y

    def forward(self, params: Params, x: Array) -> tuple[Array, ConvKept]:
        """The maps, and the input for the kernel gradient."""
        return self.apply(params, x), ConvKept(x)

    def backward(self, params: Params, residuals: ConvKept, delta: Array) -> Backward:
        """dk[t] = sum_u p[u, t] delta[u], db = sum_u delta[u], dx = scatter(delta[u] k[t])."""
        kernel = self._connected(params["kernel"])
        border, geometry = self._geometry(residuals.x, kernel)
        gradients = {"kernel": self._connected(kernel_grad_op(pad_op(residuals.x, border), delta, geometry))}
        if self.use_bias:
            gradients["bias"] = sum_to_channels(delta)
        dx = input_grad_op(delta, kernel, geometry)
        return Backward(gradients, dx if border is None else pad_input_grad(dx, border))

    def _geometry(self, x: Array, kernel: Array) -> tuple[Border | None, ConvGeometry]:
        geometry = conv_geometry(
            x, kernel, self.stride, self.padding, self.dilation, self.groups, self.true_convolution, self._table()
        )
        return bordered(geometry, self.padding_mode)

    def _table(self) -> np.ndarray | None:
        return None if self.connections is None else np.asarray(self.connections)

    def _connected(self, kernel: Array) -> Array:
        table = self._table()
        return kernel if table is None else connect(kernel, table, self.groups)
