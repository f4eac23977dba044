"""A function and its rules in float64: whether a rule's formula is right, apart from how it rounds.

The function is traced again with its arguments in float64, so that constants are wide too, and read with every cast
between floats left out. What its rules give then is exact but for float64's own rounding, and so is the oracle of the
same trace: no cancellation, no wide range and no narrow dtype hides a mistake.

Where that trace would be another function (one that draws other random numbers, say) or cannot be had, that in the
function's own dtypes is read in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from jaxcnnbp.audit.differences import Differences, differences_in
from jaxcnnbp.audit.interpreter import Kept, Reading
from jaxcnnbp.audit.measure import distance, largest
from jaxcnnbp.audit.noise import Noise, unit_roundoff
from jaxcnnbp.audit.oracle.rule import wide_dtype
from jaxcnnbp.audit.own_rules import REFUSALS
from jaxcnnbp.audit.passes import (
    NOISE_UNITS,
    Arrays,
    Evaluated,
    Oracle,
    compiled,
    furthest,
    in_float64,
    is_near,
    oracle_of,
    pull,
    worth_compiling,
)
from jaxcnnbp.audit.problem import Problem, widened_problem
from jaxcnnbp.audit.trial import Trial

# Of an element, what a right formula may be off by in float64: rules have constants of so many digits.
OF_ELEMENT = 1e-6
# Rules sum in another order, and by other steps, than the oracle whose noise is measured; each element counts for
# itself, so that a small one beside a large one is judged, and in one of the runs it moves by a fair share.
OF_NOISE, NOISE_RUNS = 64.0, 4
FLOAT64, TINY = unit_roundoff(np.float64), float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Wide:
    """A function in float64."""

    judge: Oracle  # its oracle
    retraced: bool  # whether it was traced in float64; constants are wide then
    dtype: Any  # the widest rounding among the dtypes of its inputs
    # `(inputs, others, cotangents)` to outputs and gradients by the rules; None where it cannot be traced.
    closed: ClosedJaxpr | None
    problem: Problem  # what it is differentiated at
    cotangents: Arrays  # what its outputs are contracted with
    seed: int  # of noise and directions
    _kept: Kept = field(default_factory=dict)

    def own_roundoff(self, dtype: Any) -> float:
        """What the function rounds by where the trace names `dtype`."""
        is_wide = self.retraced and wide_dtype(dtype) == dtype
        return unit_roundoff(self.dtype) if is_wide else unit_roundoff(dtype)

    @cached_property
    def _compiled(self) -> Callable[..., Any] | None:
        return compiled(partial(Reading().run, self.closed)) if self.closed and worth_compiling(self.closed) else None

    @cached_property
    def differences(self) -> Differences:
        """Of the function that the oracle has."""
        return differences_in(self.judge, self.problem, self.cotangents, self.seed)

    @cached_property
    def rule(self) -> Evaluated | None:
        """By the rules; None where they do not run in float64."""
        try:
            return self.by_rules(self.cotangents)
        except REFUSALS:  # whatever keeps it from float64, it is no fault of the rule
            return None

    def by_rules(self, cotangents: Arrays, sample: int | None = None, unit: float = FLOAT64) -> Evaluated:
        """What the rules give; with a `sample`, where each of their steps rounds by `unit`."""
        if self.closed is None:
            raise NotImplementedError("The rules of `fun` do not run in float64.")
        generator = np.random.default_rng((self.seed, 1, sample or 0))
        noise = None if sample is None else Noise(generator, NOISE_UNITS, lambda _: unit)
        leaves = jax.tree.leaves((self.problem.inputs, self.problem.others, cotangents))
        with in_float64():
            stepwise = partial(Reading(noise, kept=self._kept).run, self.closed)
            found = (stepwise if noise else self._compiled or stepwise)(*map(jnp.asarray, leaves))
        arrays = [np.asarray(a) for a in found]
        names = sorted(cotangents)
        return Evaluated(dict(zip(names, arrays, strict=False)), tuple(arrays[len(names) :]))

    def allowed(self, truth: Evaluated, found: Evaluated, cotangents: Arrays) -> Evaluated:
        """What each element by the rules, `found`, may be off by where their formula is right."""
        runs = (self.judge.gradients(i + 1, lambda _: FLOAT64, cotangents) for i in range(NOISE_RUNS))
        rooms = furthest(runs, truth)
        off_by_little = False
        for (true, room), (_, by_rule) in zip(rooms.beside(truth), found.beside(truth), strict=True):
            room *= OF_NOISE  # in place: arrays may be large
            room += self._of_element(true)
            gap = distance(by_rule, true)
            off_by_little |= bool(np.any((gap > room) & (gap <= room + _rounding(true))))
        if off_by_little:  # no more than a rounding of the largest: what sums to it by the rule may explain it
            with suppress(*REFUSALS):  # of a rule that cannot be disturbed
                own = self._spread(cotangents, FLOAT64)
                for room, spread in own.beside(rooms):
                    np.maximum(room, OF_NOISE * spread, out=room)
        return rooms

    @cached_property
    def own_spread(self) -> Evaluated:
        """How far the gradients by the rules move where each of their own steps rounds as the function's dtype does."""
        return self._spread(self.cotangents, unit_roundoff(self.dtype))

    def _spread(self, cotangents: Arrays, unit: float) -> Evaluated:
        runs = (self.by_rules(cotangents, i + 1, unit) for i in range(NOISE_RUNS))
        return furthest(runs, self.by_rules(cotangents))

    def least_room(self, truth: np.ndarray) -> np.ndarray:
        """What each element of a right formula may be off by where noise says nothing."""
        return self._of_element(truth) + _rounding(truth)

    def _of_element(self, truth: np.ndarray) -> np.ndarray:
        # Constants of a trace in the own dtypes are rounded.
        own = 0.0 if self.retraced else 16 * unit_roundoff(self.dtype)
        # Iterations leave something of what goes to 0, which a rule of their limit does not.
        left = 16 * FLOAT64**2 * largest(truth) + 4 * TINY
        return (OF_ELEMENT + own) * np.where(np.isfinite(truth), np.abs(truth), 0.0) + left


