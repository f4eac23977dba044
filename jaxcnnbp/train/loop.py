"""The training loop: epochs of jitted steps, a test after each, watchers told on the way."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxcnnbp.modes import mode
from jaxcnnbp.train.data import Data, Split, load
from jaxcnnbp.train.errors import Diverged
from jaxcnnbp.train.evaluate import Score, evaluate, make_score
from jaxcnnbp.train.meter import Meter
from jaxcnnbp.train.optimizer import make_schedule
from jaxcnnbp.train.options import Options
from jaxcnnbp.train.setup import build_program, choose_model, steps_per_epoch
from jaxcnnbp.train.step import Program, TrainState, initial_state, make_step
from jaxcnnbp.train.watch import Beginning, Ending, Epoch, Together, Watch

__all__ = ["Result", "batches", "train"]


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
    """

    options: Options
    model: str
    program: Program
    params: Any
    history: tuple[Epoch, ...]
    score: Score
    data: Data


def train(options: Options, data: Data | None = None, watches: Sequence[Watch] = ()) -> Result:
    """Train a shipped model and test it after every epoch.

    The same options give the same weights, bit for bit, on the same machine with the same versions:
    weights, order and augmentation follow from `seed` alone. Every epoch visits every image once.

    Args:
        options: the options of the run.
        data: the data set; by default the one that the options name.
        watches: told of the beginning, the progress, every epoch and the end.

    Returns:
        The trained parameters with their history.

    Raises:
        InputError: options or data that do not fit together.
        Diverged: the loss is beyond 1e6 or not a number; names the epoch and the step.

    Example:
        >>> result = train(Options(epochs=1, batch=256))
        >>> [record.epoch for record in result.history]
        [1]
    """
    watch = Together(watches)
    with _precision(options.dtype), mode(options.gradients):
        job = _prepare(options, load(options) if data is None else data, watch)
        try:
            return _run(job)
        except Diverged as error:
            watch.fail(str(error))
            raise


def batches(seed: int, epoch: int, count: int, batch: int) -> Iterator[np.ndarray]:
    """The batches of one epoch as indices: a permutation drawn from seed and epoch, cut into pieces.

    Args:
        seed: seed of the run.
        epoch: number of the epoch.
        count: number of training images.
        batch: images a batch; the last one holds what is left.

    Yields:
        int32 arrays that together hold every index once.

    Example:
        >>> [len(indices) for indices in batches(seed=0, epoch=1, count=10, batch=4)]
        [4, 4, 2]
    """
    order = np.random.default_rng([seed, epoch]).permutation(count).astype(np.int32)
    for start in range(0, count, batch):
        yield order[start : start + batch]


@dataclasses.dataclass(frozen=True)
class _Job:
    """What all epochs of a run share."""

    options: Options
    data: Data
    program: Program
    watch: Watch
    train_split: Split  # on the device
    test_split: Split
    step: Callable
    score: Callable
    rate: Callable

    @property
    def steps(self) -> int:
        return steps_per_epoch(self.options, self.data)


def _prepare(options: Options, data: Data, watch: Watch) -> _Job:
    program = build_program(options, data)
    train_split, test_split = jax.device_put((data.train, data.test))
    rate = make_schedule(options, options.epochs * steps_per_epoch(options, data))
    step, score = make_step(program), make_score(program)
    return _Job(options, data, program, watch, train_split, test_split, step, score, rate)


def _run(job: _Job) -> Result:
    started = time.perf_counter()
    state = _first_state(job)
    beginning = _beginning(job, state)
    job.watch.begin(beginning)
    history, scores = [], []
    for number in range(1, job.options.epochs + 1):
        state, record, score = _epoch(job, state, number)
        history.append(record)
        scores.append(score)
        job.watch.epoch(record)
    last, name = scores[-1], beginning.model
    job.watch.end(Ending(last.error, last.loss, last.confusion, time.perf_counter() - started))
    return Result(job.options, name, job.program, state.weights, tuple(history), last, job.data)


def _first_state(job: _Job) -> TrainState:
    shape = (job.options.batch, *job.data.train.images.shape[1:])
    return initial_state(job.program, job.options.seed, shape)


def _beginning(job: _Job, state: TrainState) -> Beginning:
    train, test = job.data.train, job.data.test
    name, _ = choose_model(job.options, train.images.shape[1:])
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    counts = len(train.labels), len(test.labels)
    return Beginning(job.options, name, parameters, job.data.name, *counts, train.images.shape[1:])


def _epoch(job: _Job, state: TrainState, number: int) -> tuple[TrainState, Epoch, Score]:
    started = time.perf_counter()
    state, (loss, error) = _train_epoch(job, state, number)
    seconds = time.perf_counter() - started
    score = evaluate(job.score, state.weights, job.test_split)
    if not math.isfinite(score.loss):
        raise Diverged(f"The loss on the test images is {score.loss} after epoch {number}.")
    step = number * job.steps
    speed = len(job.data.train.labels) / seconds
    rate = float(job.rate(step - 1))
    return state, Epoch(number, step, loss, error, score.loss, score.error, rate, seconds, speed), score


def _train_epoch(job: _Job, state: TrainState, number: int) -> tuple[TrainState, tuple[float, float]]:
    count, done = len(job.data.train.labels), number - 1
    meter = Meter(number, done * job.steps, done * count)
    for indices in batches(job.options.seed, number, count, job.options.batch):
        state, figures = job.step(state, job.train_split, indices)
        if (progress := meter.add(len(indices), figures)) is not None:
            job.watch.progress(progress)
    job.watch.progress(meter.read())
    return state, meter.means()


def _precision(dtype: str) -> contextlib.AbstractContextManager:
    return jax.enable_x64(True) if dtype == "float64" else contextlib.nullcontext()
