"""The three differentiations that are compared, and what is measured besides."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr
from jax.extend.core.primitives import cond_p

from jaxcnnbp.audit.interpreter import Kept, Reading, equations
from jaxcnnbp.audit.measure import distance, largest
from jaxcnnbp.audit.monitor import counting
from jaxcnnbp.audit.noise import Noise, unit_roundoff
from jaxcnnbp.audit.oracle import oracle_p, widened
from jaxcnnbp.audit.own_rules import KINDS, REFUSALS, cut_at, first_that_works, without_rules
from jaxcnnbp.audit.problem import Problem
from jaxcnnbp.modes import mode

# Larger than the rounding that is imitated, so that a few samples show what many roundings may do.
NOISE_UNITS = 8.0
# Elements of all arguments, and equations: of more, one program takes longer to compile than each of its steps.
SMALL, SHORT = 2**14, 40

Arrays = dict[str, np.ndarray]
Roundoff = Callable[[Any], float]


@dataclass(frozen=True)
class Evaluated:
    """Outputs by name, and one gradient an input."""

    outputs: dict[str, np.ndarray]
    gradients: tuple[np.ndarray, ...]

    def beside(self, other: Evaluated) -> list[tuple[np.ndarray, np.ndarray]]:
        """Each array of `other` with the one of this in its place."""
        rows = [(array, self.outputs[name]) for name, array in other.outputs.items()]
        return [*rows, *zip(other.gradients, self.gradients, strict=True)]


def cotangents_of(shapes: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    """What outputs are contracted with: 1 for one real number, else fixed random numbers, so that no error cancels."""
    only = next(iter(shapes.values()))
    if len(shapes) == 1 and only.shape == () and not jnp.issubdtype(only.dtype, jnp.complexfloating):
        return {name: np.ones((), s.dtype) for name, s in shapes.items()}
    generator = np.random.default_rng(seed)
    return {name: normal(generator, s.shape, s.dtype) for name, s in shapes.items()}


def normal(generator: np.random.Generator, shape: Sequence[int], dtype: Any) -> np.ndarray:
    """Normal random numbers of any float or complex dtype."""
    values = generator.normal(size=tuple(shape))
    if jnp.issubdtype(dtype, jnp.complexfloating):
        values = values + 1j * generator.normal(size=tuple(shape))
    return np.asarray(values).astype(dtype)


def pull(flat: Callable[..., Any]) -> Callable[..., Any]:
    """`(inputs, others, cotangents)` to outputs and gradients."""

    def run(inputs: Any, others: Any, cotangents: Any) -> Any:
        outputs, back = jax.vjp(lambda given: flat(given, others), inputs)
        # A rule gets JAX's arrays from `jax.grad`, and may use what NumPy's do not have.
        return outputs, back(jax.tree.map(jnp.asarray, cotangents))[0]

    return run


def stripped(flat: Callable[..., Any], kinds: tuple[type, ...] = KINDS) -> Callable[..., Any]:
    """`flat` with JAX's own derivative: by lax primitives where this package has a rule, elsewhere without the
    author's rules of `kinds`.
    """

    def run(inputs: Any, others: Any) -> Any:
        with mode("autodiff"), without_rules(kinds):
            return flat(inputs, others)

    return run


class Oracle:
    """The function in float64, with the NumPy oracle in the place of every operation of this package."""

    def __init__(
        self,
        flat: Callable[..., Any],
        problem: Problem,
        cotangents: dict[str, np.ndarray],
        seed: int,
        kinds: tuple[type, ...] = KINDS,
    ):
        with without_rules(kinds):
            self.closed, shape = _oracle_trace(flat, problem)
        self._names = sorted(shape)
        self._seed = seed
        self._kept: Kept = {}
        self._inputs = [widened(a) for a in problem.inputs]
        self._others = jax.tree.leaves(problem.others)
        self._cotangents = {name: widened(cotangents[name]) for name in self._names}
        self._held: Callable[[], Reading] | None = None
        with suppress(*REFUSALS), in_float64():
            self._held = holding(self.closed, *map(jnp.asarray, (*self._inputs, *self._others)))

    @cached_property
    def truth(self) -> Evaluated:
        """Outputs and gradients, without noise."""
        return self.gradients()

    @property
    def cuts(self) -> str:
        """Where the function stops gradients, if no value can be held there: a difference is not what it means."""
        return "" if self._held else ", ".join(sorted(set(cuts_of(self.closed))))

    def gradients(
        self, sample: int | None = None, roundoff: Roundoff = unit_roundoff, cotangents: Arrays | None = None
    ) -> Evaluated:
        """Outputs and gradients, of other `cotangents` if they are given.

        Args:
          sample: if given, under rounding noise of that number.
          roundoff: the rounding error that the noise imitates, of the dtype that the trace names.
          cotangents: what outputs are contracted with.
        """
        generator = np.random.default_rng((self._seed, sample or 0))
        noise = Noise(generator, 0.0 if sample is None else NOISE_UNITS, roundoff)
        given = self._cotangents if cotangents is None else {n: widened(c) for n, c in cotangents.items()}
        with in_float64():
            inputs, deltas = map(jnp.asarray, self._inputs), [jnp.asarray(given[name]) for name in self._names]
            if self._compiled is None:
                outputs, gradients = self._pulled(noise, deltas, *inputs)
            else:
                outputs, gradients = self._compiled(noise.to_tell(), deltas, *inputs)
            named = dict(zip(self._names, map(np.asarray, outputs), strict=True))
            return Evaluated(named, tuple(map(np.asarray, gradients)))

    def _pulled(self, noise: Noise, deltas: Sequence[Any], *inputs: Any) -> Any:
        reading = Reading(noise, kept=self._kept)
        outputs, back = jax.vjp(lambda *given: self._run(reading, given), *inputs)
        return outputs, back(deltas)

    @cached_property
    def _compiled(self) -> Callable[..., Any] | None:
        """`_pulled` for all runs, told their noise."""
        if not worth_compiling(self.closed):
            return None
        noise = Noise(np.random.default_rng(0), 0.0, unit_roundoff)
        return compiled(lambda told, deltas, *inputs: self._pulled(noise.inside(told), deltas, *inputs))

    def outputs(self, *inputs: Any) -> dict[str, Any]:
        """The outputs at other inputs, to be called within `in_float64`."""
        return dict(zip(self._names, self._run(self._reading(), inputs), strict=True))

    def ties(self) -> dict[str, int]:
        """How often the function is at a place without a unique derivative, by operation."""
        with counting() as counts, in_float64():
            self.outputs(*map(jnp.asarray, self._inputs))
        return dict(counts)

    def _reading(self) -> Reading:
        return Reading(kept=self._kept) if self._held is None else self._held()

    def _run(self, reading: Reading, inputs: Sequence[Any]) -> list[Any]:
        return reading.run(self.closed, *inputs, *map(jnp.asarray, self._others))


def holding(closed: ClosedJaxpr, *args: Any) -> Callable[[], Reading]:
    """Readings of `closed` in which every value at which the author stops the gradient is what it is at `args`.

    Raises:
      NotImplementedError: if one is in a loop or a branch, where it is not one value.
    """
    held: list[Any] = []

    def note(value: Any) -> Any:
        if isinstance(value, Tracer):
            raise NotImplementedError("`fun` stops a gradient inside a loop or a branch.")
        held.append(value)
        return value

    if cuts := cuts_of(closed):
        Reading(hold=note).run(closed, *args)
        if len(held) < len(cuts):
            raise NotImplementedError("`fun` stops a gradient inside a kernel.")

    kept: Kept = {}

    def reading() -> Reading:
        values = iter(held)
        return Reading(hold=lambda _: next(values), kept=kept)

    return reading


def cuts_of(closed: ClosedJaxpr) -> list[str]:
    """Where the author stops gradients."""
    return [place for eqn in equations(closed.jaxpr) if (place := cut_at(eqn))]


def oracle_of(
    flat: Callable[..., Any], problem: Problem, cotangents: Arrays, seed: int, kinds: tuple[type, ...]
) -> Oracle:
    """The oracle of `flat`, which has its gradients, without the rules of `kinds`.

    Raises:
      Exception: JAX's, if it cannot trace or differentiate the function.
    """

    def of(kinds: tuple[type, ...]) -> Oracle:
        oracle = Oracle(flat, problem, cotangents, seed, kinds)
        _ = oracle.truth  # or the error that says why there is none
        return oracle

    return first_that_works(of, kinds)


def furthest(runs: Iterable[Evaluated], truth: Evaluated) -> Evaluated:
    """How far each element is from `truth` in any of the `runs`, of which one is kept at a time."""
    start = {name: np.zeros(a.shape) for name, a in truth.outputs.items()}
    most = Evaluated(start, tuple(np.zeros(a.shape) for a in truth.gradients))
    for run in runs:
        _add(run, most, truth)
        del run  # before the next one is computed: arrays may be large
    return most


def _add(run: Evaluated, most: Evaluated, truth: Evaluated) -> None:
    for (true, found), (_, far) in zip(run.beside(truth), most.beside(truth), strict=True):
        gap = distance(found, true)
        np.maximum(far, gap, out=far, where=np.isfinite(gap))


def is_near(outputs: Arrays, own: Arrays, dtype: Any) -> bool:
    """Whether outputs in float64 are those of the same function in `dtype`."""
    return all(a.shape == outputs[n].shape and _is_near(outputs[n], a, unit_roundoff(dtype)) for n, a in own.items())


def _is_near(a: np.ndarray, b: np.ndarray, unit: float) -> bool:
    finite = np.isfinite(a) & np.isfinite(b)
    with np.errstate(all="ignore"):
        gap = largest(np.where(finite, a - b, 0.0))
    return gap <= max(64 * unit * np.sqrt(max(a.size, 64)), 1e-3) * max(largest(b), 1e-30)


def _oracle_trace(flat: Callable[..., Any], problem: Problem) -> tuple[ClosedJaxpr, Any]:
    """The trace that the oracle reads, and the shapes of the outputs.

    Where an operation has no NumPy oracle, or the function differentiates one by itself, which NumPy cannot do
    twice, the lax form stands in: it is then carried in float64 like any function that is not of this package.
    """
    try:
        with mode("oracle"):
            closed, shape = jax.make_jaxpr(flat, return_shape=True)(problem.inputs, problem.others)
    except NotImplementedError:
        return lax_trace(flat, problem)
    backward = any(eqn.primitive is oracle_p and eqn.params["backward"] for eqn in equations(closed.jaxpr))
    return lax_trace(flat, problem) if backward else (closed, shape)


def lax_trace(flat: Callable[..., Any], problem: Problem) -> tuple[ClosedJaxpr, Any]:
    """The trace of `flat` with this package's functions as lax's, and the shapes of its outputs."""
    with mode("autodiff"):
        return jax.make_jaxpr(flat, return_shape=True)(problem.inputs, problem.others)


def worth_compiling(closed: ClosedJaxpr) -> bool:
    """Whether a trace is run sooner as one program than step by step: not a long one, nor with large arrays, branches
    that are not taken, or host functions.
    """
    steps = list(equations(closed.jaxpr))
    small = sum(a.size for a in closed.in_avals) <= SMALL and len(steps) <= SHORT
    return small and all(eqn.primitive not in (oracle_p, cond_p) for eqn in steps)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled in haste: that takes longer than what it computes."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


@contextmanager
def in_float64() -> Iterator[None]:
    """On the host, with arrays in float64, whatever the caller's settings refuse."""
    host = jax.devices("cpu")[0]
    with jax.enable_x64(True), jax.default_device(host), jax.numpy_dtype_promotion("standard"):
        yield
