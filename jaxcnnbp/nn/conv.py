"""The convolution layer, u_j = sum over i in M_j of x_i * k_ij, plus b_j."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from jaxcnnbp.geometry import Padding, per_axis
from jaxcnnbp.geometry.parse import require_count
from jaxcnnbp.geometry.window import Ints
from jaxcnnbp.nn.layer import Backward, Layered, Params, check_input_shape, glorot_uniform, shape_after
from jaxcnnbp.ops.conv.api import bordered, connect, conv_geometry, convolve, correlate
from jaxcnnbp.ops.conv.geometry import ConvGeometry
from jaxcnnbp.ops.conv.rule import input_grad_op, kernel_grad_op
from jaxcnnbp.ops.dense import add_bias, sum_to_channels
from jaxcnnbp.ops.pad import Border, pad_input_grad, pad_op


@dataclass(frozen=True)
class Conv(Layered):
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

    def apply(self, params: Params, x: Array) -> Array:
        """The maps before their activation."""
        y = (convolve if self.true_convolution else correlate)(x, params["kernel"], **self.options)
        return add_bias(y, params["bias"]) if self.use_bias else y

    def forward(self, params: Params, x: Array) -> tuple[Array, Array]:
        """The maps, and the input for the kernel gradient."""
        return self.apply(params, x), x

    def backward(self, params: Params, residuals: Array, delta: Array) -> Backward:
        """dk[t] = sum_u p[u, t] delta[u], db = sum_u delta[u], dx = scatter(delta[u] k[t])."""
        x, kernel = residuals, self.connected(params["kernel"])
        border, geometry = self.geometry(x, kernel)
        gradients = {"kernel": self.connected(kernel_grad_op(pad_op(x, border), delta, geometry))}
        if self.use_bias:
            gradients["bias"] = sum_to_channels(delta)
        dx = input_grad_op(delta, kernel, geometry)
        return Backward(gradients, dx if border is None else pad_input_grad(dx, border))

    @property
    def table(self) -> np.ndarray | None:
        """`connections` as an array."""
        return None if self.connections is None else np.asarray(self.connections)

    @property
    def options(self) -> dict[str, Any]:
        """What `convolve`, `correlate` and `conv_block` take beside their operands."""
        names = ("stride", "padding", "padding_mode", "dilation", "groups")
        return {name: getattr(self, name) for name in names} | {"connections": self.table}

    def geometry(self, x: Array, kernel: Array) -> tuple[Border | None, ConvGeometry]:
        """The border that `padding_mode` adds, and where the taps fall."""
        geometry = conv_geometry(
            x, kernel, self.stride, self.padding, self.dilation, self.groups, self.true_convolution, self.table
        )
        return bordered(geometry, self.padding_mode)

    def connected(self, kernel: Array) -> Array:
        """The kernel with zeros where `connections` has no connection."""
        return kernel if self.table is None else connect(kernel, self.table, self.groups)
