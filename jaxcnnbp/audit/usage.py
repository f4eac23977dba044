"""How a function uses its inputs: which of them a window slides over, or is the window, and where it meets padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from jaxcnnbp.audit.interpreter import equations
from jaxcnnbp.audit.oracle.axes import Axis, axes_of
from jaxcnnbp.transform.interpreter import inner_traces, opened

# Primitives that hand their first operand on as it is.
TRANSPARENT = ("convert_element_type", "copy", "copy_p", "optimization_barrier")
# An option of each of the oracle's rules that slide a window.
WINDOWED = frozenset(("layout", "flip", "sign", "count_include_pad"))
CALLS = ("jit", "custom_vjp_call", "custom_jvp_call", "closed_call", "remat2", "checkpoint")


@dataclass(frozen=True)
class Usage:
    """The spatial axes of an array, and on each of them the positions that meet padding in some window."""

    axes: tuple[int, ...]
    padded: tuple[np.ndarray, ...]  # one array of bool an axis

    def meets_padding(self, shape: Sequence[int]) -> np.ndarray:
        """Whether each element of the array meets padding on some axis."""
        meets = np.zeros(shape, bool)
        for axis, mark in zip(self.axes, self.padded, strict=True):
            np.moveaxis(meets, axis, -1)[..., mark] = True
        return meets


def usages(closed: ClosedJaxpr, inputs: int) -> dict[int, Usage]:
    """The first use of each of the leading `inputs` arguments of a trace by a convolution or a pooling, by place."""
    found: dict[int, Usage] = {}
    for place, usage in _walk(closed.jaxpr, {v: i for i, v in enumerate(closed.jaxpr.invars[:inputs])}):
        found.setdefault(place, usage)
    return found


def slides_windows(closed: ClosedJaxpr) -> bool:
    """Whether there is a convolution or a pooling in a trace: without one nothing has edges and corners."""
    return any(map(_is_windowed, equations(closed.jaxpr)))


def _is_windowed(eqn: JaxprEqn) -> bool:
    name = eqn.primitive.name
    windowed = name.startswith(("conv_general_dilated", "reduce_window", "select_and_"))
    return windowed or (name == "numpy_oracle" and bool(WINDOWED.intersection(dict(eqn.params["rule"].options))))


def _walk(jaxpr: Jaxpr, places: dict[Any, int]) -> Iterator[tuple[int, Usage]]:
    for eqn in jaxpr.eqns:
        known = [None if isinstance(v, Literal) else places.get(v) for v in eqn.invars]
        if not any(place is not None for place in known):
            continue
        if eqn.primitive.name in TRANSPARENT and known[0] is not None:
            places[eqn.outvars[0]] = known[0]
        inner = _inner(eqn)
        if inner is not None:
            handed = {v: p for v, p in zip(inner.invars, known, strict=True) if p is not None}
            yield from _walk(inner, handed)
        for position, usage in _windowed(eqn).items():
            place = known[position]
            if place is not None:
                yield place, usage


def _inner(eqn: JaxprEqn) -> Jaxpr | None:
    """The function that an equation hands its operands to."""
    traces = map(opened, inner_traces(eqn)) if eqn.primitive.name in CALLS else ()
    return next((trace for trace in traces if len(trace.invars) == len(eqn.invars)), None)


# --- what a primitive says of its operands


def _windowed(eqn: JaxprEqn) -> dict[int, Usage]:
    """The usage of each operand of a windowed primitive; empty for others, and where the input has gaps."""
    shapes = [cast(Any, v.aval).shape for v in eqn.invars]
    if eqn.primitive.name == "conv_general_dilated":
        return _lax_convolution(eqn.params, shapes)
    if eqn.primitive.name.startswith("reduce_window") and "window_dimensions" in eqn.params:
        return _lax_pooling(eqn.params, shapes[0])
    if eqn.primitive.name == "numpy_oracle" and not eqn.params["backward"]:
        return _oracle(dict(eqn.params["rule"].options), shapes)
    return {}


def _lax_convolution(p: dict[str, Any], shapes: Sequence[Sequence[int]]) -> dict[int, Usage]:
    if any(d > 1 for d in p["lhs_dilation"]):
        return {}
    image, kernel = p["dimension_numbers"].lhs_spec[2:], p["dimension_numbers"].rhs_spec[2:]
    return _convolution(shapes, image, kernel, p["window_strides"], p["padding"], p["rhs_dilation"])


def _lax_pooling(p: dict[str, Any], shape: Sequence[int]) -> dict[int, Usage]:
    wide = [a for a, k in enumerate(p["window_dimensions"]) if k > 1]
    names = ("window_dimensions", "window_strides", "padding", "window_dilation")
    size, stride, padding, dilation = ([p[name][a] for a in wide] for name in names)
    return {0: _over(wide, axes_of([shape[a] for a in wide], size, stride, padding, dilation))}


def _oracle(options: dict[str, Any], shapes: Sequence[Sequence[int]]) -> dict[int, Usage]:
    rank = len(shapes[0]) - 2
    if "layout" in options and all(d == 1 for d in options["lhs_dilation"]):
        image, kernel = options["layout"].x[2:], options["layout"].kernel[2:]
        return _convolution(shapes, image, kernel, options["stride"], options["padding"], options["rhs_dilation"])
    if "flip" in options:
        rest = options.get("stride", 1), options["padding"], options.get("dilation", 1)
        return _convolution(shapes, range(1, rank + 1), range(rank), *rest, flip=options["flip"])
    if "sign" in options or "count_include_pad" in options:
        image = range(len(shapes[0]) - 1 - options["rank"], len(shapes[0]) - 1)
        columns = (options[key] for key in ("window", "stride", "padding", "dilation", "ceil"))
        return {0: _over(image, axes_of([shapes[0][a] for a in image], *columns))}
    return {}


def _convolution(
    shapes: Sequence[Sequence[int]],
    image: Sequence[int],
    kernel: Sequence[int],
    stride: Any,
    padding: Any,
    dilation: Any,
    flip: bool = False,
) -> dict[int, Usage]:
    window = [shapes[1][a] for a in kernel]
    axes = axes_of([shapes[0][a] for a in image], window, stride, padding, dilation)
    return {0: _over(image, axes), 1: _of(kernel, axes, flip)}


def _over(places: Sequence[int], axes: Sequence[Axis]) -> Usage:
    """The usage of what windows slide over: positions that share a window with padding."""
    rows = ((axis.size, *_read(axis)) for axis in axes)
    return Usage(tuple(places), tuple(np.isin(np.arange(n), read[padding.any(1)]) for n, read, padding in rows))


def _of(places: Sequence[int], axes: Sequence[Axis], flip: bool) -> Usage:
    """The usage of a kernel: taps that some window lays on padding."""
    marks = (np.logical_or.reduce(_read(axis)[1]) for axis in axes)
    return Usage(tuple(places), tuple(mark[::-1] if flip else mark for mark in marks))


def _read(axis: Axis) -> tuple[np.ndarray, np.ndarray]:
    """The positions that windows read, `(windows, taps)`, and which of them are padding."""
    read = [[axis.position(window, tap) for tap in range(axis.taps)] for window in range(axis.windows)]
    positions = np.array(read, int).reshape(axis.windows, axis.taps)
    return positions, (positions < 0) | (positions >= axis.size)
