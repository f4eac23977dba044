"""What else a rule may get wrong than its gradient at one call: each check says so of the leaves that it concerns.

- linear: it is linear in the cotangent;
- repeat: the same call gives the same gradient;
- jit: outside of `jax.jit`, and on the next call there, it is the gradient from inside;
- vmap: of two stacked calls it is what the two give;
- forward: forward mode agrees with it, where JAX allows forward mode;
- second_order: its own gradient is right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnnbp.audit import table
from jaxcnnbp.audit.measure import off, place_of_largest
from jaxcnnbp.audit.noise import unit_roundoff
from jaxcnnbp.audit.oracle.rule import widened
from jaxcnnbp.audit.own_rules import REFUSALS
from jaxcnnbp.audit.passes import normal, pull
from jaxcnnbp.audit.trial import first_line

if TYPE_CHECKING:
    from jaxcnnbp.audit.problem import Problem
    from jaxcnnbp.audit.report import ReportRow
    from jaxcnnbp.audit.trial import Trial
    from jaxcnnbp.audit.yardstick import Yardstick

# A rule that ignores its cotangent, squares it or takes its magnitude does not pass this on; no power of two, which
# would change no rounding, and below one, so that nothing overflows.
FACTOR = -0.75
# Nearby arguments, for what must not depend on which of two calls it is.
NEARBY = 0.875


@dataclass(frozen=True)
class Checked:
    """What is checked; `judge` is `compare_gradients`, which calls these checks."""

    problem: Problem
    fun: Callable[..., Any]
    trial: Trial
    yardstick: Yardstick
    seed: int
    judge: Callable[..., Any]


def checked(rows: Sequence[ReportRow], names: Sequence[str], case: Checked) -> list[ReportRow]:
    """The rows, with what the checks `names` say against those that are right so far."""
    found = list(rows)
    for name, check in CHECKS.items():
        if name in names and check is not None and any(row.ok for row in found):
            found = check(found, case)
    return found


def _compared(rows: Sequence[ReportRow], found: Sequence[Any], wanted: Sequence[Any], words: str) -> list[ReportRow]:
    return [_differs(*parts, words) for parts in zip(rows, found, wanted, strict=True)]


def _differs(row: ReportRow, found: Any, wanted: Any, words: str) -> ReportRow:
    found, wanted = widened(found), widened(wanted)
    differs = off(found, wanted, 2 * row.maps.allowed)  # both are rounded
    if row.wrong or row.complaint or not differs.any():
        return row
    place = place_of_largest(differs)
    says = " instead of ".join(table.apart(found[place].item(), wanted[place].item()))
    return replace(row, complaint=f"{words} {says}{f' at {table.index(place)}' if place else ''}")


def _linear(rows: list[ReportRow], case: Checked) -> list[ReportRow]:
    """By the reference, if there is one, which need not be linear."""
    scaled, judge = _scaled(case.trial), case.yardstick.judge
    wanted = [FACTOR * row.maps.manual for row in rows]
    if case.yardstick.by_reference and judge is not None:
        wanted = list(judge.gradients(cotangents=scaled).gradients)
    words = f"not linear in the cotangent: of one {FACTOR} times as large it makes"
    return _compared(rows, case.trial.again(scaled).gradients, wanted, words)


def _repeat(rows: list[ReportRow], case: Checked) -> list[ReportRow]:
    again = case.trial.again(case.trial.cotangents).gradients
    return _compared(rows, again, case.trial.manual.gradients, "not the same when called again:")


def _jit(rows: list[ReportRow], case: Checked) -> list[ReportRow]:
    """Of a rule that its author wrote: this package's are compiled outside of `jax.jit` as well."""
    trial, problem = case.trial, case.problem
    if trial.eager or not trial.foreign:
        return rows
    run = pull(problem.outputs_of(case.fun))
    for which in ("", "on the second call "):
        try:
            found = run(problem.inputs, problem.others, trial.cotangents)[1]
        except REFUSALS as error:
            says = f"`jax.jit` runs it, and without it JAX says: {first_line(error)}"
            return [replace(row, complaint=row.complaint or says) for row in rows]
        rows = _compared(rows, found, trial.manual.gradients, f"not the same {which}outside of `jax.jit`:")
    return rows


def _vmap(rows: list[ReportRow], case: Checked) -> list[ReportRow]:
    problem, trial = case.problem, case.trial
    run = pull(problem.outputs_of(case.fun))
    first = list(problem.inputs), trial.cotangents
    second = [(a * NEARBY).astype(a.dtype) for a in problem.inputs], _scaled(trial)

    def one(given: Any) -> Any:
        return run(given[0], problem.others, given[1])[1]

    try:
        both = jax.jit(jax.vmap(one))(jax.tree.map(lambda a, b: jnp.stack([a, b]), first, second))
    except REFUSALS as error:
        says = f"`jax.vmap` refuses it: {first_line(error)}"
        return [replace(row, complaint=row.complaint or says) for row in rows]
    rows = _compared(rows, [a[0] for a in both], trial.manual.gradients, "not the same under `jax.vmap`:")
    return _compared(rows, [a[1] for a in both], jax.jit(one)(second), "not the same as second under `jax.vmap`:")


