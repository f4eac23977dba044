"""`compare_gradients`: hand-written gradients against autodiff and a float64 oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxcnnbp._compat import without_compiler_options
from jaxcnnbp.audit.checks import CHEAP, CHECKS, Checked, checked
from jaxcnnbp.audit.complaints import by_hand, weighed, weighed_output
from jaxcnnbp.audit.finite import Slope
from jaxcnnbp.audit.hints import hint_for
from jaxcnnbp.audit.measure import errors_of, off, place_of_largest
from jaxcnnbp.audit.oracle.rule import widened
from jaxcnnbp.audit.own_rules import REFUSALS
from jaxcnnbp.audit.place import Borders
from jaxcnnbp.audit.problem import Problem, problem_of
from jaxcnnbp.audit.report import GradientReport, Maps, ReportRow, Worst
from jaxcnnbp.audit.trial import Trial, trial_of
from jaxcnnbp.audit.yardstick import Yardstick


def compare_gradients(
    fun: Callable[..., Any],
    *args: Any,
    reference: Callable[..., Any] | None = None,
    expected: Any = None,
    cotangents: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    argnums: int | str | Sequence[int | str] | None = None,
    names: Sequence[str] | None = None,
    has_aux: bool = False,
    oracle: bool = True,
    finite_differences: bool = True,
    tolerance: float | Mapping[str, float] | None = None,
    spatial: Mapping[str, Sequence[int]] | None = None,
    checks: Sequence[str] = CHEAP,
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

    A gradient is right if its formula is, that is, if the rules themselves give the oracle's gradient in float64, each
    element for itself and for each output alone; if its elements in the dtype of the function are as near as rounding
    allows (`jaxcnnbp.audit.tolerance`), or no further than autodiff's and its own steps' roundings; and if no smooth
    finite difference contradicts it, where the function stops no gradient. At a kink it may be whatever lies between
    the derivatives of both sides. Where there is no oracle, finite differences stand in its place, which see less. One
    number is differentiated as it is; outputs that are arrays are contracted with fixed random numbers.

    Args:
      fun: any function of pytrees to a number, an array, or a pytree of them, that `jax.jit` can trace.
      *args: its arguments. Integer arrays are passed along, anything else than an array is left as it is.
      reference: a function of the same arguments that `fun` should agree with, forward and backward.
      expected: the gradients themselves, of each differentiated leaf in order, instead of a function that has them.
      cotangents: what the outputs are contracted with, shaped like them; by default 1 for one number, else random.
      kwargs: keyword arguments of `fun` and `reference`, which are not differentiated.
      argnums: which arguments to differentiate, by number, or by path such as "params.conv1"; all by default. Python
        floats only if named here, or if there is nothing else.
      names: one name an argument, for the report; by default the paths inside pytrees and the parameters' names.
      has_aux: whether `fun` returns a pair, of which only the first is differentiated.
      oracle: whether to run the oracle; without it, manual gradients are judged by autodiff's.
      finite_differences: whether to check the oracle itself by differences in one random direction a leaf.
      tolerance: what may be off, relative to the element and to the leaf's largest entry, instead of what
        rounding allows; one number, or numbers by path.
      spatial: spatial axes by leaf name, where `jaxcnnbp.audit.place.guess` would be wrong.
      checks: what is looked at besides values and gradients, of "value", "gradient", "linear" (in the cotangent),
        "repeat" (a second call), "jit" (outside of `jax.jit`, of rules that are not this package's), "vmap", "forward"
        (mode), "second_order"; the first five by default.
      seed: of the random numbers.
      timing: whether to measure time and memory.

    Returns:
      A `GradientReport`: printable, `report.ok`, `report.assert_close()`, `report.to_json()`,
      `report.plot()`, `report.save_html(path)`.

    Raises:
      TypeError: if `args` hold nothing to differentiate.
      ValueError: if `argnums`, `names`, `expected`, `cotangents` or `checks` do not fit, or `reference` has other
        outputs.

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
    _require_checks(checks)
    fun, reference = without_compiler_options(fun)[0], reference and without_compiler_options(reference)[0]
    if kwargs:
        fun, reference = partial(fun, **kwargs), reference and partial(reference, **kwargs)
    with jax.disable_jit(False):
        problem = problem_of(fun, args, argnums, names, has_aux)
        truth = None if expected is None else _expected(expected, problem)
        trial = trial_of(problem, fun, reference, cotangents, seed, timing)
        yardstick = Yardstick(problem, fun, reference, trial, tolerance, truth, dict(spatial or {}), oracle, seed)
        rows = [_gradient_row(i, problem, trial, yardstick, finite_differences) for i in range(len(problem.names))]
        case = Checked(problem, fun, trial, yardstick, seed, compare_gradients)
        rows = checked(weighed(rows, trial, yardstick), checks, case)
        outputs = [_output_row(name, trial, yardstick) for name in trial.cotangents if "value" in checks]
        outputs = [weighed_output(row, yardstick) for row in outputs]
        ties = yardstick.judge.ties() if yardstick.judge is not None else {}
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
            yardstick.no_oracle,
            _blamed(rows, trial, yardstick),
            yardstick.given,
        )


def _blamed(rows: Sequence[ReportRow], trial: Trial, yardstick: Yardstick) -> dict[str, tuple[str, ...]]:
    """The leaves that each of several rules makes wrong by itself, in elements that are wrong with all of them.

    None where the truth is not that of the function without its rules.
    """
    wrong = {place: row for place, row in enumerate(rows) if not row.ok}
    blamed: dict[str, tuple[str, ...]] = {}
    for name, alone in trial.alone.items() if wrong and len(trial.alone) > 1 and not yardstick.given else ():
        try:
            found = alone().gradients
        except REFUSALS:  # JAX cannot differentiate what another of them is of
            continue
        rows_of = ((row.name, row.maps, found[place]) for place, row in wrong.items())
        leaves = [name for name, maps, own in rows_of if np.any(maps.off() & off(own, maps.oracle, maps.allowed))]
        blamed |= {name: tuple(leaves)} if leaves else {}
    return blamed


def _expected(expected: Any, problem: Problem) -> list[np.ndarray]:
    """The gradients that the user expects."""
    arrays = [widened(np.asarray(a)) for a in jax.tree.leaves(expected)]
    found, wanted = ([a.shape for a in part] for part in (arrays, problem.inputs))
    if found != wanted:
        names = ", ".join(problem.names)
        raise ValueError(f"`expected` (of shapes {found}) must hold the gradients of {names} (of shapes {wanted}).")
    return arrays


def _require_checks(checks: Sequence[str]) -> None:
    if isinstance(checks, str) or not set(checks) <= set(CHECKS):
        raise ValueError(f"`checks` (={checks!r}) must be a sequence of some of {', '.join(map(repr, CHECKS))}.")


def _gradient_row(place: int, problem: Problem, trial: Trial, yardstick: Yardstick, differences: bool) -> ReportRow:
    name, wide = problem.names[place], yardstick.wide
    truth, allowed, reason = yardstick.gradient(place)
    autodiff = None if trial.autodiff is None else trial.autodiff.gradients[place]
    maps = Maps(trial.manual.gradients[place], autodiff, truth, allowed)
    slope = None
    if differences and wide is not None and truth.size > 0 and yardstick.expected is None:
        slope = wide.differences.slope(place, truth, *by_hand(place, maps, yardstick))
    known = zip(problem.names, yardstick.truth.gradients, strict=False)
    others = {n: gradient for i, (n, gradient) in enumerate(known) if i != place}
    return _row(name, trial.dtypes[place], maps, yardstick.borders(name, truth.shape, place), reason, slope, others)


def _output_row(name: str, trial: Trial, yardstick: Yardstick) -> ReportRow:
    truth, allowed, reason = yardstick.output(name)
    autodiff = None if trial.autodiff is None else trial.autodiff.outputs[name]
    maps = Maps(trial.manual.outputs[name], autodiff, truth, allowed)
    dtype = trial.cotangents[name].dtype
    row = _row(name, dtype, maps, yardstick.borders(name, truth.shape), reason, None, {})
    return replace(row, hint=row.hint.replace("gradient", "value"))


def _row(
    name: str,
    dtype: np.dtype,
    maps: Maps,
    borders: Borders,
    reason: str,
    slope: Slope | None,
    others: dict[str, np.ndarray],
) -> ReportRow:
    wrong = maps.off()
    return ReportRow(
        name=name,
        shape=borders.shape,
        dtype=str(dtype),
        manual=errors_of(maps.manual, maps.oracle, dtype),
        autodiff=None if maps.autodiff is None else errors_of(maps.autodiff, maps.oracle, dtype),
        worst=_worst(maps, borders),
        wrong=int(wrong.sum()),
        wrong_places=borders.count(wrong),
        reason=reason,
        hint=hint_for(maps, wrong, borders.axes, others) if wrong.any() else "",
        axes=borders.axes,
        slope=slope,
        maps=maps,
    )


def _worst(maps: Maps, borders: Borders) -> Worst | None:
    if maps.manual.size == 0:
        return None
    index = place_of_largest(maps.excess())
    return Worst(
        index=index,
        place=borders.place_of(index),
        manual=maps.manual[index].item(),
        autodiff=None if maps.autodiff is None else maps.autodiff[index].item(),
        oracle=maps.oracle[index].item(),
        allowed=float(maps.allowed[index]),
    )
