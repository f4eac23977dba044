"""Training as one call: everything prepared, then the epochs with their steps, tests, checkpoints and stops."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnnbp.errors import Diverged, InputError, Lost, SaveFailed, Stopped
from jaxcnnbp.modes import mode
from jaxcnnbp.train.checkpoints.store import Checkpoints
from jaxcnnbp.train.data import load
from jaxcnnbp.train.data.split import Data, Split, held_out
from jaxcnnbp.train.diagnose import Anchor, explain, is_finite
from jaxcnnbp.train.evaluate import EVALUATION_BATCH, Score, evaluate
from jaxcnnbp.train.feed import feed, in_order
from jaxcnnbp.train.layout import whole
from jaxcnnbp.train.options import Options, Run
from jaxcnnbp.train.prepare import Job, prepare
from jaxcnnbp.train.processes import joined
from jaxcnnbp.train.program import Program
from jaxcnnbp.train.run_state import Best, RunningMean, RunState
from jaxcnnbp.train.step import Figures, TrainState
from jaxcnnbp.train.watch.events import Ending, Epoch, Together, Watch

_ALONE = Run()
_AGREE_AFTER = 8  # steps until processes act on each other's wish to stop: none waits for the newest figures
_ANCHOR_EVERY = 64  # steps between two copies of the state that a divergence is traced from


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run leaves.

    Args:
        options: the options of the run.
        model: name of the shipped model.
        program: the model itself, the loss and the scaling of the images.
        params: the parameters that were tested last (the average where there is one).
        history: one record an epoch.
        score: loss and confusion matrix of the test images after the last epoch.
        data: the data set, on the host.
        best: the epoch with the lowest error on the validation images; on the test images, if there are none.
        best_params: the parameters after it.
        best_score: loss and confusion matrix of the test images after it; None where it is not chosen by validation.
    """

    options: Options
    model: str
    program: Program
    params: Any
    history: tuple[Epoch, ...]
    score: Score
    data: Data
    best: Best
    best_params: Any
    best_score: Score | None = None


