"""Forms that a GPU may be better served by and that no GPU has timed yet; `forms` does."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnnbp.geometry import Window
from jaxcnnbp.ops.numerics import cast, cast_exact, wide
from jaxcnnbp.ops.pool.window_max import identity, tap_dtype
from jaxcnnbp.taps import lay, reached, take_reached


def folded_at_once(x: Array, window: Window, kind: str) -> tuple[Array, Array]:
    """`extremes_and_taps` in one chain over all taps, which a GPU computes in one pass over memory."""
    outside, dtype = identity(x.dtype, kind), wide(x.dtype)
    beats = lax.gt if kind == "max" else lax.lt
    shape = (x.shape[0], *window.output, x.shape[-1])
    best, who = jnp.full(shape, outside, dtype), jnp.full(shape, -1, np.int32)
    for tap, spans in reached(window):
        p = lay(cast(take_reached(x, window, tap, spans), dtype), window, spans, outside)
        inside = lay(jnp.ones((1, *(v - u for u, v in spans), 1), bool), window, spans, False)
        wins = inside & (beats(p, best) | (p != p) | (who < 0))
        best, who = jnp.where(wins, p, best), jnp.where(wins, np.int32(np.ravel_multi_index(tap, window.size)), who)
    return cast_exact(best, x.dtype), jnp.maximum(who, 0).astype(tap_dtype(window.taps))
