"""One convolution, as implementations ask about it; and what an implementation is."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

from jax.export import is_symbolic_dim

from jaxcnnbp.ops.conv.geometry import ConvGeometry, Form
from jaxcnnbp.taps import MANY_TAPS


@dataclass(frozen=True)
class ConvProblem:
    """What is known of a convolution while its program is traced.

    Attributes:
      geometry: all that is static about it.
      in_channels: of one group.
      out_channels: of one group.
      images: extent of the batch, a symbol under `jax.export`.
      dtype: the name of the operands' dtype.
    """

    geometry: ConvGeometry
    in_channels: int
    out_channels: int
    images: int
    dtype: str = "float32"

    @property
    def taps(self) -> int:
        return self.geometry.window.taps

    @property
    def positions(self) -> int:
        """Outputs of all images, of one channel."""
        return self.images * math.prod(self.geometry.window.output)

    @property
    def products(self) -> int:
        """Multiplications of one pass."""
        return self.positions * self.taps * self.in_channels * self.out_channels * self.geometry.groups

    @property
    def has_axes(self) -> bool:
        """Spatial axes at all."""
        return self.geometry.window.rank > 0

    @property
    def planar(self) -> bool:
        """Two spatial axes."""
        return self.geometry.window.rank == 2

    @property
    def volumetric(self) -> bool:
        """Three spatial axes or more."""
        return self.geometry.window.rank > 2

    @property
    def pointwise(self) -> bool:
        return self.taps == 1

    @property
    def few_taps(self) -> bool:
        """Whether an implementation that writes its taps out one by one stays quick to compile."""
        return self.taps <= MANY_TAPS

    @property
    def few_inputs(self) -> bool:
        """Whether the products of one output are few enough to be written out one by one."""
        return self.taps * self.in_channels <= MANY_TAPS

    @property
    def few_outputs(self) -> bool:
        """The same of the convolution that carries delta back."""
        return self.taps * self.out_channels <= MANY_TAPS

    @property
    def many_rows(self) -> bool:
        """Several axes, of which the last has few enough taps to be written out: a loop over rows of taps serves."""
        return self.geometry.window.rank > 1 and self.geometry.window.size[-1] <= MANY_TAPS

    @property
    def has_patches(self) -> bool:
        """Whether the patches are few operations: of few taps, or of windows that tile, one transpose."""
        return self.dense and (self.few_taps or self.geometry.window.tiles)

    @property
    def dense(self) -> bool:
        return self.geometry.groups == 1

    @property
    def depthwise(self) -> bool:
        return self.in_channels == self.out_channels == 1

    @property
    def of_single_channels(self) -> bool:
        """Depthwise, or with several outputs of each channel."""
        return self.depthwise or (self.in_channels == 1 and not self.dense)

    @property
    def grouped(self) -> bool:
        return not self.dense and not self.depthwise

    @property
    def few_groups(self) -> bool:
        """Whether a program a group stays quick to compile."""
        return self.grouped and self.geometry.groups <= 32

    @property
    def has_stride(self) -> bool:
        """A stride of more than one on any axis."""
        return max(self.geometry.window.stride, default=1) > 1

    @property
    def gapless(self) -> bool:
        """No gaps between the input cells."""
        return max(self.geometry.window.input_dilation, default=1) == 1

    @property
    def has_single_cells(self) -> bool:
        """A stride or gaps along an axis of one cell or one output: XLA's convolution aborts the process there."""
        window = self.geometry.window
        axes = zip(window.stride, window.input_dilation, window.spatial, window.output, strict=True)
        return any(max(stride, gap) > 1 and 1 in (cells, outputs) for stride, gap, cells, outputs in axes)

    @property
    def exceeds_cudnn(self) -> bool:
        """More than three axes: XLA's convolution aborts the process on NVIDIA GPUs (`num_dimensions <= 3`)."""
        return self.geometry.window.rank > 3

    @property
    def dilated(self) -> bool:
        """Gaps between the taps or between the input cells."""
        return math.prod(self.geometry.window.dilation) > 1 or not self.gapless

    @property
    def strided_undilated(self) -> bool:
        """A stride that splits the input gradient into phases."""
        return self.has_stride and not self.dilated

    @property
    def transposed(self) -> bool:
        """A stride of one over a dilated input: the input gradient of a strided convolution."""
        window = self.geometry.window
        return not self.gapless and math.prod(window.stride) == math.prod(window.dilation) == 1

    @property
    def keeps_or_shrinks(self) -> bool:
        """Stride 1 over two axes, of which neither has more outputs than inputs: XLA gives it to YNNPACK."""
        return self._steps_by_one and all(n >= o for n, o in self._extents)

    @property
    def keeps_or_grows(self) -> bool:
        """The same of the convolution that carries delta back."""
        return self._steps_by_one and all(n <= o for n, o in self._extents)

    @property
    def _steps_by_one(self) -> bool:
        return self.planar and self.dense and self.gapless and not self.has_stride

    @property
    def _extents(self) -> list[tuple[int, int]]:
        return list(zip(self.geometry.window.spatial, self.geometry.window.output, strict=True))

    @property
    def has_columns(self) -> bool:
        """Whether `column_blocks` means the rule: its blocks are of neighbouring columns."""
        return self.dense and self.few_taps and self.has_axes and not self.dilated

    @property
    def has_frames(self) -> bool:
        """Long windows by long strides over a line, as a Fourier transform of short times has: few blocks."""
        window = self.geometry.window
        return self.dense and window.rank == 1 and self.strided_undilated and window.size[0] <= 16 * window.stride[0]


