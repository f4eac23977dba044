"""Windows on any axes, as `lax.reduce_window` has them, seen as `(batch, *spatial, channels)` and back."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from jax import Array

from jaxcnnbp.geometry import Window
from jaxcnnbp.geometry.window import Ints, Pairs


@dataclass(frozen=True)
class ChannelsLast:
    """An operand with windows on any axes, seen as `(batch, *spatial, channels)`.

    Leading axes without a window are the batch, trailing ones the channels, all between them are spatial.
    """

    window: Window
    batch: Ints
    channels: Ints

    @classmethod
    def of(
        cls,
        shape: Ints,
        window_dimensions: Ints,
        window_strides: Ints,
        padding: Pairs,
        base_dilation: Ints,
        window_dilation: Ints,
    ) -> ChannelsLast:
        """The layout for the parameters of lax's primitives."""
        first, last = moved_over(window_dimensions, window_strides, padding, base_dilation)
        inner = slice(first, last)
        window = Window(
            tuple(shape[inner]),
            window_dimensions[inner],
            window_strides[inner],
            padding[inner],
            window_dilation[inner],
            base_dilation[inner],
        )
        return cls(window, tuple(shape[:first]), tuple(shape[last:]))

    def inward(self, x: Array) -> Array:
        """lax's operand -> `(batch, *spatial, channels)`."""
        return x.reshape(prod(self.batch), *self.window.spatial, prod(self.channels))

    def outward(self, y: Array) -> Array:
        """`(batch, *output, channels)` -> lax's result."""
        return y.reshape(*self.batch, *self.window.output, *self.channels)


def moved_over(size: Ints, stride: Ints, padding: Pairs, gaps: Ints) -> tuple[int, int]:
    """The axes `first .. last - 1` that hold all those on which the windows do more than pass through."""
    rows = enumerate(zip(size, stride, padding, gaps, strict=True))
    windowed = [axis for axis, row in rows if row != (1, 1, (0, 0), 1)]
    return (windowed[0], windowed[-1] + 1) if windowed else (len(size), len(size))
