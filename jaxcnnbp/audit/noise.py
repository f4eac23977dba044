"""Imitates the rounding of a precision, so that a tolerance can be measured instead of guessed.

A function in float64 whose every rounding step is disturbed at random by a few units in the last place of the original
dtype moves about as far as the rounded function may (Monte Carlo arithmetic; D. S. Parker, 1997). What the disturbance
does to a gradient holds all that a formula for the tolerance would have to know: how many terms are summed, how large
they are before they cancel, and which winner of a maximum is a matter of the last bit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import JaxprEqn

# Primitives that move or compare values and never round.
EXACT = frozenset(
    "abs all_gather argmax argmin broadcast_in_dim clamp complex concatenate conj copy copy_p cummax "
    "cummin dynamic_slice dynamic_update_slice expand_dims gather imag iota max min neg "
    "optimization_barrier pad real reduce_max reduce_min reduce_window_max reduce_window_min reshape "
    "rev scatter select_n sign slice sort split squeeze stop_gradient top_k transpose round floor ceil "
    "while".split()
)
# Primitives that sum: their error grows with the terms, also where the terms cancel.
SUMS = frozenset(
    "conv_general_dilated cumsum dot_general reduce_sum reduce_window_sum scatter-add scatter_add "
    "ragged_dot fft numpy_oracle reduce_prod cumlogsumexp reduce_window".split()
)


# What compiled programs are told the noise of; any other float is taken for the last.
DTYPES = [jnp.dtype(name) for name in ("float64", "float32", "float16", "bfloat16")]


@dataclass(frozen=True)
class Noise:
    """Relative disturbances, drawn anew at each use from one generator."""

    generator: np.random.Generator  # NumPy's generator; the order of the primitives makes a run repeatable
    units: float  # largest disturbance, in units of the rounding error of the dtype that the trace names; 0 for none
    # The rounding error of a dtype, where a trace in float64 stands for one in another.
    roundoff: Callable[[Any], float]
    # Inside of what is compiled once for all runs a number to seed with, in each step of a loop another one, and the
    # largest disturbance of each of `DTYPES`.
    told: Any = None
    places: Iterator[int] = field(default_factory=itertools.count)  # counts the uses of `told`

    def inside(self, told: Any) -> Noise:
        """The noise of what is compiled once."""
        return replace(self, told=told, places=itertools.count())

    def to_tell(self) -> Any:
        """What such a program is told."""
        if self.told is not None:
            return self.told.at[0].set(500 * (1 + self._hash(())))
        return jnp.asarray([self.generator.uniform(0, 1e3), *(self.units * self.roundoff(d) for d in DTYPES)])

    def _hash(self, shape: tuple[int, ...]) -> Any:
        """Numbers between -1 and 1 that look random, in few operations, for they are compiled at every use."""
        element = jnp.arange(math.prod(shape), dtype=jnp.float64).reshape(shape)
        many = 43758.5453 * jnp.sin(12.9898 * element + 78.233 * (1 + next(self.places)) + 37.719 * self.told[0])
        return 2 * (many - jnp.floor(many)) - 1

    def on_inputs(self, eqn: JaxprEqn, values: list[Any]) -> list[Any]:
        """Disturbs the operands of a sum."""
        if eqn.primitive.name not in SUMS or _moves_only(eqn):
            return values
        return [self._disturbed(v, dtype_of(a)) for v, a in zip(values, eqn.invars, strict=True)]

    def on_outputs(self, eqn: JaxprEqn, values: list[Any]) -> list[Any]:
        """Disturbs what a primitive that rounds gives back."""
        if eqn.primitive.name in EXACT or _moves_only(eqn):
            return values
        return [self._disturbed(v, dtype_of(a)) for v, a in zip(values, eqn.outvars, strict=True)]

    def _disturbed(self, value: Any, dtype: Any) -> Any:
        is_reference = not isinstance(jax.typeof(value), ShapedArray)
        if is_reference or not jnp.issubdtype(dtype, jnp.inexact) or not value.size:
            return value
        if self.told is not None:
            real = jnp.finfo(dtype).dtype
            most = self.told[1 + (DTYPES.index(real) if real in DTYPES else len(DTYPES) - 1)]
            return lax.mul(value, (1 + most * self._hash(value.shape)).astype(value.dtype))
        if self.units == 0:
            return value
        factor = np.asarray(self.generator.uniform(-1, 1, value.shape))
        factor *= self.units * self.roundoff(dtype)  # in place: arrays may be large
        factor += 1
        return lax.mul(value, factor.astype(value.dtype, copy=False))


def dtype_of(atom: Any) -> Any:
    """The dtype that a trace gives a variable or a literal."""
    return atom.aval.dtype


def unit_roundoff(dtype: Any) -> float:
    """The largest relative error of rounding to `dtype`: half the distance from 1 to the next number."""
    return float(jnp.finfo(dtype).eps) / 2


def _moves_only(eqn: JaxprEqn) -> bool:
    if eqn.primitive.name == "convert_element_type":
        source, target = dtype_of(eqn.invars[0]), eqn.params["new_dtype"]
        return not jnp.issubdtype(source, jnp.inexact) or unit_roundoff(target) <= unit_roundoff(source)
    return eqn.primitive.name == "numpy_oracle" and eqn.params["rule"].exact
