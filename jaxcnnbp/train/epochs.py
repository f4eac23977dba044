"""The epochs of a run: steps, tests, checkpoints, and stops where it was asked to."""

from __future__ import annotations

import collections
import contextlib
import itertools
import math
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcnnbp.errors import Diverged, InputError, SaveFailed, Stopped
from jaxcnnbp.train.course import Best, Course
from jaxcnnbp.train.data.split import Images, Split
from jaxcnnbp.train.diagnose import Anchor, explain
from jaxcnnbp.train.evaluate import EVALUATION_BATCH, Score, evaluate
from jaxcnnbp.train.feed import batches, feed, in_order
from jaxcnnbp.train.gradients import Figures
from jaxcnnbp.train.job import Job
from jaxcnnbp.train.meter import Meter
from jaxcnnbp.train.save import save_params
from jaxcnnbp.train.setup import choose_model
from jaxcnnbp.train.step import TrainState
from jaxcnnbp.train.watch import Beginning, Ending, Epoch

__all__ = ["Finished", "run_epochs"]

_AGREE_AFTER = 8  # steps until processes act on each other's wish to stop: none waits for the newest figures
_ANCHOR_EVERY = 64  # steps between two copies of the state that a divergence is traced from


class Finished(NamedTuple):
    """Where the epochs ended."""

    state: TrainState
    best: Any  # parameters of the best epoch
    course: Course


def run_epochs(job: Job) -> Finished:
    """Run all epochs that are left, from the first or from a checkpoint.

    Args:
        job: what they share.

    Returns:
        The last state, the best parameters and the course.

    Raises:
        Diverged, Stopped, SaveFailed, InputError: as `train` says.
    """
    started = time.perf_counter()
    runner = _Runner(job)
    runner.begin()
    while runner.course.epoch <= job.options.epochs and not runner.out_of_patience():
        runner.train_epoch()
        runner.test_epoch()
    if job.checkpoints is not None:
        job.checkpoints.wait()
    finished = Finished(runner.state, runner.best, runner.course)
    if (score := finished.course.score) is not None:
        seconds = time.perf_counter() - started
        job.watch.end(Ending(score.error, score.loss, score.confusion, seconds, finished.course.best))
    return finished


