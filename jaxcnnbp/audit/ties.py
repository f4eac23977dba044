"""Where a primitive of JAX has no unique derivative: two equal candidates for a maximum, an absolute value at 0."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import JaxprEqn

from jaxcnnbp.audit import monitor
from jaxcnnbp.audit.oracle.axes import Axis
from jaxcnnbp.audit.oracle.pooling import reads

COMPARISONS = ("max", "min", "gt", "ge", "lt", "le")
EXTREMES = ("reduce_max", "reduce_min", "argmax", "argmin")
KINKED = (*COMPARISONS, *EXTREMES, "abs", "reduce_window_max", "reduce_window_min", "sort", "top_k")


def record_ties(eqn: JaxprEqn, values: list[Any]) -> None:
    """Tells the monitor, if one listens, how many kinks a primitive meets at these operands."""
    if not monitor.listening() or any(isinstance(v, Tracer) for v in values):
        return
    name = eqn.primitive.name
    if name not in KINKED or not values or not values[0].size or not jnp.issubdtype(values[0].dtype, jnp.floating):
        return
    first = np.asarray(values[0])
    if name in COMPARISONS:
        monitor.record(f"{name}: equal operands", np.sum(np.equal(first, values[1])))
    elif name == "abs":
        monitor.record("abs: operands at exactly 0", np.sum(first == 0))
    elif name in EXTREMES:
        best = (np.max if name.endswith("max") else np.min)(first, eqn.params["axes"], keepdims=True)
        monitor.record(f"{name}: ties", np.sum(np.sum(first == best, eqn.params["axes"]) > 1))
    elif name in ("reduce_window_max", "reduce_window_min"):
        monitor.record(f"{name}: windows with a tie", _tied_windows(eqn, first if name.endswith("max") else -first))
    else:  # which of two equal numbers comes first, or is the last of the largest
        axis = eqn.params.get("dimension", eqn.params.get("axis", first.ndim - 1))
        falling = np.flip(np.sort(np.moveaxis(first, axis, -1)), -1)
        shown = falling[..., : eqn.params["k"] + 1] if name == "top_k" else falling
        monitor.record(f"{name}: equal neighbours", np.sum(shown[..., 1:] == shown[..., :-1]))


def _tied_windows(eqn: JaxprEqn, values: np.ndarray) -> int:
    p = eqn.params
    columns = (p[f"window_{what}"] for what in ("dimensions", "strides", "dilation"))
    rows = zip(values.shape, *columns, p["padding"], strict=True)
    axes = [Axis(n, k, s, d, low, high) for n, k, s, d, (low, high) in rows]
    read, real = reads(values[None, None], axes)
    best = np.max(read, axis=0, where=real, initial=-np.inf)
    return int(np.sum(np.sum(real & (read == best), axis=0) > 1))
