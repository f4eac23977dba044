"""The judge of functions that have no oracle: finite differences, element by element and along random directions.

It needs nothing but values. They are computed in float64 where that is possible: by the trace of the function, or by
calling it with arrays in float64; else in the dtype that it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from jaxcnnbp.audit.finite import FiniteDerivative, Slope, derivative, scale_of, slope_by, slope_of
from jaxcnnbp.audit.interpreter import COMPUTE_NARROW, equations
from jaxcnnbp.audit.noise import unit_roundoff
from jaxcnnbp.audit.oracle.rule import widened
from jaxcnnbp.audit.own_rules import REFUSALS, noting_cuts, without_rules
from jaxcnnbp.audit.passes import Evaluated, Oracle, compiled, holding, in_float64, is_near, lax_trace, normal, stripped
from jaxcnnbp.audit.problem import Problem, widened_problem

ELEMENTS, DIRECTIONS = 64, 4
Inputs = Sequence[np.ndarray]
Moves = Mapping[int, np.ndarray]


@dataclass(frozen=True)
class Numbers:
    """How values are computed."""

    run: Callable[[Inputs], dict[str, np.ndarray]]  # the outputs at other inputs, by name
    unit: float  # the unit roundoff
    dtype: str  # its name, for reports
    # Where the author stops a gradient at a value that changes here, so that this is not what is meant.
    cuts: frozenset[str] = frozenset()


class FiniteGradient(NamedTuple):
    """A gradient by differences, what it may be off by (infinite where it was not measured), and how much larger the
    derivative from the right is than that from the left.
    """

    truth: np.ndarray
    allowed: np.ndarray
    width: np.ndarray


@dataclass(frozen=True)
class Differences:
    """The derivatives of a function by its values."""

    numbers: Numbers  # how values are computed
    inputs: tuple[np.ndarray, ...]  # where
    cotangents: dict[str, np.ndarray]  # what outputs are contracted with
    seed: int  # of random elements and directions

    @cached_property
    def outputs(self) -> dict[str, np.ndarray]:
        """The outputs."""
        return self.numbers.run(self.inputs)

    def gradient(self, place: int, manual: np.ndarray, where: np.ndarray | None = None) -> FiniteGradient:
        """The gradient of one input, of some of its elements, or of some of those that are true in `where`.

        At a kink it is what lies between the derivatives from both sides and is nearest to `manual`.
        """
        truth, allowed = manual.copy(), np.full(manual.shape, np.inf)
        width = np.zeros(manual.shape)
        for index in self._elements(place, manual, where):
            found, error = 0.0, 0.0
            for unit in (1.0, 1j) if np.iscomplexobj(manual) else (1.0,):
                direction = np.zeros(manual.shape, manual.dtype)
                direction[index] = unit
                claimed = float((manual[index] * unit).real)
                part = self.along({place: direction}, claimed)
                # Along i the value changes by the negative of the gradient's imaginary part.
                found += part.nearest(claimed) * np.conj(unit)
                error += 4 * part.error
                width[index] += 0.0 if part.smooth else part.right - part.left
            truth[index], allowed[index] = found, error
        return FiniteGradient(truth, allowed, width)

    def along(self, moves: Moves, claimed: float) -> FiniteDerivative:
        """The derivative where the inputs at some places move at once, each in its direction; what is claimed of it."""
        scale = max(*(scale_of(self.inputs[place]) for place in moves), 1e-3)
        return derivative(lambda t: self._value(moves, t), scale, self.numbers.unit, self._magnitude, claimed)

    def slope(self, place: int, truth: np.ndarray, manual: np.ndarray, allowed: np.ndarray) -> Slope:
        """What the derivative in one random direction says of the gradients of the input at `place`."""
        along = normal(np.random.default_rng((self.seed, place)), truth.shape, truth.dtype)
        found = self.along({place: along}, slope_by(truth, along))
        return slope_of(found, truth, manual, allowed, along)

    def directions(self, place: int) -> Iterator[Moves]:
        """Directions of one input: all of it grows, as it is or by the same amount, and random ones."""
        shape, dtype = self.inputs[place].shape, self.inputs[place].dtype
        yield {place: np.ones(shape, dtype)}
        yield {place: self.inputs[place]}
        for number in range(DIRECTIONS - 1):
            yield {place: normal(np.random.default_rng((self.seed, place, number)), shape, dtype)}

    def joint_directions(self) -> Iterator[Moves]:
        """Directions in which inputs of the same shape move alike, so that those that are equal, or that are in the
        same proportion, stay so.
        """
        for number in range(DIRECTIONS):
            moves = [self._alike(a, number) for a in self.inputs]
            yield dict(enumerate(moves))
            yield {place: move * a for place, (move, a) in enumerate(zip(moves, self.inputs, strict=True))}

    def _alike(self, a: np.ndarray, number: int) -> np.ndarray:
        return normal(np.random.default_rng((self.seed, number, *a.shape)), a.shape, a.dtype) if number else 1 + 0 * a

    @cached_property
    def _magnitude(self) -> float:
        return float(sum(np.sum(np.abs(self.outputs[n] * c)) for n, c in self.cotangents.items()))

    def _elements(self, place: int, manual: np.ndarray, where: np.ndarray | None) -> list[tuple[int, ...]]:
        """All of few; of many the largest, the smallest, and some by chance."""
        flat = np.arange(manual.size) if where is None else np.flatnonzero(where)
        if flat.size > ELEMENTS:
            order = flat[np.argsort(np.abs(manual.reshape(-1)[flat]))]
            chance = np.random.default_rng((self.seed, place)).choice(flat, ELEMENTS // 2, replace=False)
            flat = np.unique(np.concatenate([order[: ELEMENTS // 4], order[-ELEMENTS // 4 :], chance]))
        return [tuple(map(int, np.unravel_index(i, manual.shape))) for i in flat]

    @np.errstate(all="ignore")
    def _value(self, moves: Moves, step: float) -> float:
        moved = [a + step * moves[i] if i in moves else a for i, a in enumerate(self.inputs)]
        outputs = self.numbers.run(moved)
        return float(sum(np.sum(outputs[name] * c).real for name, c in self.cotangents.items()))


def differences_of(
    flat: Callable[..., Any], problem: Problem, cotangents: dict[str, np.ndarray], own: Evaluated, seed: int
) -> Differences:
    """The differences of `flat`, in float64 where that gives the outputs of `own`.

    Raises:
      NotImplementedError: if it cannot be evaluated again.
    """
    inputs, refused = tuple(widened(a) for a in problem.inputs), None
    for make in (_by_trace, _by_wide_trace, _by_wide_call, _by_call):
        try:
            numbers = make(flat, problem)
            outputs = numbers.run(inputs)
        except REFUSALS as error:  # whatever keeps it from running in float64
            refused = error
            continue
        if is_near(outputs, own.outputs, max((a.dtype for a in problem.inputs), key=unit_roundoff)):
            return Differences(numbers, inputs, {name: widened(c) for name, c in cotangents.items()}, seed)
    raise NotImplementedError(f"`fun` cannot be evaluated a second time; pass `reference`. JAX says: {refused}")


def differences_in(judge: Oracle, problem: Problem, cotangents: dict[str, np.ndarray], seed: int) -> Differences:
    """The differences of a function that has an oracle."""
    inputs = tuple(widened(a) for a in problem.inputs)
    numbers = Numbers(_in_float64(judge.outputs), unit_roundoff(np.float64), "float64")
    return Differences(numbers, inputs, {name: widened(c) for name, c in cotangents.items()}, seed)


def _by_trace(flat: Callable[..., Any], problem: Problem) -> Numbers:
    with without_rules():
        closed, shape = lax_trace(flat, problem)
    if not COMPUTE_NARROW.isdisjoint(eqn.primitive.name for eqn in equations(closed.jaxpr)):
        raise NotImplementedError("A part of `fun` computes in its own dtype.")
    return _by_reading(closed, sorted(shape), problem)


def _by_wide_trace(flat: Callable[..., Any], problem: Problem) -> Numbers:
    wide = widened_problem(problem)
    with in_float64(), without_rules():
        closed, shape = lax_trace(flat, wide)
    _require_wide(shape)
    return _by_reading(closed, sorted(shape), wide)


def _by_reading(closed: ClosedJaxpr, names: list[str], problem: Problem) -> Numbers:
    others = jax.tree.leaves(problem.others)
    with in_float64():
        reading = holding(closed, *map(widened, problem.inputs), *map(jnp.asarray, others))

    def compute(*inputs: Any) -> dict[str, Any]:
        return dict(zip(names, reading().run(closed, *inputs, *map(jnp.asarray, others)), strict=True))

    return Numbers(_in_float64(compute), unit_roundoff(np.float64), "float64")


def _by_wide_call(flat: Callable[..., Any], problem: Problem) -> Numbers:
    wide = widened_problem(problem)
    run = _in_float64(lambda *inputs: stripped(flat)(inputs, wide.others))
    with noting_cuts() as cuts:
        _require_wide(run(wide.inputs))
    return Numbers(run, unit_roundoff(np.float64), "float64", frozenset(cuts))


def _require_wide(outputs: Mapping[str, Any]) -> None:
    narrow = {str(a.dtype) for a in outputs.values() if a.dtype not in WIDE}
    if narrow:
        raise NotImplementedError(f"`fun` returns {', '.join(sorted(narrow))} of arrays in float64.")


def _by_call(flat: Callable[..., Any], problem: Problem) -> Numbers:
    dtypes = [a.dtype for a in problem.inputs]
    unit = max(unit_roundoff(d) for d in dtypes)

    def run(inputs: Inputs) -> dict[str, np.ndarray]:
        own = [jnp.asarray(a.astype(d)) for a, d in zip(inputs, dtypes, strict=True)]
        return {name: widened(a) for name, a in stripped(flat)(own, problem.others).items()}

    with noting_cuts() as cuts:
        run([widened(a) for a in problem.inputs])
    return Numbers(run, unit, str(dtypes[0]), frozenset(cuts))


WIDE = (np.float64, np.complex128)


def _in_float64(compute: Callable[..., dict[str, Any]]) -> Callable[[Inputs], dict[str, np.ndarray]]:
    """`compute` of arrays in float64, compiled where it can be."""
    once = compiled(compute)
    chosen: list[Callable[..., Any]] = []

    def run(inputs: Inputs) -> dict[str, np.ndarray]:
        with in_float64():
            given = [jnp.asarray(a) for a in inputs]
            if not chosen:
                try:
                    once(*given)
                    chosen.append(once)
                except REFUSALS:  # it runs only eagerly, or not at all
                    chosen.append(compute)
            return {name: np.asarray(a) for name, a in chosen[0](*given).items()}

    return run
