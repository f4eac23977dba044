"""Any layout that `lax.conv_general_dilated` knows, to and from the channels-last one that the rules speak."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike

from jaxcnnbp.geometry import window_of
from jaxcnnbp.geometry.parse import over_symbols
from jaxcnnbp.geometry.window import Ints
from jaxcnnbp.ops import lax_itself, symbolic
from jaxcnnbp.ops.conv.geometry import ConvGeometry
from jaxcnnbp.ops.conv.rule import conv

Spec = Sequence[int]  # lax's: (batch, feature, *spatial) or (out, in, *window)


@dataclass(frozen=True)
class LaxConvolution:
    """A convolution in the words of `lax`: its geometry, its layouts, and how its batch is grouped.

    `batch_groups` splits the batch and the output channels alike: group b of the images meets group b of the
    kernels. Laid side by side as channels the groups of images are feature groups.
    """

    geometry: ConvGeometry
    numbers: lax.ConvDimensionNumbers
    batch_groups: int

    def __call__(self, lhs: Array, rhs: Array) -> Array:
        """The convolution in lax's layouts."""
        rule = symbolic.conv if over_symbols(self.geometry.window) else conv
        return self.output_out(rule(self.input_in(lhs), self.kernel_in(rhs), self.geometry))

    def input_in(self, x: Array) -> Array:
        """lax's input -> `(batch, *spatial, in)`."""
        last = x.transpose(_channels_last(self.numbers.lhs_spec))
        if self.batch_groups == 1:
            return last
        batch, *spatial, features = last.shape
        batch //= self.batch_groups
        grouped = last.reshape(self.batch_groups, batch, *spatial, features)
        return jax.numpy.moveaxis(grouped, 0, -2).reshape(batch, *spatial, self.batch_groups * features)

    def input_out(self, x: Array) -> Array:
        """`(batch, *spatial, in)` -> lax's input."""
        if self.batch_groups > 1:
            batch, *spatial, features = x.shape
            features //= self.batch_groups
            grouped = x.reshape(batch, *spatial, self.batch_groups, features)
            x = jax.numpy.moveaxis(grouped, -2, 0).reshape(self.batch_groups * batch, *spatial, features)
        return x.transpose(np.argsort(_channels_last(self.numbers.lhs_spec)))

    def input_axes(self, of_output: Sequence[Any]) -> list[Any]:
        """What stands on the images and positions of lax's output, on those of its input; None on the channels."""
        axes: list[Any] = [None] * len(of_output)
        pairs = zip(_channels_last(self.numbers.lhs_spec), _channels_last(self.numbers.out_spec), strict=True)
        for place, axis in list(pairs)[:-1]:
            axes[place] = of_output[axis]
        return axes

    def kernel_in(self, kernel: Array) -> Array:
        """lax's kernel -> `(*window, in, out)`."""
        return kernel.transpose(_kernel_last(self.numbers.rhs_spec))

    def kernel_out(self, kernel: Array) -> Array:
        """`(*window, in, out)` -> lax's kernel."""
        return kernel.transpose(np.argsort(_kernel_last(self.numbers.rhs_spec)))

    def output_in(self, y: Array) -> Array:
        """lax's output -> `(batch, *output, out)`."""
        return y.transpose(_channels_last(self.numbers.out_spec))

    def output_out(self, y: Array) -> Array:
        """`(batch, *output, out)` -> lax's output."""
        return y.transpose(np.argsort(_channels_last(self.numbers.out_spec)))


def checked_by_lax(x: Any, kernel: Any, **parameters: Any) -> jax.ShapeDtypeStruct:
    """The output's type, with its weakness and its sharding, or exactly the error that lax has for these arguments."""
    return jax.eval_shape(partial(lax_itself.conv_general_dilated, **parameters), x, kernel)


def padding_in_numbers(
    input_shape: Sequence[Any],
    kernel_shape: Sequence[Any],
    window_strides: Sequence[int],
    padding: Any,
    lhs_dilation: Sequence[int] | None,
    rhs_dilation: Sequence[int] | None,
    dimension_numbers: Any,
) -> Any:
    """`padding`, but as pairs where it is a word over an input with gaps, which lax refuses.

    The words mean there what they mean elsewhere, over the extents with the gaps: the output of `SAME` has
    `ceil(((n - 1) * lhs_dilation + 1) / stride)` positions.
    """
    if not isinstance(padding, str) or lhs_dilation is None or all(g == 1 for g in lhs_dilation):
        return padding
    numbers = lax.conv_dimension_numbers(tuple(input_shape), tuple(kernel_shape), dimension_numbers)
    rank = len(numbers.lhs_spec) - 2
    taps = (1,) * rank if rhs_dilation is None else rhs_dilation
    if {len(lhs_dilation), len(taps), len(window_strides)} != {rank}:
        return ((0, 0),) * rank  # lax says which of them is wrong
    spread = _spread((input_shape[a] for a in numbers.lhs_spec[2:]), lhs_dilation)
    extents = _spread((kernel_shape[a] for a in numbers.rhs_spec[2:]), taps)
    return tuple(lax.padtype_to_pads(spread, extents, window_strides, padding))


def _spread(extents: Iterable[Any], steps: Sequence[int]) -> tuple[Any, ...]:
    """`extents` with gaps between the cells."""
    return tuple((n - 1) * step + 1 if n else 0 for n, step in zip(extents, steps, strict=True))


def lax_convolution(
    input_shape: Ints,
    kernel_shape: Ints,
    *,
    window_strides: Any,
    padding: Any,
    lhs_dilation: Any,
    rhs_dilation: Any,
    dimension_numbers: Any,
    feature_group_count: int,
    batch_group_count: int,
    precision: Any,
    preferred_element_type: DTypeLike | None,
) -> LaxConvolution:
    """What lax's parameters say, parsed once; `checked_by_lax` has seen them."""
    numbers = lax.conv_dimension_numbers(tuple(input_shape), tuple(kernel_shape), dimension_numbers)
    window = window_of(
        tuple(input_shape[a] for a in numbers.lhs_spec[2:]),
        tuple(kernel_shape[a] for a in numbers.rhs_spec[2:]),
        stride=tuple(window_strides),
        padding=padding if isinstance(padding, str) else tuple(map(tuple, padding)),
        dilation=1 if rhs_dilation is None else tuple(rhs_dilation),
        input_dilation=1 if lhs_dilation is None else tuple(lhs_dilation),
        names={"size": "rhs", "stride": "window_strides", "dilation": "rhs_dilation"},
    )
    groups = feature_group_count * batch_group_count
    # By name: NumPy holds float64 to be equal to None, and one geometry would be taken for the other.
    output_dtype = None if preferred_element_type is None else jax.numpy.dtype(preferred_element_type).name
    hashable = tuple(precision) if isinstance(precision, list) else precision
    return LaxConvolution(ConvGeometry(window, groups, False, hashable, output_dtype), numbers, batch_group_count)


def _channels_last(spec: Spec) -> Ints:
    batch, feature, *spatial = spec
    return (batch, *spatial, feature)


def _kernel_last(spec: Spec) -> Ints:
    features_out, features_in, *window = spec
    return (*window, features_in, features_out)
