"""Pooling layers."""

from __future__ import annotations

from dataclasses import dataclass

from jax import Array

from jaxcnnbp.geometry import Padding, Window
from jaxcnnbp.nn.layer import Backward, Params, Stateless
from jaxcnnbp.ops.pool.api import avg_pool, max_pool
from jaxcnnbp.ops.pool.max import Recorded, extreme_pool_bwd, extreme_pool_fwd
from jaxcnnbp.ops.pool.mean import mean_forward, mean_input_grad
from jaxcnnbp.ops.pool.parse import check_ties, parse_pool

Size = int | tuple[int, ...]


@dataclass(frozen=True)
class MaxPool(Stateless):
    """Max pooling; the delta goes to the recorded winner.

    Attributes:
      window: taps, an int or one an axis.
      stride: from one window to the next, `window` if None.
      padding, dilation, ceil_mode, ties: as `jaxcnnbp.max_pool` takes them.

    Example:
      >>> MaxPool(2).output_shape((1, 28, 28, 6))
      (1, 14, 14, 6)

    Source: Bouvrie (2006), section 3.2.
    """

    window: Size
    stride: Size | None = None
    padding: Padding = "VALID"
    dilation: Size = 1
    ceil_mode: bool = False
    ties: str = "first"
    kind = "pool"

    def __post_init__(self) -> None:
        check_ties(self.ties)

    def apply(self, params: Params, x: Array) -> Array:
        """The maxima."""
        del params
        size, stride = _sizes(self.window, self.stride, x)
        return max_pool(
            x, size, stride, self.padding, window_dilation=self.dilation, ceil_mode=self.ceil_mode, ties=self.ties
        )

    def forward(self, params: Params, x: Array) -> tuple[Array, tuple[Recorded, Window]]:
        """The maxima and their winners."""
        del params
        size, stride = _sizes(self.window, self.stride, x)
        x, window = parse_pool(x, size, stride, self.padding, self.dilation, self.ceil_mode)
        (y, _), recorded = extreme_pool_fwd(x, window, "max", self.ties)
        return y, (recorded, window)

    def backward(self, params: Params, residuals: tuple[Recorded, Window], delta: Array) -> Backward:
        """dx = scatter(delta[u] where t == t*[u])."""
        del params
        recorded, window = residuals
        return Backward({}, extreme_pool_bwd(window, "max", self.ties, recorded, (delta, delta))[0])


@dataclass(frozen=True)
class MeanPool(Stateless):
    """Mean pooling; every cell of a window takes delta / m.

    Attributes:
      window: taps, an int or one an axis.
      stride: from one window to the next, `window` if None.
      padding, count_include_pad, ceil_mode: as `jaxcnnbp.avg_pool` takes them.

    Example:
      >>> MeanPool(2).output_shape((1, 24, 24, 6))
      (1, 12, 12, 6)

    Source: Bouvrie (2006), section 3.2.
    """

    window: Size
    stride: Size | None = None
    padding: Padding = "VALID"
    count_include_pad: bool = True
    ceil_mode: bool = False
    kind = "pool"

    def apply(self, params: Params, x: Array) -> Array:
        """The means."""
        del params
        size, stride = _sizes(self.window, self.stride, x)
        return avg_pool(x, size, stride, self.padding, self.count_include_pad, ceil_mode=self.ceil_mode)

    def forward(self, params: Params, x: Array) -> tuple[Array, Window]:
        """The means; nothing of the input is needed."""
        del params
        size, stride = _sizes(self.window, self.stride, x)
        x, window = parse_pool(x, size, stride, self.padding, None, self.ceil_mode)
        return mean_forward(x, window, self.count_include_pad), window

    def backward(self, params: Params, residuals: Window, delta: Array) -> Backward:
        """dx = scatter(delta[u] / m[u])."""
        del params
        return Backward({}, mean_input_grad(delta, residuals, self.count_include_pad))


def _sizes(window: Size, stride: Size | None, x: Array) -> tuple[tuple[int, ...], Size]:
    """The window as one int an axis of `x`, and the stride."""
    size = (window,) * (x.ndim - 2) if isinstance(window, int) else window
    return size, size if stride is None else stride
