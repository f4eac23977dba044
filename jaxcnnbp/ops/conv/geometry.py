"""All that is static about one convolution, as one hashable value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
from jax import Array, lax

from jaxcnnbp.geometry import Window
from jaxcnnbp.geometry.window import Ints
from jaxcnnbp.geometry.window import dual as dual_window


def looks_for_faults() -> bool:
    """Whether JAX looks through every result for a NaN or an infinity: then none may stand for anything but itself."""
    names = ("jax_debug_nans", "jax_debug_infs")
    return any(getattr(jax.config, name) for name in names)


@dataclass(frozen=True)
class ConvGeometry:
    """A convolution of `(batch, *spatial, in)` by a kernel `(*window, in // groups, out)`.

    Attributes:
      window: where the taps fall.
      groups: into how many the channels are split; a group of outputs reads its own group of inputs.
      mirrored: whether the kernel is flipped, as in a true convolution.
      precision: as `jax.lax.conv_general_dilated` takes it.
      output_dtype: name of the output's dtype, None for that of the input.
      connections: the table `(in, out)` of bool as bytes, for a kernel that is zero where it is False; None for none.
      exact: whether forms that carry a NaN further than its windows are ruled out.
    """

    window: Window
    groups: int = 1
    mirrored: bool = False
    precision: Any = None
    output_dtype: str | None = None
    connections: bytes | None = None
    exact: bool = field(default_factory=looks_for_faults)

    def kernel_shape(self, features_in: int, features_out: int) -> Ints:
        """`(*window, in // groups, out)`."""
        return (*self.window.size, features_in // self.groups, features_out)

    def output_shape(self, images: int, features_out: int) -> Ints:
        """`(batch, *output, out)`."""
        return (images, *self.window.output, features_out)


# What computes a pass of a convolution, from the two operands of its rule.
Form = Callable[[Array, Array, ConvGeometry], Array]


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


def as_correlation(kernel: Array, geometry: ConvGeometry) -> Array:
    """The kernel with which a correlation is the convolution."""
    return flip(kernel, geometry.window.rank) if geometry.mirrored else kernel


def transposed_kernel(kernel: Array, geometry: ConvGeometry) -> Array:
    """The kernel of `dual(geometry)`: flipped, with input and output channels exchanged."""
    return flip(swap_group_channels(kernel, geometry.groups), geometry.window.rank)


def dual(geometry: ConvGeometry) -> ConvGeometry:
    """The convolution that carries delta back, for stride 1 the full one, with the flipped kernel."""
    return replace(geometry, window=dual_window(geometry.window), output_dtype=None)
