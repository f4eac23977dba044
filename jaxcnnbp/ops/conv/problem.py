"""The rows of the tables of forms, and what their conditions may ask about a convolution."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from jax import Array

from jaxcnnbp.geometry.window import Ints
from jaxcnnbp.ops.conv.geometry import ConvGeometry


@dataclass(frozen=True)
class Layer:
    """What a row's condition may ask about."""

    geometry: ConvGeometry
    depth: int  # input channels a group
    width: int  # output channels a group
    images: int
    itemsize: int = 4  # bytes of an element
    short_vectors: bool = False  # whether the processor is one that `processor.has_short_vectors` knows

    @property
    def doubles(self) -> bool:
        """Elements wider than float32, which XLA's fast convolution is not for."""
        return self.itemsize > 4

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
    def mixes_channels(self) -> bool:
        """A matrix product wide enough to be faster than XLA's convolution, or a stride that makes that slow."""
        return self.steps or min(self.depth, self.width) >= 16

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
    def few_groups(self) -> bool:
        """Whether a program a group stays quick to compile."""
        groups = self.geometry.groups
        return self.grouped and (groups <= 16 or (groups <= 32 and self._products >= 1.5e6))

    @property
    def thin(self) -> bool:
        """Groups of so few channels that taking them apart is most of the work."""
        return min(self.depth, self.width) < 4

    @property
    def shares_cells(self) -> bool:
        """Whether neighbouring outputs read the same cells."""
        window = self.geometry.window
        return any(k > s for k, s in zip(window.size, window.stride, strict=True))

    @property
    def steps(self) -> bool:
        """A stride of more than one on any axis."""
        return max(self.geometry.window.stride, default=1) > 1

    @property
    def strided(self) -> bool:
        """A stride that splits the input gradient into phases."""
        return self.steps and not self.dilated

    @property
    def phases_as_channels(self) -> bool:
        """Few input channels, no products with zeros, or more phases than are quick to compile one by one."""
        return self.depth < 16 or self._fills_phases or math.prod(self.geometry.window.stride) > 16

    @property
    def zeros_are_cheap(self) -> bool:
        """So little work that the products with the zeros between the deltas cost less than a convolution a phase."""
        if self.depth <= 3:
            return self._products < 1.2e8
        return self.depth >= 32 and self._products < 5e7

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
        """A window without gaps that spans more than the whole input: XLA's convolution then runs a plain loop."""
        return math.prod(self.geometry.window.dilation) == 1 and any(
            e > n for e, n in zip(self.geometry.window.extent, self.geometry.window.dilated, strict=True)
        )

    @property
    def exceeds_output(self) -> bool:
        """The same for the convolution that carries delta back."""
        return math.prod(self.geometry.window.dilation) == 1 and any(
            e > o for e, o in zip(self.geometry.window.extent, self.geometry.window.output, strict=True)
        )

    @property
    def dilated(self) -> bool:
        window = self.geometry.window
        return math.prod(window.dilation) > 1 or not self.gapless

    @property
    def little_to_send_back(self) -> bool:
        """Few input channels, and patches of all outputs that stay in the cache or are not much more than delta."""
        slow_otherwise = self.doubles and self.depth <= 4
        return self.depth <= 12 and (
            self._patch_cells <= 3e6 or self.taps * self.depth <= 2 * self.width or slow_otherwise
        )

    @property
    def few_positions(self) -> bool:
        """So few that the patches of all outputs take less memory than the kernel."""
        return self._positions <= self.width

    @property
    def few_to_send_back(self) -> bool:
        """So few that what is sent back takes less time than to turn the kernel round."""
        return self._positions <= 2 * self.width

    @property
    def few_to_read(self) -> bool:
        """So few that their patches take less time than XLA's convolution needs to lay out the kernel."""
        return 2 * self._positions < self.width and not self.frames

    @property
    def has_columns(self) -> bool:
        """Whether `column_blocks` means the rule: its blocks are of neighbouring columns."""
        return self.dense and self.few_taps and self.spatial and not self.dilated

    @property
    def shares_columns(self) -> bool:
        """Whether `column_blocks` has blocks to put its outputs in, by pairs or by strides."""
        return self.strided or self.geometry.window.output[-1] % 2 == 0

    @property
    def reads_little(self) -> bool:
        """So few input channels that patches cost less than XLA's convolution of few channels."""
        single = self.steps or self.geometry.window.output[-1] % 2 == 1
        # There XLA fills its registers, and the rest is too little work for a copy.
        fills_registers = (16 if self.short_vectors else 32) < self.width <= 64
        lax_is_ahead = self.planar and (self._products < 5e6 or (single and fills_registers))
        return self.depth <= 8 and self.taps * self.depth <= 80 and not lax_is_ahead and not self.frames

    @property
    def corrects_from_columns(self) -> bool:
        """So few input channels that the kernel gradient from patches is faster than XLA's."""
        xla_is_slow = self.short_vectors and (self.steps or self._products >= 5e7)
        few = self.depth <= 6 and (xla_is_slow or self.taps * self.depth <= 64)
        return few and self.shares_columns and self.width >= (16 if self.steps else 4)

    @property
    def corrects_in_short_vectors(self) -> bool:
        """Where XLA's kernel gradient in vectors of 256 bits takes far more time than to copy the patches."""
        unpadded = not any(map(any, self.geometry.window.padding))
        narrow_steps = self.steps and self.taps <= 9
        wide = self.width >= 32 and (narrow_steps or (not self.steps and (unpadded or self.dilated)))
        many = self.images >= 32 and unpadded and self._products >= 5e7
        return self.short_vectors and self.planar and (wide or many)

    @property
    def sends_back_in_short_vectors(self) -> bool:
        """Strides whose patches are added up in less time than vectors of 256 bits need to multiply a phase."""
        megabytes = self._patch_cells * self.itemsize / 2**20
        if self.taps <= 9 and not self._fills_phases:
            pays = megabytes <= 16
        elif self.taps <= 16:
            pays = self.zeros_are_cheap
        else:
            pays = megabytes <= 10 and self.width >= 48 and self._products >= 5e7
        return self.short_vectors and self.planar and self.strided and pays

    @property
    def _fills_phases(self) -> bool:
        """Whether all phases of the stride have as many taps."""
        window = self.geometry.window
        return all(k % s == 0 for k, s in zip(window.size, window.stride, strict=True))

    @property
    def planar(self) -> bool:
        """Two spatial axes."""
        return self.geometry.window.rank == 2

    @property
    def has_short_rows(self) -> bool:
        """So few channels that XLA's convolution leaves the rows of an image to one core, and enough work to share."""
        return max(self._padded_beyond) <= 0 and self._is_short(self.depth, self.width, self.geometry.window.output[-1])

    @property
    def carries_back_short_rows(self) -> bool:
        """The same for the convolution that carries delta back, which is padded where the forward one is not."""
        return min(self._padded_beyond) >= 0 and self._is_short(
            self.width, self.depth, self.geometry.window.spatial[-1]
        )

    @property
    def _padded_beyond(self) -> list[int]:
        """By how much the padding is wider than keeps the size: it is laid between the images and multiplied there."""
        window = self.geometry.window
        return [low + high - (e - 1) for (low, high), e in zip(window.padding, window.extent, strict=True)]

    def _is_short(self, inputs: int, outputs: int, columns: int) -> bool:
        between = 4 * (self.geometry.window.extent[-1] - 1)  # zeros between two images: no more than a quarter
        narrow = outputs <= 64 or (self.short_vectors and inputs <= 64 and not self.much_work)
        short = narrow and between < columns <= 64 and not self.steps
        return short and self.taps * self.depth * self.width >= 6000 and self._products >= 5e7

    @property
    def runs_plain_loops(self) -> bool:
        """Whether XLA's convolution of doubles is its slow one: on other than two axes, few channels, odd padding."""
        return self._loops_over_doubles([max(n, -low, -high) for n, (low, high) in self._edges])

    @property
    def carries_back_in_plain_loops(self) -> bool:
        """The same for the convolution that carries delta back, whose padding is what the forward one lacks."""
        return not self.steps and self._loops_over_doubles([-n for n, _ in self._edges])

    @property
    def corrects_in_plain_loops(self) -> bool:
        """The same for the kernel gradient."""
        return self.doubles and self.spatial and not self.planar

    def _loops_over_doubles(self, padded_beyond: list[int]) -> bool:
        odd = not self.planar or max(self.depth, self.width) <= 16 or max(padded_beyond) > 0
        return self.doubles and self.spatial and odd

    @property
    def _edges(self) -> list[tuple[int, Ints]]:
        return list(zip(self._padded_beyond, self.geometry.window.padding, strict=True))

    @property
    def has_long_rows(self) -> bool:
        """64 outputs of rows that are long enough for XLA's convolution to be fast all the same."""
        return self.width <= 64 and self.geometry.window.output[-1] > 100

    @property
    def carries_back_long_rows(self) -> bool:
        """The same for the convolution that carries delta back."""
        return self.depth <= 64 and self.geometry.window.spatial[-1] > 100

    @property
    def pairs_fill_cores(self) -> bool:
        """Outputs that XLA's kernel gradient leaves to one core, and that are enough for two if taken in pairs."""
        window = self.geometry.window
        pairs_share = window.stride[-1] == 1 and window.output[-1] % 2 == 0 and window.size[-1] > 1
        # Without padding XLA is faster on single columns.
        return (
            pairs_share
            and (self.planar or not self.short_vectors)
            and any(map(any, window.padding))
            and 32 < self.width <= 64
            and self.depth >= 16
            and self._products >= 5e7
        )

    @property
    def much_work(self) -> bool:
        """Channels for matrix products, products to pay for more code to compile, tiles to pay for 16 kernels."""
        channels = sorted((self.depth, self.width))
        return channels[0] >= 64 and self._products >= 5e8 and 4 * self._positions >= 3 * channels[1]

    @property
    def _positions(self) -> int:
        return self.images * math.prod(self.geometry.window.output)

    @property
    def _products(self) -> int:
        """Of one group."""
        return self._patch_cells * self.width

    @property
    def _patch_cells(self) -> int:
        """Cells in the patches of all outputs, of one group."""
        return self._positions * self.taps * self.depth

    @property
    def few_taps(self) -> bool:
        """Whether a form that writes its taps out one by one stays quick to compile."""
        return self.taps <= 128

    @property
    def filters_images(self) -> bool:
        """Many taps over a few channels, as measures of images have, and little work: in a loop it compiles sooner.

        A layer of many channels takes 3 to 6 times as long in such a loop: 7x7 on 56x56, 96 channels, 2.0 -> 12.9 ms.
        """
        return self.depthwise and self.many_rows and self.taps > 64 and self.geometry.groups <= 4 and self._work < 2e6

    @property
    def frames(self) -> bool:
        """Long windows by long strides over a line, as a Fourier transform of short times: few blocks of a stride."""
        window = self.geometry.window
        line = self.dense and window.rank == 1 and not self.dilated and self.steps
        return line and self.taps > 25 and self.depth <= 2 and self.taps <= 16 * window.stride[0]

    @property
    def writes_taps_out(self) -> bool:
        """Few enough taps, or images of one channel for which XLA's convolution and the columns of it are slower."""
        if self.depthwise:
            return not self.filters_images
        by_other_means = self.grouped or self.frames or (self.planar and self.has_columns)
        return not self.few_to_multiply and (self.taps <= 25 or not by_other_means)

    @property
    def few_to_multiply(self) -> bool:
        """Groups of one input channel, as dense patches have, of so little work that lax's plain loop is as fast."""
        one_to_many = self.grouped and self.depth == 1 and not self.dilated
        return one_to_many and self._work < (2e6 if self.taps > 25 else 3e5)

    @property
    def little_for_lax(self) -> bool:
        """So few products that lax's plain loop takes a millisecond, where other forms take 100 to 1000 to compile.

        A single tap is a matrix product, which compiles as soon.
        """
        return not self.pointwise and self._work < 3e5

    @property
    def few_to_carry_back(self) -> bool:
        """So little that lax's plain loop carries it back in a fraction of a millisecond, and compiles at once.

        With a stride lax multiplies the zeros between the deltas, and a NaN in the kernel goes further than its taps.
        """
        return self.grouped and self.depth == 1 and not (self.steps or self.dilated) and self._work < 5e4

    @property
    def _work(self) -> int:
        """Products of all groups."""
        return self.geometry.groups * self._products

    @property
    def many_rows(self) -> bool:
        """More taps than are written out, in rows that are."""
        return self.geometry.window.rank > 1 and self.geometry.window.size[-1] <= 128


