"""Padding that repeats the input: wrapped around, reflected, or its last cell held.

Along one spatial axis of n cells, position q of the padded axis reads the cell m(q - low):

    circular     m(i) = i mod n
    reflect      m(i) = -i before the input, 2 (n - 1) - i behind it        the last cell itself is not repeated
    replicate    m(i) = 0 before the input, n - 1 behind it

    forward      y[q]  = x[m(q - low)]
    input grad   dx[i] = sum of delta[q] over all q with m(q - low) = i

Each border is a strip of the input, mirrored by "reflect" and one cell wide for "replicate". So the gradient lays what
delta has on the border back on that strip, axis after axis, the last one first. Negative padding crops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxcnnbp.geometry import Window
from jaxcnnbp.geometry.parse import require_numbers
from jaxcnnbp.geometry.window import Ints, Pairs
from jaxcnnbp.hand_written import hand_written
from jaxcnnbp.ops._dtypes import cast, wide
from jaxcnnbp.taps import pad_axes

PADDING_MODES = ("zeros", "circular", "reflect", "replicate")

Span = tuple[int, int]


@dataclass(frozen=True)
class Border:
    """All that is static about one padding.

    Attributes:
      spatial: extents of the input.
      pairs: `(low, high)` positions added an axis; negative ones are cropped.
      mode: `"circular"`, `"reflect"` or `"replicate"`.
    """

    spatial: Ints
    pairs: Pairs
    mode: str

    @property
    def crop(self) -> Pairs:
        """What is cut off, no number above 0."""
        return tuple((min(low, 0), min(high, 0)) for low, high in self.pairs)

    @property
    def sides(self) -> Pairs:
        """What is added, no number below 0."""
        return tuple((max(low, 0), max(high, 0)) for low, high in self.pairs)

    @property
    def crops_first(self) -> bool:
        """What is cut off does not come round again, but is still reflected (PyTorch's rule)."""
        return self.mode == "circular"

    @property
    def source(self) -> Ints:
        """Extents of what there is to repeat."""
        cut = [low + high if self.crops_first else 0 for low, high in self.crop]
        return tuple(max(n + c, 0) for n, c in zip(self.spatial, cut, strict=True))


def border_of(window: Window, mode: str) -> tuple[Border | None, Window]:
    """The padding of `window` as a border, and the window over what is padded with it; no border for zeros."""
    if mode not in PADDING_MODES:
        known = ", ".join(map(repr, PADDING_MODES))
        raise ValueError(f"`padding_mode` (={mode!r}) is unknown; use one of {known}.")
    if mode == "zeros" or not any(map(any, window.padding)):
        return None, window
    require_numbers(window, f"`padding_mode` (={mode!r})", "use 'zeros'")
    border = Border(window.spatial, window.padding, mode)
    for axis in range(window.rank):
        _require_cells(border, axis)
    padded = tuple(n + low + high for n, (low, high) in zip(window.spatial, window.padding, strict=True))
    return border, replace(window, spatial=padded, padding=((0, 0),) * window.rank)


def _require_cells(border: Border, axis: int) -> None:
    """Refuses to add more than there is to repeat, as PyTorch does."""
    n, widest = border.source[axis], max(border.sides[axis])
    most = {"circular": n, "reflect": max(n - 1, 0), "replicate": widest if n else 0}[border.mode]
    if widest > most:
        raise ValueError(
            f"`padding` (={border.pairs}) adds {widest} positions at a side of spatial axis {axis}, but `padding_mode`"
            f" (={border.mode!r}) has at most {most} to repeat there; pad less, or use 'zeros'."
        )


@hand_written
@partial(jax.custom_vjp, nondiff_argnums=(1,))
def pad(x: Array, border: Border) -> Array:
    """`(batch, *spatial, channels)` -> `(batch, *padded, channels)`."""
    return pad_forward(x, border)


@jax.named_scope("pad.forward")
def pad_forward(x: Array, border: Border) -> Array:
    """y[q] = x[m(q - low)]."""
    x = _resize(x, border.crop) if border.crops_first else x
    for axis, (low, high) in enumerate(border.sides, start=1):
        before, after = strips(border.mode, x.shape[axis], low, high)
        parts = [_read(x, axis, before, low, border.mode), x, _read(x, axis, after, high, border.mode)]
        x = lax.concatenate(parts, axis) if low or high else x
    return x if border.crops_first else _resize(x, border.crop)


@jax.named_scope("pad.input_grad")
def pad_input_grad(delta: Array, border: Border) -> Array:
    """dx[i] = sum of delta[q] over all q with m(q - low) = i."""
    uncrop = tuple((-low, -high) for low, high in border.crop)
    dx = cast(delta, wide(delta.dtype))
    dx = dx if border.crops_first else _resize(dx, uncrop)
    for axis in reversed(range(1, dx.ndim - 1)):
        (low, high), n = border.sides[axis - 1], border.source[axis - 1]
        before, after = strips(border.mode, n, low, high)
        d = [lax.slice_in_dim(dx, *span, axis=axis) for span in ((0, low), (low, low + n), (low + n, low + n + high))]
        dx = d[1]
        for on_border, strip in ((d[0], before), (d[2], after)):
            dx = dx + _lay(on_border, axis, strip, n, border.mode) if on_border.shape[axis] else dx
    return cast(_resize(dx, uncrop) if border.crops_first else dx, delta.dtype)


def strips(mode: str, n: int, low: int, high: int) -> tuple[Span, Span]:
    """Which of n cells, first and one after the last, are repeated before the input, and which behind it."""
    if mode == "circular":
        return (n - low, n), (0, high)
    if mode == "reflect":
        return (1, 1 + low), (n - 1 - high, n - 1)
    return (0, 1), (n - 1, n)


def _read(x: Array, axis: int, strip: Span, width: int, mode: str) -> Array:
    """What stands on a border of `width` positions."""
    cells = lax.slice_in_dim(x, *strip, axis=axis) if width else lax.slice_in_dim(x, 0, 0, axis=axis)
    if mode == "reflect":
        return lax.rev(cells, (axis,))
    return jnp.repeat(cells, width, axis) if mode == "replicate" else cells


def _lay(delta: Array, axis: int, strip: Span, n: int, mode: str) -> Array:
    """The transpose of `_read`: delta of a border on its strip of the n cells, zero elsewhere."""
    if mode == "reflect":
        delta = lax.rev(delta, (axis,))
    elif mode == "replicate":
        delta = delta.sum(axis, keepdims=True)
    around = [(strip[0], n - strip[1], 0) if a == axis else (0, 0, 0) for a in range(delta.ndim)]
    return lax.pad(delta, jnp.zeros((), delta.dtype), around)


def _resize(x: Array, pairs: Sequence[Span]) -> Array:
    """`x` with zeros around its spatial axes, or cropped where a number is negative."""
    return pad_axes(x, [(low, high, 0) for low, high in pairs])


def pad_fwd(x: Array, border: Border) -> tuple[Array, None]:
    """:: x -> (y, nothing to keep)."""
    return pad_forward(x, border), None


def pad_bwd(border: Border, _: None, delta: Array) -> tuple[Array]:
    """:: CT y -> CT x."""
    return (pad_input_grad(delta, border),)


pad.defvjp(pad_fwd, pad_bwd)


def pad_op(x: Array, border: Border | None) -> Array:
    """`x` with its border, if there is one."""
    return x if border is None else pad(x, border)