def _rounding(truth: np.ndarray) -> float:
    return 16 * FLOAT64 * largest(truth)


def wide_of(
    problem: Problem, fun: Callable[..., Any], reference: Callable[..., Any] | None, trial: Trial, seed: int
) -> Wide:
    """The function, or its `reference`, in float64, with an oracle; `trial` is what it gives in its own dtypes.

    Raises:
      Exception: JAX's, if there is no oracle.
    """
    make = partial(_wide, problem, fun, reference, trial, seed)
    with suppress(*REFUSALS):  # of float64
        with in_float64():
            found = make(widened_problem(problem), True)
        if is_near(found.judge.truth.outputs, trial.manual.outputs, found.dtype):
            return found
    return make(problem, False)


def _wide(
    problem: Problem, fun: Callable, reference: Callable | None, trial: Trial, seed: int, wide: Problem, retraced: bool
) -> Wide:
    judge = oracle_of(wide.outputs_of(reference or fun), wide, trial.cotangents, seed, trial.kinds)
    dtype = max((a.dtype for a in problem.inputs), key=unit_roundoff)
    shapes = jax.eval_shape(wide.outputs_of(fun), wide.inputs, wide.others)
    cotangents = {name: trial.cotangents[name].astype(a.dtype) for name, a in shapes.items()}
    try:
        closed = jax.make_jaxpr(pull(wide.outputs_of(fun)))(wide.inputs, wide.others, cotangents)
    except REFUSALS:  # rules that insist on a dtype
        closed = None
    return Wide(judge, retraced, dtype, closed, wide, cotangents, seed)
