"""`compare_gradients`: hand-written gradients against autodiff and a float64 oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxcnnbp.audit import tolerance as tolerances
from jaxcnnbp.audit.complaints import with_complaints
from jaxcnnbp.audit.cost import Cost, cost_of
from jaxcnnbp.audit.finite import Slope, slope_of
from jaxcnnbp.audit.hints import hint_for
from jaxcnnbp.audit.measure import distance, errors_of
from jaxcnnbp.audit.oracle.rule import widened
from jaxcnnbp.audit.own_rules import first_that_works, noting
from jaxcnnbp.audit.passes import Oracle, Pass, cotangents_of, oracle_of, pull, stripped
from jaxcnnbp.audit.place import Layout, layout_of
from jaxcnnbp.audit.problem import Problem, problem_of
from jaxcnnbp.audit.report import GradientReport, Maps, Row, Worst
from jaxcnnbp.audit.usage import usages

NOISE_RUNS = 8


def compare_gradients(
    fun: Callable[..., Any],
    *args: Any,
    reference: Callable[..., Any] | None = None,
    argnums: int | Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    has_aux: bool = False,
    oracle: bool = True,
    finite_differences: bool = True,
    tolerance: float | None = None,
    spatial: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    timing: bool = True,
) -> GradientReport:
    """Compares the gradients of `fun` by its own rules with autodiff's and with those of a float64 oracle.

    - *manual* is `jax.vjp(fun)` as it stands.
    - *autodiff* is JAX's derivative of the same forward: the functions of this package by lax primitives, and
      every other `jax.custom_vjp` and `jax.custom_jvp` replaced by its primal function, also inside jit, scan, cond,
      checkpoint and inner gradients. JAX's own rules (of `jax.nn.relu`) are kept, and those of `jax.custom_jvp` where
      JAX cannot differentiate their functions. With `reference`, it is the derivative of that function instead.
    - The *oracle* is the function of autodiff with every float carried in float64, whatever the function
      casts to, and with the functions of this package by NumPy loops that share no code with it.

    A gradient is right if every element is as near to the oracle's as rounding allows
    (`jaxcnnbp.audit.tolerance`), for each output alone as well, if it is linear in what the outputs are contracted
    with, and if no smooth finite difference contradicts it, where the function stops no gradient. One number is
    differentiated as it is; outputs that are arrays are contracted with fixed random numbers.

    Args:
      fun: any function of pytrees to a number, an array, or a pytree of them, that `jax.jit` can trace.
      *args: its arguments. Integer arrays are passed along, anything else than an array is left as it is.
      reference: a function of the same arguments that `fun` should agree with, forward and backward.
      argnums: which arguments to differentiate; all by default. Python floats only if named here.
      names: one name an argument, for the report; by default the paths inside pytrees and the parameters'
        names.
      has_aux: whether `fun` returns a pair, of which only the first is differentiated.
      oracle: whether to run the oracle; without it, manual gradients are judged by autodiff's.
      finite_differences: whether to check the oracle itself by differences in one random direction a leaf.
      tolerance: what may be off, relative to the element and to the leaf's largest entry, instead of what
        rounding allows.
      spatial: spatial axes by leaf name, where `jaxcnnbp.audit.place.guess` would be wrong.
      seed: of the random numbers.
      timing: whether to measure time and memory.

    Returns:
      A `GradientReport`: printable, `report.ok`, `report.assert_close()`, `report.to_json()`,
      `report.plot()`, `report.save_html(path)`.

    Raises:
      TypeError: if `args` hold nothing to differentiate.
      ValueError: if `argnums` or `names` do not fit `args`, or `reference` has other outputs.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> @jax.custom_vjp
      ... def square(x):
      ...     return x * x
      >>> square.defvjp(lambda x: (x * x, x), lambda x, delta: (2.002 * x * delta,))
      >>> report = compare_gradients(square, jnp.arange(1.0, 4.0), timing=False)
      >>> report.ok, report["x"].hint
      (False, '1.001 times the right gradient')

    References:
      D. S. Parker, Monte Carlo Arithmetic, UCLA CSD-970002, 1997.
    """
    problem = problem_of(fun, args, argnums, names, has_aux)
    trial = _trial(problem, fun, reference, seed, timing)
    judge = oracle_of(problem.outputs_of(reference or fun), problem, trial.cotangents, seed) if oracle else None
    yardstick = Yardstick(judge, trial, tolerance, dict(spatial or {}))
    rows = [_gradient_row(i, problem, trial, yardstick, finite_differences, seed) for i in range(len(problem.names))]
    rows = with_complaints(rows, trial, yardstick, by_differences=reference is None)
    outputs = [_output_row(name, trial, yardstick) for name in trial.cotangents]
    ties = judge.ties() if judge is not None else {}
    return GradientReport(
        tuple(rows),
        tuple(outputs),
        ties,
        trial.cost,
        jax.default_backend(),
        seed,
        oracle,
        trial.no_autodiff,
        trial.rules,
    )


@dataclass(frozen=True)
class Trial:
    """What the two gradients in the dtype of the function gave."""

    manual: Pass
    autodiff: Pass | None
    no_autodiff: str
    cotangents: dict[str, np.ndarray]
    cost: Cost | None
    dtypes: tuple[np.dtype, ...]
    rules: tuple[str, ...]
    again: Callable[[dict[str, np.ndarray]], Pass]  # the manual gradients of other cotangents


def _trial(problem: Problem, fun: Callable, reference: Callable | None, seed: int, timing: bool) -> Trial:
    own, other = problem.outputs_of(fun), problem.outputs_of(reference or fun)
    shapes = jax.eval_shape(own, problem.inputs, problem.others)
    _require_same(shapes, jax.eval_shape(other, problem.inputs, problem.others))
    cotangents = cotangents_of(shapes, seed)
    given = (problem.inputs, problem.others, cotangents)
    with noting() as rules:
        by_rules = _compiled(pull(own), given)
    by_autodiff, without = _or_reason(other, given)
    autodiff = None if by_autodiff is None else _pass(by_autodiff(*given))
    cost = cost_of(by_rules, by_autodiff, given) if timing and by_autodiff is not None else None
    dtypes = tuple(a.dtype for a in problem.inputs)

    def again(cotangents: dict[str, np.ndarray]) -> Pass:
        return _pass(by_rules(problem.inputs, problem.others, cotangents))

    return Trial(again(cotangents), autodiff, without, cotangents, cost, dtypes, tuple(rules), again)


def _compiled(function: Callable, given: tuple) -> Any:
    return jax.jit(function).lower(*given).compile()


def _or_reason(function: Callable, given: tuple) -> tuple[Any, str]:
    """JAX's own gradient of `function`, compiled, and ""; or None and the reason where an operation has none."""
    try:
        return first_that_works(lambda kinds: _compiled(pull(stripped(function, kinds)), given)), ""
    except NotImplementedError as error:
        return None, str(error)


