"""What the gradients are measured by: an oracle in float64, autodiff, or finite differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from jaxcnnbp.audit import tolerance as tolerances
from jaxcnnbp.audit.differences import Differences, differences_of
from jaxcnnbp.audit.formula import Wide, wide_of
from jaxcnnbp.audit.measure import largest
from jaxcnnbp.audit.own_rules import REFUSALS
from jaxcnnbp.audit.passes import Arrays, Evaluated, Oracle, furthest
from jaxcnnbp.audit.place import Borders, borders_of
from jaxcnnbp.audit.problem import Problem
from jaxcnnbp.audit.report import Maps
from jaxcnnbp.audit.trial import Trial, first_line
from jaxcnnbp.audit.usage import slides_windows, usages

NOISE_RUNS = 8
# Without an oracle a right gradient may be off by this much of the element, and of the largest entry, beyond the
# estimated error of the difference: iterations that stop early have values that are not their own integrals.
OF_DIFFERENCE, OF_LARGEST = 1e-4, 1e-5


class Measure(NamedTuple):
    """The truth of an array, what each element may be off by, and why."""

    truth: np.ndarray
    allowed: np.ndarray
    reason: str


class Yardstick:
    """The truth of every array, what an element may be off by, and where elements lie."""

    def __init__(
        self,
        problem: Problem,
        fun: Callable[..., Any],
        reference: Callable[..., Any] | None,
        trial: Trial,
        tolerance: tolerances.Tolerance,
        expected: Sequence[np.ndarray] | None,
        spatial: dict[str, Sequence[int]],
        oracle: bool,
        seed: int,
    ):
        self.wide: Wide | None = None  # the function in float64; None without an oracle
        # What stands in its place where there can be none; None if it was not asked for either.
        self.differences: Differences | None = None
        self.no_oracle = ""  # why there is none, in JAX's words
        self.expected = expected  # the gradients that the user expects, if they are given
        self.by_reference = reference is not None  # whether the truth is another function's
        self._tolerance, self._names = tolerance, problem.names
        self._trial, self._spatial = trial, spatial
        if oracle:
            try:
                self.wide = wide_of(problem, fun, reference, trial, seed)
            except REFUSALS as error:  # whatever JAX cannot trace or differentiate
                self.no_oracle = first_line(error)
                outputs = problem.outputs_of(reference or fun)
                self.differences = differences_of(outputs, problem, trial.cotangents, trial.manual, seed)
        sizes = [a.size for a in (*trial.manual.gradients, *trial.manual.outputs.values())]
        self._terms = max(1, *sizes)
        self._shapes = [a.shape for a in trial.manual.gradients]
        self._usages = {} if self.judge is None else usages(self.judge.closed, len(trial.dtypes))
        self._windows = self.judge is None or slides_windows(self.judge.closed)

    @property
    def given(self) -> bool:
        """Whether the truth is the user's."""
        return self.by_reference or self.expected is not None

    @property
    def judge(self) -> Oracle | None:
        """The oracle."""
        return None if self.wide is None else self.wide.judge

    @cached_property
    def truth(self) -> Evaluated:
        """Outputs and gradients of the oracle, or of autodiff if none was asked for; differences have outputs alone."""
        if self.judge is not None:
            return self.judge.truth
        if self.differences is not None:
            return Evaluated(self.differences.outputs, ())
        if self._trial.autodiff is None:
            raise NotImplementedError(
                f"`oracle` (=False) leaves autodiff as judge, which says: {self._trial.no_autodiff}"
            )
        return self._trial.autodiff

    @cached_property
    def formula(self) -> Evaluated | None:
        """What outputs and gradients by the rules may be off by in float64; None where they do not run there."""
        wide = self.wide
        if wide is None or wide.rule is None:
            return None
        truth = wide.judge.truth
        rooms = truth if self._is_given else wide.allowed(truth, wide.rule, wide.cotangents)
        rows = zip(truth.gradients, rooms.gradients, map(self.tolerance_of, self._names), strict=True)
        by_user = (room if given is None else tolerances.by_user(true, given)[0] for true, room, given in rows)
        return Evaluated(rooms.outputs, tuple(by_user))

    def rule_for(self, maps: Maps) -> Evaluated | None:
        """What the rules give in float64, where that is asked: of an author's rules always, of this package's and of
        JAX's where elements are off in their own dtype, or where so much is allowed that they say nothing.
        """
        if self.wide is None:
            return None
        wanted = self._trial.foreign or maps.off().any() or says_nothing(maps.oracle, maps.allowed)
        return self.wide.rule if wanted else None

    def tolerance_of(self, name: str) -> float | None:
        """The user's tolerance of the leaf `name`."""
        return tolerances.of_leaf(self._tolerance, name)

    def gradient(self, place: int) -> Measure:
        """Of the gradient of the input at `place`."""
        dtype, manual, name = self._trial.dtypes[place], self._trial.manual.gradients[place], self._names[place]
        if self.expected is not None:
            return self._allowed(name, self.expected[place], None, dtype, "")
        if self.differences is not None:
            return self._measured(self.differences, place, manual)
        truth = self.truth.gradients[place]
        return self._allowed(name, truth, self._spread and self._spread.gradients[place], dtype)

    def output(self, name: str) -> Measure:
        """Of the output `name`."""
        dtype = self._trial.cotangents[name].dtype
        truth = self.truth.outputs[name]
        return self._allowed(name, truth, self._spread and self._spread.outputs[name], dtype)

    def allowed_for(self, truth: Evaluated, found: Evaluated, cotangents: Arrays, wide: Wide) -> Sequence[np.ndarray]:
        """What gradients of other `cotangents`, which the rules give as `found`, may be off by: as formulas where there
        are, else as rounding allows.
        """
        dtypes = self._trial.dtypes
        if self._trial.foreign and self.formula is not None and self._tolerance is None:
            return wide.allowed(truth, found, cotangents).gradients
        spreads = [None] * len(dtypes) if self._is_given else self._moved(wide, truth, cotangents).gradients
        rows = zip(self._names, truth.gradients, spreads, dtypes, strict=True)
        return [self._allowed(*row)[1] for row in rows]

    def borders(self, name: str, shape: tuple[int, ...], place: int | None = None) -> Borders:
        """Where the elements of the array `name` lie, which is the input at `place` if it is one."""
        usage, axes = None if place is None else self._usages.get(place), self._spatial.get(name)
        return borders_of(name, shape, axes if self._windows or axes else (), usage, self._shapes)

    @property
    def _is_given(self) -> bool:
        """Whether the user says of every leaf what it may be off by."""
        return isinstance(self._tolerance, (int, float))

    @cached_property
    def _spread(self) -> Evaluated | None:
        if self.wide is None or self._is_given:
            return None
        return self._moved(self.wide, self.wide.judge.truth)

    def _moved(self, wide: Wide, truth: Evaluated, cotangents: Arrays | None = None) -> Evaluated:
        return furthest(self._runs(wide, cotangents), truth)

    def _runs(self, wide: Wide, cotangents: Arrays | None = None) -> Iterator[Evaluated]:
        return (wide.judge.gradients(i + 1, wide.own_roundoff, cotangents) for i in range(NOISE_RUNS))

    def grown(self, wide: Wide) -> list[float]:
        """How much larger or smaller each gradient is as a whole in one of the runs with noise, at most."""
        truth = wide.judge.truth.gradients
        runs = [run.gradients for run in self._runs(wide)]
        return [max(abs(factor_of(run[i], true) - 1) for run in runs) for i, true in enumerate(truth)]

    def _measured(self, differences: Differences, place: int, manual: np.ndarray) -> Measure:
        truth, error, _ = differences.gradient(place, manual)
        allowed = error + OF_DIFFERENCE * np.abs(truth) + OF_LARGEST * largest(truth[np.isfinite(error)])
        given = self.tolerance_of(self._names[place])
        if given is not None:
            allowed = np.maximum(allowed, tolerances.by_user(truth, given)[0])
        counted = f"{int(np.isfinite(allowed).sum())} of {truth.size} elements"
        return Measure(truth, allowed, f"finite differences in {differences.numbers.dtype} of {counted}")

    def _allowed(
        self, name: str, truth: np.ndarray, spread: np.ndarray | None, dtype: np.dtype, why: str = "no oracle, so "
    ) -> Measure:
        given = self.tolerance_of(name)
        if given is not None:
            return Measure(truth, *tolerances.by_user(truth, given))
        if spread is not None:
            return Measure(truth, *tolerances.by_noise(truth, spread, NOISE_RUNS, dtype))
        allowed, reason = tolerances.by_terms(truth, self._terms, dtype)
        return Measure(truth, allowed, why + reason)


def factor_of(found: np.ndarray, truth: np.ndarray) -> float:
    """What `truth` must be multiplied by to be nearest to `found`; 1 where nothing can be said."""
    known = np.isfinite(found) & np.isfinite(truth)
    size = float(np.sum(np.abs(truth[known]) ** 2))
    return float(np.sum(found[known] * np.conj(truth[known])).real) / size if size else 1.0


def says_nothing(truth: np.ndarray, allowed: np.ndarray) -> bool:
    """Whether in over a tenth of the elements that have a value, so much is allowed that any would be."""
    size = np.abs(truth)
    counts = np.isfinite(size) & (size > 1e-12 * largest(truth)) & (size > 0)
    return bool(counts.any() and np.mean(allowed[counts] >= size[counts]) > 0.1)