Condition = Callable[[ConvProblem], bool]


class Spread(enum.Enum):
    """Whether an implementation carries a NaN or an infinity further than its windows.

    None that does serves under `jax_debug_nans` and `jax_debug_infs`.
    """

    NOWHERE = enum.auto()
    # By products with zeros that stand for what is not there: another serves where a number is not finite.
    MENDED = enum.auto()
    # By sums of neighbours, to no further than a tile, as `correlate` says.
    IN_TILES = enum.auto()


@dataclass(frozen=True)
class Implementation:
    """One way to compute one pass of a convolution.

    Attributes:
      form: the function.
      supports: whether it means the rule there.
      single_device: whether it is for one device: it works through images in a loop or lays them together, for which
        several would gather them, or sums more than the gradient.
      spreads: how it treats a NaN or an infinity in its operands.
      uncounted: whether it also serves a number of images that is a symbol, as under `jax.export`.
      platform: the only one that it runs on, None for all.
    """

    form: Form
    supports: Condition
    single_device: bool = False
    spreads: Spread = Spread.NOWHERE
    uncounted: bool = False
    platform: str | None = None

    @cached_property
    def name(self) -> str:
        """What `implementation` calls it: the name of the form, without that of the pass."""
        form = self.form.func if isinstance(self.form, partial) else self.form
        own = re.sub("_?(forward|input_grad|kernel_grad)_?(by_|in_)?", "", form.__name__)
        return _NAMES.get(own, own)

    def serves(self, problem: ConvProblem, partitioned: bool, platform: str | None = None) -> bool:
        """Whether it may serve: it means the rule, and spreads nothing where nothing may be spread.

        `partitioned` is whether the arrays may lie on several devices, where a look through all numbers is an exchange.
        """
        return (
            self.supports(problem)
            and (self.uncounted or not is_symbolic_dim(problem.images))
            and not (partitioned and self.single_device)
            and (self.spreads is Spread.NOWHERE or not (partitioned or problem.geometry.exact))
            and (platform is None or self.platform in (None, platform))
        )


# Where what is left of a form's name is not what a user would call it; `as_forward` is lax's own, laid out for CPUs.
_NAMES = {"taps": "reference", "lax": "xla", "as": "xla"}