Form = Callable[[Array, Array, ConvGeometry], Array]
Condition = Callable[[Layer], bool]


def _always(_: Layer) -> bool:
    return True


class Spread(enum.Enum):
    """Whether a form carries a NaN or an infinity further than its windows.

    None that does serves under `jax_debug_nans` and `jax_debug_infs`.
    """

    NOWHERE = enum.auto()
    # By products with zeros that stand for what is not there: another row serves where a number is not finite.
    MENDED = enum.auto()
    # By sums of neighbours, to no further than a tile, as `correlate` says.
    IN_TILES = enum.auto()


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
      form: the function.
      measured: what it is worth, on which layer.
      fits: whether it means the rule there.
      pays: whether it is faster there.
      alone: whether it is for one device: it works through images in a loop or lays them together, for which several
        would gather them, or sums more than the gradient.
      spreads: how it treats a NaN or an infinity in its operands.
      uncounted: whether it also serves a number of images that is a symbol, as under `jax.export`.
      platform: the only one that it runs on, None for all.
    """

    form: Form
    measured: str
    fits: Condition
    pays: Condition = _always
    alone: bool = False
    spreads: Spread = Spread.NOWHERE
    uncounted: bool = False
    platform: str | None = None

    @property
    def name(self) -> str:
        """What `implementation` calls it: the name of the form, without that of the pass."""
        form = self.form.func if isinstance(self.form, partial) else self.form
        own = re.sub("_?(forward|input_grad|kernel_grad)_?(by_|in_)?", "", form.__name__)
        return _NAMES.get(own, own)


# Where what is left of a form's name is not what a user would call it; `as_forward` is lax's own, laid out for CPUs.
_NAMES = {"taps": "reference", "lax": "xla", "as": "xla", "group": "by_group"}