def _second_order(rows: list[ReportRow], case: Checked) -> list[ReportRow]:
    """The gradient, contracted with what is fixed, is a function of the inputs and of delta, judged like any other."""
    problem, trial = case.problem, case.trial
    run = pull(problem.outputs_of(case.fun))
    weights = [normal(np.random.default_rng((case.seed, i)), r.shape, trial.dtypes[i]) for i, r in enumerate(rows)]
    deltas = [f"the delta of {name}" for name in trial.cotangents]

    def judged(places: Sequence[int]) -> tuple[list[ReportRow], list[ReportRow]]:
        """What is found of the gradients at `places`, by the inputs and by delta."""

        def gradient(*given: Any) -> Any:
            cotangents = dict(zip(trial.cotangents, given[len(rows) :], strict=True))
            parts = run(given[: len(rows)], problem.others, cotangents)[1]
            return sum(jnp.sum(parts[i] * weights[i]).real for i in places)

        given = (*problem.inputs, *map(jnp.asarray, trial.cotangents.values()))
        found = case.judge(gradient, *given, names=(*problem.names, *deltas), timing=False, checks=("gradient",)).rows
        return found[: len(rows)], found[len(rows) :]

    def says(row: ReportRow, seconds: Sequence[ReportRow]) -> ReportRow:
        wrong = next((second for second in seconds if not second.ok), None)
        if row.wrong or row.complaint or wrong is None:
            return row
        return replace(row, complaint=f"its own gradient is wrong. In second order, {wrong.verdict().rstrip('.')}")

    try:
        by_inputs, by_deltas = judged(range(len(rows)))
        found = [says(row, (second,)) for row, second in zip(rows, by_inputs, strict=True)]
        if all(second.ok for second in by_deltas):
            return found
        alone = [by_deltas] if len(rows) == 1 else [judged((place,))[1] for place in range(len(rows))]
    except REFUSALS as error:
        refused = f"it cannot be differentiated a second time: {first_line(error)}"
        return [replace(row, complaint=row.complaint or refused) for row in rows]
    return [says(*pair) for pair in zip(found, alone, strict=True)]


def _forward(rows: list[ReportRow], case: Checked) -> list[ReportRow]:
    problem, trial = case.problem, case.trial
    flat = problem.outputs_of(case.fun)

    def push(inputs: Any, tangents: Any) -> Any:
        return jax.jvp(lambda given: flat(given, problem.others), (inputs,), (tangents,))[1]

    found = []
    for place, row in enumerate(rows):
        along = [np.zeros(a.shape, a.dtype) for a in problem.inputs]
        along[place] = normal(np.random.default_rng((case.seed, place)), row.shape, trial.dtypes[place])
        try:
            outputs = jax.jit(push)(list(problem.inputs), along)
        except (TypeError, ValueError):  # JAX refuses forward mode of every `jax.custom_vjp`
            return rows
        found.append(_forward_row(row, widened(along[place]), outputs, trial))
    return found


def _forward_row(row: ReportRow, along: np.ndarray, outputs: dict[str, Any], trial: Trial) -> ReportRow:
    terms = [widened(outputs[name]) * widened(c) for name, c in trial.cotangents.items()]
    pushed, pulled = (float(sum(np.sum(t).real for t in parts)) for parts in (terms, [row.maps.manual * along]))
    size = sum(float(np.sum(np.abs(t))) for t in (*terms, row.maps.manual * along))
    unit = max(unit_roundoff(d) for d in trial.dtypes)
    room = 64 * unit * size + float(np.sum(row.maps.allowed * np.abs(along)))
    if row.wrong or row.complaint or abs(pushed - pulled) <= room:
        return row
    says = f"forward mode says {table.number(pushed)} along a random direction, the gradient {table.number(pulled)}"
    return replace(row, complaint=says)


def _scaled(trial: Trial) -> dict[str, np.ndarray]:
    return {name: (FACTOR * c).astype(c.dtype) for name, c in trial.cotangents.items()}


# In the order in which they are run; a value and a gradient are what every report has.
CHECKS: dict[str, Callable[[list[ReportRow], Checked], list[ReportRow]] | None] = {
    "value": None,
    "gradient": None,
    "linear": _linear,
    "repeat": _repeat,
    "jit": _jit,
    "vmap": _vmap,
    "forward": _forward,
    "second_order": _second_order,
}
CHEAP = ("value", "gradient", "linear", "repeat", "jit")