class _Runner:
    """The state of a run on its way."""

    def __init__(self, job: Job) -> None:
        self.job, self.course = job, Course()
        self.state: TrainState = job.first_state()
        self.best: Any = None
        self._recent: collections.deque[Figures] = collections.deque(maxlen=_AGREE_AFTER)

    def begin(self) -> None:
        """Resume, or mark an empty folder with the state before the first step."""
        checkpoints = self.job.checkpoints
        if checkpoints is not None and not self.job.run.resume and checkpoints.steps():
            fault = f"`checkpoints` (={self.job.run.checkpoints}) holds checkpoints of a run"
            raise InputError(f"{fault}; give --resume to go on with it, or name another folder.")
        if checkpoints is not None and self.job.run.resume:
            self._resume()
        self.job.watch.begin(_beginning(self.job, self.course, self.state))
        for text in self.job.data.notes:
            self.job.watch.note(text)
        if checkpoints is not None and self.course.step == 0:
            self._save()

    def out_of_patience(self) -> bool:
        """Whether the validation error has not fallen for as many epochs as the options allow; says so once."""
        patience, best, done = self.job.options.patience, self.course.best, self.course.epoch - 1
        if not patience or best is None or done - best.epoch < patience or done >= self.job.options.epochs:
            return False
        waited = f"No lower validation error than after epoch {best.epoch} in {done - best.epoch} epochs"
        self.job.watch.note(f"{waited}: the run ends after epoch {done} of {self.job.options.epochs} (--patience).")
        if self.job.checkpoints is not None:
            self._save()
        return True

    def train_epoch(self) -> None:
        """The steps of one epoch that are left."""
        job, course = self.job, self.course
        meter = Meter(course, (course.epoch - 1) * job.images, by_clock=not job.several)
        order = batches(job.options.seed, course.epoch, job.images, job.options.batch)
        left = itertools.islice(order, course.batches, None)
        anchor = Anchor(course, self.state)
        started, before = time.perf_counter(), course.seconds
        try:
            with contextlib.closing(feed(job.data.train, left, job.layout, job.stop if job.several else None)) as fed:
                for batch in fed:
                    self._one_step(batch, meter)
                    course.seconds = before + time.perf_counter() - started
                    anchor = self._after_step(meter, anchor)
            job.watch.progress(meter.read())
            course.seconds = before + time.perf_counter() - started
            self._require_finite(course)
        except Diverged as error:
            raise self._explained(anchor, error) from error
        finally:
            job.profiler.end(job.step)
        self._record = meter.means()

    def test_epoch(self) -> None:
        """The test after an epoch, its record, the best model, the checkpoint."""
        job, course = self.job, self.course
        self._test()
        course.next_epoch()
        if job.checkpoints is not None and job.due(course.step, at_end=True):
            self._save()
        if self._asked() and course.epoch <= job.options.epochs:
            self._stop()

    def _resume(self) -> None:
        checkpoints = self.job.checkpoints
        restored = checkpoints and checkpoints.restore(self.state, self.state.weights)
        if not restored:
            self.job.watch.note(f"{self.job.run.checkpoints}: holds no checkpoint yet; the run starts at step 0.")
            return
        self.state, self.best, self.course = restored.state, restored.best, restored.course
        self.job = self.job.extended(self.course.extensions)
        self._write_best()

    def _one_step(self, batch: Any, meter: Meter) -> None:
        job, course = self.job, self.course
        job.profiler.before_step(course.step)
        self.state, figures = job.step(self.state, batch)
        job.profiler.after_step(course.step, job.step, self.state, batch)
        course.step, course.batches = course.step + 1, course.batches + 1
        self._recent.append(figures)
        _tell_faults(job)
        if (progress := meter.add(figures)) is not None:
            job.alive()
            job.watch.progress(progress)

    def _after_step(self, meter: Meter, anchor: Anchor) -> Anchor:
        """A checkpoint if it is due, a stop if it is asked for, a new anchor from time to time."""
        job, course = self.job, self.course
        if job.checkpoints is not None and job.due(course.step, at_end=False):
            meter.read()
            self._save()
        last = course.batches == job.steps  # then the test comes first
        if self._asked() and not last:
            meter.read()
            self._stop()
        if course.step - anchor.course.step >= _ANCHOR_EVERY:
            meter.read()
            return Anchor(course, self.state)
        return anchor

    def _test(self) -> None:
        job, course = self.job, self.course
        score = self._score(job.data.test, "test")
        validation = None if job.data.validation is None else self._score(job.data.validation, "validation")
        held = (None, None) if validation is None else (validation.loss, validation.error)
        (loss, error), rate = self._record, float(job.rate(course.step - 1))
        speed = job.images / max(course.seconds, 1e-9)
        figures = loss, error, score.loss, score.error, rate, course.seconds, speed
        record = Epoch(course.epoch, course.step, *figures, *held)
        course.history.append(record)
        course.score = score
        best = Best(course.epoch, score.error, score.loss, *reversed(held))
        if best.beats(course.best):
            course.best_score = None if validation is None else score
            course.best, self.best = best, jax.tree.map(jnp.copy, self.state.weights)
            self._write_best()
        job.watch.epoch(record)

    def _score(self, split: Split, name: str) -> Score:
        job = self.job
        order = in_order(len(split.labels), EVALUATION_BATCH)
        with contextlib.closing(feed(split, order, job.layout)) as fed:
            score = evaluate(job.score, self.state.weights, fed)
        job.alive()
        _tell_faults(job)
        if not math.isfinite(score.loss):
            raise Diverged(f"The loss on the {name} images is {score.loss} after epoch {self.course.epoch}.")
        return score

    def _require_finite(self, course: Course) -> None:
        finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(self.state.params)]
        if not all(map(bool, finite)):
            raise Diverged(f"The weights are no longer finite after epoch {course.epoch}; try a smaller rate.")

    def _asked(self) -> bool:
        """Whether to stop; processes go by a sum that is old enough for all to have it, and so agree on the step."""
        if not self.job.several:
            return self.job.stop()
        oldest = self._recent[0] if len(self._recent) == _AGREE_AFTER else None
        return oldest is not None and oldest.stop is not None and float(oldest.stop) > 0

    def _save(self) -> None:
        if self.job.checkpoints is not None:
            try:
                self.job.checkpoints.save(self.state, self.best, self.course)
            except ArithmeticError as error:
                raise Diverged(f"At step {self.course.step:,} {error}; a smaller --learning-rate may help.") from error
            self.job.alive()

    def _stop(self) -> None:
        step = f"step {self.course.step:,} of {self.job.options.epochs * self.job.steps:,}"
        if self.job.checkpoints is None:
            raise Stopped(f"Stopped at {step}; nothing is kept without --checkpoints.")
        self._save()
        self.job.checkpoints.wait()
        raise Stopped(f"Stopped at {step} and saved; the same command with --resume goes on.")

    def _explained(self, anchor: Anchor, error: Diverged) -> Diverged:
        message = f"{error}{explain(self.job, anchor)}"
        if self.job.checkpoints is not None:
            self.job.checkpoints.save(anchor.state, self.best, anchor.course)
            with contextlib.suppress(SaveFailed):  # was told as a note
                self.job.checkpoints.wait()
            message += f" The last good state, of step {anchor.course.step:,}, is in {self.job.run.checkpoints}."
        return Diverged(message)

    def _write_best(self) -> None:
        """The best model as a file of its own beside the checkpoints."""
        if self.job.checkpoints is None or self.best is None:
            return
        params = jax.tree.map(self.job.layout.whole, self.best)
        if jax.process_index() == 0:
            try:
                save_params(self.job.checkpoints.folder / "best.npz", params)
            except InputError as error:
                self.job.watch.note(f"The best model is in the checkpoints alone: {error}")


def _tell_faults(job: Job) -> None:
    """Pass on what reading images has come upon."""
    for split in filter(None, (job.data.train, job.data.validation, job.data.test)):
        for fault in split.images.faults() if isinstance(split.images, Images) else ():
            job.watch.note(fault)


def _beginning(job: Job, course: Course, state: TrainState) -> Beginning:
    train, test = job.data.train, job.data.test
    name, _ = choose_model(job.options, train.images.shape[1:])
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    counts = len(train.labels), len(test.labels)
    devices = job.layout.data * job.layout.height
    sizes = job.data.name, *counts, train.images.shape[1:], devices
    validation = 0 if job.data.validation is None else len(job.data.validation.labels)
    so_far = course.step, tuple(course.history), validation, tuple(course.extensions)
    return Beginning(job.options, name, parameters, *sizes, *so_far)
