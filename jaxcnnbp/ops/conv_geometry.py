"""All that is static about one convolution, as one hashable value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from jax import Array, lax
from jax.typing import DTypeLike

from jaxcnnbp.geometry import Window
from jaxcnnbp.geometry.window import Ints
from jaxcnnbp.geometry.window import dual as dual_window


@dataclass(frozen=True)
class ConvGeometry:
    """A convolution of `(batch, *spatial, in)` by a kernel `(*window, in // groups, out)`.

    Attributes:
      window: where the taps fall.
      groups: into how many the channels are split; a group of outputs reads its own group of inputs.
      mirrored: whether the kernel is flipped, as in a true convolution.
      precision: as `jax.lax.conv_general_dilated` takes it.
      output_dtype: dtype of the output, None for that of the input.
    """

    window: Window
    groups: int = 1
    mirrored: bool = False
    precision: Any = None
    output_dtype: DTypeLike | None = None

    def kernel_shape(self, features_in: int, features_out: int) -> Ints:
        """`(*window, in // groups, out)`."""
        return (*self.window.size, features_in // self.groups, features_out)


def dimension_numbers(rank: int) -> lax.ConvDimensionNumbers:
    """Channels last: `(batch, *spatial, channels)` and `(*window, in, out)`."""
    spatial = tuple(range(1, rank + 1))
    image = (0, rank + 1, *spatial)
    return lax.ConvDimensionNumbers(image, (rank + 1, rank, *range(rank)), image)


def swap_group_channels(kernel: Array, groups: int) -> Array:
    """`(*window, in / g, out)` with the channels of each group exchanged: `(*window, out / g, in)`."""
    if groups == 1:
        # As a transpose of two axes XLA folds it into the matrix product that reads it.
        return kernel.swapaxes(-1, -2)
    *size, features_in, features_out = kernel.shape
    split = kernel.reshape(*size, features_in, groups, features_out // groups)
    swapped = split.swapaxes(-1, -3)
    return swapped.reshape(*size, features_out // groups, groups * features_in)


def flip(kernel: Array, rank: int) -> Array:
    """`kernel` mirrored on its `rank` window axes."""
    return lax.rev(kernel, tuple(range(rank)))


def transposed_kernel(kernel: Array, geometry: ConvGeometry) -> Array:
    """The kernel of `dual(geometry)`: flipped, with input and output channels exchanged."""
    return flip(swap_group_channels(kernel, geometry.groups), geometry.window.rank)


def dual(geometry: ConvGeometry) -> ConvGeometry:
    """The convolution that carries delta back, for stride 1 the full one, with the flipped kernel."""
    return replace(geometry, window=dual_window(geometry.window), output_dtype=None)
