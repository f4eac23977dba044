"""What the tables of forms may ask about a convolution."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxcnnbp.ops.conv_geometry import ConvGeometry


@dataclass(frozen=True)
class Layer:
    """What a row's condition may ask about."""

    geometry: ConvGeometry
    depth: int  # input channels a group
    width: int  # output channels a group
    images: int

    @property
    def spatial(self) -> bool:
        return self.geometry.window.rank > 0

    @property
    def taps(self) -> int:
        return self.geometry.window.taps

    @property
    def volumes(self) -> bool:
        """Three spatial axes or more."""
        return self.geometry.window.rank > 2

    @property
    def pointwise(self) -> bool:
        return self.taps == 1

    @property
    def depthwise(self) -> bool:
        return self.depth == self.width == 1

    @property
    def dense(self) -> bool:
        return self.geometry.groups == 1

    @property
    def grouped(self) -> bool:
        return self.geometry.groups > 1 and self.depth * self.width > 1

    @property
    def strided(self) -> bool:
        """A stride that splits the input gradient into phases."""
        return max(self.geometry.window.stride, default=1) > 1 and not self.dilated

    @property
    def phases_as_channels(self) -> bool:
        """Few input channels, no products with zeros, or more phases than are quick to compile one by one."""
        window = self.geometry.window
        unfilled = all(k % s == 0 for k, s in zip(window.size, window.stride, strict=True))
        return self.depth < 16 or unfilled or math.prod(window.stride) > 16

    @property
    def gapless(self) -> bool:
        """No gaps between the input cells."""
        return max(self.geometry.window.input_dilation, default=1) == 1

    @property
    def transposed(self) -> bool:
        """A stride of one over a dilated input: the input gradient of a strided convolution."""
        window = self.geometry.window
        return not self.gapless and math.prod(window.stride) == math.prod(window.dilation) == 1

    @property
    def exceeds_input(self) -> bool:
        """A window that spans more than the whole input: XLA's convolution then runs a plain loop."""
        return any(e > n for e, n in zip(self.geometry.window.extent, self.geometry.window.dilated, strict=True))

    @property
    def exceeds_output(self) -> bool:
        """The same for the convolution that carries delta back."""
        return any(e > o for e, o in zip(self.geometry.window.extent, self.geometry.window.output, strict=True))

    @property
    def dilated(self) -> bool:
        window = self.geometry.window
        return math.prod(window.dilation) > 1 or not self.gapless

    @property
    def few_positions(self) -> bool:
        """So few that the patches of all outputs take less memory than the kernel."""
        return self.images * math.prod(self.geometry.window.output) <= self.width

    @property
    def much_work(self) -> bool:
        """Enough channels for matrix products, enough products to pay for more code to compile."""
        products = self.images * math.prod(self.geometry.window.output) * self.taps * self.depth * self.width
        return min(self.depth, self.width) >= 64 and products >= 5e8

    @property
    def few_taps(self) -> bool:
        """Whether a form that writes its taps out one by one stays quick to compile."""
        return self.taps <= 128

    @property
    def many_rows(self) -> bool:
        """More taps than are written out, in rows that are."""
        return self.geometry.window.rank > 1 and self.geometry.window.size[-1] <= 128