def _pass(result: Any) -> Pass:
    outputs, gradients = result
    return Pass({name: widened(a) for name, a in outputs.items()}, tuple(map(widened, gradients)))


def _require_same(own: dict[str, Any], other: dict[str, Any]) -> None:
    if not own:
        raise TypeError("`fun` returns no float or complex array; a gradient needs one.")
    shapes = [{name: (a.shape, a.dtype.name) for name, a in outputs.items()} for outputs in (own, other)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"`reference` (outputs {shapes[1]}) must return what `fun` does (outputs {shapes[0]}).")


class Yardstick:
    """The truth of every array, what an element may be off by, and where elements lie."""

    def __init__(self, judge: Oracle | None, trial: Trial, tolerance: float | None, spatial: dict[str, Sequence[int]]):
        self.judge = judge
        self.truth = _truth(judge, trial)
        runs = NOISE_RUNS if tolerance is None else 0
        self._disturbed = [] if judge is None else [judge.gradients(i + 1) for i in range(runs)]
        self._tolerance = tolerance
        sizes = [a.size for a in (*trial.manual.gradients, *trial.manual.outputs.values())]
        self._terms = max(1, *sizes)
        self._shapes = [a.shape for a in trial.manual.gradients]
        self._spatial = spatial
        self._usages = usages(judge.closed, len(trial.dtypes)) if judge is not None else {}

    def gradient(self, place: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, str]:
        """The true gradient, what it may be off by, and why."""
        truth = self.truth.gradients[place]
        return truth, *self._allowed(truth, [d.gradients[place] for d in self._disturbed], dtype)

    def output(self, name: str, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, str]:
        """The true output, what it may be off by, and why."""
        truth = self.truth.outputs[name]
        return truth, *self._allowed(truth, [d.outputs[name] for d in self._disturbed], dtype)

    def of_output(self, name: str, dtypes: Sequence[np.dtype]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The true gradients of one output alone, and what each may be off by."""
        judge = self.judge
        if judge is None:
            return []
        truth, runs = judge.gradients(only=name), range(0 if self._tolerance is not None else NOISE_RUNS)
        disturbed = [judge.gradients(i + 1, only=name) for i in runs]
        return [
            (true, self._allowed(true, [d.gradients[place] for d in disturbed], dtype)[0])
            for place, (true, dtype) in enumerate(zip(truth.gradients, dtypes, strict=True))
        ]

    def layout(self, name: str, shape: tuple[int, ...], place: int | None = None) -> Layout:
        """Where the elements of the array `name` lie, which is the input at `place` if it is one."""
        usage = None if place is None else self._usages.get(place)
        return layout_of(name, shape, self._spatial.get(name), usage, self._shapes)

    def _allowed(self, truth: np.ndarray, disturbed: list[np.ndarray], dtype: np.dtype) -> tuple[np.ndarray, str]:
        if self._tolerance is not None:
            return tolerances.by_user(truth, self._tolerance)
        if disturbed:
            return tolerances.by_noise(truth, disturbed, dtype)
        return tolerances.by_terms(truth, self._terms, dtype)


def _truth(judge: Oracle | None, trial: Trial) -> Pass:
    if judge is not None:
        return judge.truth
    if trial.autodiff is None:
        raise NotImplementedError(f"`oracle` (=False) leaves autodiff as judge, which says: {trial.no_autodiff}")
    return trial.autodiff


def _gradient_row(
    place: int, problem: Problem, trial: Trial, yardstick: Yardstick, differences: bool, seed: int
) -> Row:
    dtype, name, judge = trial.dtypes[place], problem.names[place], yardstick.judge
    truth, allowed, reason = yardstick.gradient(place, dtype)
    autodiff = None if trial.autodiff is None else trial.autodiff.gradients[place]
    maps = Maps(trial.manual.gradients[place], autodiff, truth, allowed)
    wanted = differences and judge is not None and truth.size > 0
    slope = slope_of(judge, place, truth, maps.manual, allowed, seed) if wanted and judge is not None else None
    others = {n: yardstick.truth.gradients[i] for i, n in enumerate(problem.names) if i != place}
    return _row(name, dtype, maps, yardstick.layout(name, truth.shape, place), reason, slope, others)


def _output_row(name: str, trial: Trial, yardstick: Yardstick) -> Row:
    dtype = trial.cotangents[name].dtype
    truth, allowed, reason = yardstick.output(name, dtype)
    autodiff = None if trial.autodiff is None else trial.autodiff.outputs[name]
    maps = Maps(trial.manual.outputs[name], autodiff, truth, allowed)
    return _row(name, dtype, maps, yardstick.layout(name, truth.shape), reason, None, {})


def _row(
    name: str,
    dtype: np.dtype,
    maps: Maps,
    layout: Layout,
    reason: str,
    slope: Slope | None,
    others: dict[str, np.ndarray],
) -> Row:
    gap = distance(maps.manual, maps.oracle)
    wrong = ~(gap <= maps.allowed)
    return Row(
        name=name,
        shape=layout.shape,
        dtype=str(dtype),
        manual=errors_of(maps.manual, maps.oracle, dtype),
        autodiff=None if maps.autodiff is None else errors_of(maps.autodiff, maps.oracle, dtype),
        worst=_worst(gap, maps, layout),
        wrong=int(wrong.sum()),
        wrong_places=layout.count(wrong),
        reason=reason,
        hint=hint_for(maps, layout.axes, others) if wrong.any() else "",
        axes=layout.axes,
        slope=slope,
        maps=maps,
    )


def _worst(gap: np.ndarray, maps: Maps, layout: Layout) -> Worst | None:
    if gap.size == 0:
        return None
    with np.errstate(all="ignore"):
        excess = np.where(gap == 0, 0.0, gap / maps.allowed)
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(excess)), gap.shape))
    return Worst(
        index=index,
        place=layout.place_of(index),
        manual=maps.manual[index].item(),
        autodiff=None if maps.autodiff is None else maps.autodiff[index].item(),
        oracle=maps.oracle[index].item(),
        allowed=float(maps.allowed[index]),
    )