def train(
    options: Options,
    data: Data | None = None,
    watches: Sequence[Watch] = (),
    run: Run = _ALONE,
    stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Train a shipped model and test it after every epoch.

    The same options on the same devices give the same weights, bit for bit, on the same machine with the same
    versions: weights, order and augmentation follow from `seed` alone. It does not matter how often the run was
    interrupted and resumed. Every epoch visits every image once.

    Args:
        options: what is trained.
        data: the data set; by default the one that the options name.
        watches: told of the beginning, the progress, every epoch and the end.
        run: devices, processes and checkpoints.
        stop: asked after every step; once it says yes, the state is saved and `Stopped` raised.

    Returns:
        The trained parameters with their history.

    Raises:
        InputError: options or data that do not fit together, or checkpoints of another run.
        Diverged: the loss is beyond 1e6 or not a number; names the epoch, the step, the layer and the rule.
        Stopped: `stop` said yes, and the state is saved.
        SaveFailed: the last checkpoint could not be written.
        Lost: another process of the run does not answer.

    Example:
        >>> result = train(Options(epochs=1, batch=256))
        >>> [record.epoch for record in result.history]
        [1]
    """
    watch = Together(watches)
    precision = jax.enable_x64(True) if options.dtype == "float64" else contextlib.nullcontext()
    try:
        with precision, mode(options.gradients), joined(run) as alive:
            data = held_out(load(options, run.workers) if data is None else data, options.validation)
            job = prepare(options, run, data, watch, stop, alive)
            with job.closing():
                return _Runner(job).run()
    except (Diverged, Stopped, SaveFailed, Lost) as error:
        watch.fail(str(error))
        raise


class _Runner:
    """The state of a run on its way."""

    def __init__(self, job: Job) -> None:
        self.job, self.run_state = job, RunState()
        self.state: TrainState = job.first_state()
        self.best: Any = None
        self._recent: collections.deque[Figures] = collections.deque(maxlen=_AGREE_AFTER)

    def run(self) -> Result:
        """All epochs that are left, from the first or from a checkpoint."""
        started = time.perf_counter()
        self._begin()
        while self.run_state.epoch <= self.job.options.epochs and not self._out_of_patience():
            self._test_epoch(*self._train_epoch())
        if self.job.checkpoints is not None:
            self.job.checkpoints.wait()
        score, best = self.run_state.score, self.run_state.best
        if score is None or best is None:
            raise ValueError("a run of at least one epoch has a score")
        self.job.watch.end(Ending(score.error, score.loss, score.confusion, time.perf_counter() - started, best))
        return self._result(score, best)

    def _result(self, score: Score, best: Best) -> Result:
        job, run_state, params = self.job, self.run_state, (self.state.weights, self.best)
        if job.layout.mesh is not None:
            params = jax.tree.map(whole, params)
        last, best_params = params
        trained = job.options, job.model, job.program, last, tuple(run_state.history)
        return Result(*trained, score, job.data, best, best_params, run_state.best_score)

    def _begin(self) -> None:
        """Resume, or mark an empty folder with the state before the first step."""
        checkpoints = self.job.checkpoints
        if checkpoints is not None:
            if self.job.run.resume:
                self._resume(checkpoints)
            elif checkpoints.steps():
                fault = f"`checkpoints` (={self.job.run.checkpoints}) holds checkpoints of a run"
                raise InputError(f"{fault}; give --resume to go on with it, or name another folder.")
        self.job.watch.begin(self.job.beginning(self.run_state, self.state))
        for text in self.job.data.notes:
            self.job.watch.note(text)
        if self.run_state.step == 0:
            self._save()

    def _out_of_patience(self) -> bool:
        """Whether the validation error has not fallen for as many epochs as the options allow; says so once."""
        patience, best, done = self.job.options.patience, self.run_state.best, self.run_state.epoch - 1
        if not patience or best is None or done - best.epoch < patience or done >= self.job.options.epochs:
            return False
        waited = f"No lower validation error than after epoch {best.epoch} in {done - best.epoch} epochs"
        self.job.watch.note(f"{waited}: the run ends after epoch {done} of {self.job.options.epochs} (--patience).")
        self._save()
        return True

    def _train_epoch(self) -> tuple[float, float]:
        """The steps of one epoch that are left: mean loss and error."""
        job, run_state = self.job, self.run_state
        running = RunningMean(run_state, (run_state.epoch - 1) * job.images, by_clock=not job.several)
        anchor = Anchor(run_state, self.state)
        started, before = time.perf_counter(), run_state.seconds
        try:
            with contextlib.closing(job.fed(run_state, job.stop)) as fed:
                for batch in fed:
                    self._one_step(batch, running)
                    run_state.seconds = before + time.perf_counter() - started
                    anchor = self._after_step(running, anchor)
            job.watch.progress(running.read())
            run_state.seconds = before + time.perf_counter() - started
            if not is_finite(self.state.params):
                raise Diverged(f"The weights are no longer finite after epoch {run_state.epoch}; try a smaller rate.")
        except Diverged as error:
            raise self._explained(anchor, error) from error
        finally:
            job.profiler.end()
        return running.means()

    def _resume(self, checkpoints: Checkpoints) -> None:
        restored = checkpoints.restore(self.state, self.state.weights)
        if restored is None:
            self.job.watch.note(f"{self.job.run.checkpoints}: holds no checkpoint yet; the run starts at step 0.")
            return
        self.state, self.best, self.run_state = restored.state, restored.best, restored.run_state
        self.job = self.job.extended(self.run_state.extensions)
        if self.best is not None:
            checkpoints.write_best(self.best)

    def _one_step(self, batch: Any, running: RunningMean) -> None:
        job, run_state = self.job, self.run_state
        job.profiler.before_step(run_state.step)
        self.state, figures = job.step(self.state, batch)
        job.profiler.after_step(run_state.step, job.step, self.state, batch)
        run_state.step, run_state.batches = run_state.step + 1, run_state.batches + 1
        self._recent.append(figures)
        job.tell_faults()
        if (progress := running.add(figures)) is not None:
            job.alive()
            job.watch.progress(progress)

    def _after_step(self, running: RunningMean, anchor: Anchor) -> Anchor:
        """A checkpoint if it is due, a stop if it is asked for, a new anchor from time to time."""
        job, run_state = self.job, self.run_state
        if job.due(run_state.step, at_end=False):
            running.read()
            self._save()
        last = run_state.batches == job.steps  # then the test comes first
        if self._asked() and not last:
            running.read()
            self._stop()
        if run_state.step - anchor.run_state.step >= _ANCHOR_EVERY:
            running.read()
            return Anchor(run_state, self.state)
        return anchor

    def _test_epoch(self, loss: float, error: float) -> None:
        """The test after an epoch, its record, the best model, the checkpoint."""
        job, run_state = self.job, self.run_state
        score = self._score(job.data.test, "test")
        validation = None if job.data.validation is None else self._score(job.data.validation, "validation")
        held = (None, None) if validation is None else (validation.loss, validation.error)
        rate, speed = float(job.rate(run_state.step - 1)), job.images / max(run_state.seconds, 1e-9)
        figures = loss, error, score.loss, score.error, rate, run_state.seconds, speed
        record = Epoch(run_state.epoch, run_state.step, *figures, *held)
        run_state.history.append(record)
        run_state.score = score
        best = Best(run_state.epoch, score.error, score.loss, *reversed(held))
        if best.beats(run_state.best):
            run_state.best_score = None if validation is None else score
            run_state.best, self.best = best, jax.tree.map(jnp.copy, self.state.weights)
            if job.checkpoints is not None:
                job.checkpoints.write_best(self.best)
        job.watch.epoch(record)
        run_state.next_epoch()
        if job.due(run_state.step, at_end=True):
            self._save()
        if self._asked() and run_state.epoch <= job.options.epochs:
            self._stop()

    def _score(self, split: Split, name: str) -> Score:
        job = self.job
        order = in_order(len(split.labels), EVALUATION_BATCH)
        with contextlib.closing(feed(split, order, job.layout)) as fed:
            score = evaluate(job.score, self.state.weights, fed)
        job.alive()
        job.tell_faults()
        if not math.isfinite(score.loss):
            raise Diverged(f"The loss on the {name} images is {score.loss} after epoch {self.run_state.epoch}.")
        return score

    def _asked(self) -> bool:
        """Whether to stop; processes go by a sum that is old enough for all to have it, and so agree on the step."""
        if not self.job.several:
            return self.job.stop()
        oldest = self._recent[0] if len(self._recent) == _AGREE_AFTER else None
        return oldest is not None and oldest.stop is not None and float(oldest.stop) > 0

    def _save(self) -> None:
        if self.job.checkpoints is None:
            return
        try:
            self.job.checkpoints.save(self.state, self.best, self.run_state)
        except ArithmeticError as error:
            at = f"At step {self.run_state.step:,}"
            raise Diverged(f"{at} {error}; a smaller --learning-rate may help.") from error
        self.job.alive()

    def _stop(self) -> None:
        step = f"step {self.run_state.step:,} of {self.job.options.epochs * self.job.steps:,}"
        if self.job.checkpoints is None:
            raise Stopped(f"Stopped at {step}; nothing is kept without --checkpoints.")
        self._save()
        self.job.checkpoints.wait()
        raise Stopped(f"Stopped at {step} and saved; the same command with --resume goes on.")

    def _explained(self, anchor: Anchor, error: Diverged) -> Diverged:
        message = f"{error}{explain(self.job, anchor)}"
        if self.job.checkpoints is not None:
            self.job.checkpoints.save(anchor.state, self.best, anchor.run_state)
            with contextlib.suppress(SaveFailed):  # was told as a note
                self.job.checkpoints.wait()
            message += f" The last good state, of step {anchor.run_state.step:,}, is in {self.job.run.checkpoints}."
        return Diverged(message)
