"""Both passes of one layer by the rules in force, and how far autodiff is from them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnnbp.audit.measure import place_of_largest
from jaxcnnbp.explain.explanation import Explanation
from jaxcnnbp.explain.numbers import gap, numbers_of, require_drawable, with_channels
from jaxcnnbp.geometry import Window
from jaxcnnbp.geometry.window import Ints
from jaxcnnbp.modes import mode
from jaxcnnbp.ops.conv.api import convolve, correlate
from jaxcnnbp.ops.conv.lax_api import conv_transpose as lax_conv_transpose
from jaxcnnbp.ops.pool.api import avg_pool
from jaxcnnbp.ops.pool.api import max_pool as pool_of_maxima

Forward = Callable[..., jax.Array]


def forward(window: Window, flip: bool) -> Forward:
    """A convolution of one image by the public function."""
    shared = {"stride": window.stride, "padding": window.padding, "dilation": window.dilation}
    return lambda x, kernel: (convolve if flip else correlate)(x[None], kernel, **shared)[0]


def forward_transposed(window: Window, flip: bool) -> Forward:
    """A transposed convolution; `window` is that over the spread-out input."""

    def run(x: jax.Array, kernel: jax.Array) -> jax.Array:
        # lax exchanges the channels together with the flip, and wants them the other way round then.
        turned = jnp.swapaxes(kernel, -1, -2) if flip else kernel
        return lax_conv_transpose(
            x[None], turned, window.input_dilation, window.padding, window.dilation, transpose_kernel=flip
        )[0]

    return run


def forward_pool(kind: str, window: Window, options: Mapping[str, Any]) -> Forward:
    """A pool of one image."""
    shared = {"window_dilation": window.dilation, "ceil_mode": window.ceil_mode}
    if kind == "max-pool":
        ties = options["ties"]
        return lambda x: pool_of_maxima(x[None], window.size, window.stride, window.padding, ties=ties, **shared)[0]
    counted = options["count_padding"]
    return lambda x: avg_pool(x[None], window.size, window.stride, window.padding, counted, **shared)[0]


def delta_for(given: Any, window: Window, channels: int, dtype: np.dtype, seed: int) -> np.ndarray:
    """The gradient of the loss by the output, drawn if it is not given."""
    shape = (*window.output, channels)
    delta = numbers_of("delta", shape if given is None else given, seed)
    delta = with_channels("delta", delta, window.rank, 1).astype(dtype)
    if delta.shape != shape:
        raise ValueError(f"`delta` (shape={delta.shape}) must have the shape of the output, {shape}.")
    return delta


def explained(
    kind: str,
    window: Window,
    settings: dict[str, Any],
    arrays: dict[str, np.ndarray],
    forward: Forward,
    select: Mapping[str, Ints] | None,
) -> Explanation:
    """Runs both passes by the package's rules and by autodiff."""
    require_drawable(window.spatial, int(np.prod(window.output)) * window.taps)
    found = _passes(forward, arrays)
    gaps, note = _gaps(forward, arrays, found)
    settings = _asked(kind, window) | settings
    if not note and kind == "max-pool" and any(d > 1 for d in window.dilation):
        note = "JAX has no gradient of a dilated max pool; autodiff stands here for that of a maximum picked by argmax."
    chosen = _middle(kind, window, found) | dict(select or {})
    return Explanation(kind, window, settings, arrays | found, gaps, note, chosen)


def _middle(kind: str, window: Window, found: Mapping[str, np.ndarray]) -> dict[str, Ints]:
    """What is picked out unless the reader says: the middle of each result; of a max pool, where delta arrives."""
    chosen = {name: tuple(n // 2 for n in array.shape[: window.rank]) for name, array in found.items()}
    if kind == "max-pool":
        chosen["dx"] = place_of_largest(np.nan_to_num(np.abs(found["dx"][..., 0])))
    return chosen


def _asked(kind: str, window: Window) -> dict[str, Any]:
    """Stride, padding and dilation in the words of the caller."""
    if kind != "conv-transpose":
        return {"stride": window.stride, "padding": window.padding, "dilation": window.dilation}
    rows = zip(window.extent, window.padding, strict=True)
    pairs = tuple((e - 1 - low, e - 1 - high) for e, (low, high) in rows)
    return {"stride": window.input_dilation, "padding": pairs, "dilation": window.dilation}


def _passes(forward: Forward, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """y, dx and, where there is a kernel, dk: whatever the rules in force say."""
    wide = arrays["x"].dtype == np.float64
    with jax.enable_x64(True) if wide else contextlib.nullcontext():
        operands = [jnp.asarray(arrays[name]) for name in ("x", "kernel") if name in arrays]
        y, pull_back = jax.vjp(forward, *operands)
        gradients = pull_back(jnp.asarray(arrays["delta"]))
        return {name: np.asarray(a) for name, a in zip(("y", "dx", "dk"), (y, *gradients), strict=False)}


def _gaps(
    forward: Forward, arrays: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]
) -> tuple[dict[str, float], str]:
    """How far autodiff of the same forward is from what was found, and why there is none if so."""
    try:
        with mode("autodiff"):
            by_jax = _passes(forward, arrays)
    except NotImplementedError as error:
        return {}, f"Autodiff has no such gradient: {error}"
    return {name: gap(array, by_jax[name]) for name, array in found.items()}, ""
