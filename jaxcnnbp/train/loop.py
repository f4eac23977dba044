"""Training as one call: everything prepared, the epochs run, the result handed over."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from jaxcnnbp.errors import Diverged, Lost, SaveFailed, Stopped
from jaxcnnbp.modes import mode
from jaxcnnbp.train.course import Best
from jaxcnnbp.train.data import Data, held_out, load
from jaxcnnbp.train.epochs import Finished, run_epochs
from jaxcnnbp.train.evaluate import Score
from jaxcnnbp.train.job import Job, prepare
from jaxcnnbp.train.options import Options
from jaxcnnbp.train.processes import is_lost, joined
from jaxcnnbp.train.program import Program
from jaxcnnbp.train.run import Run
from jaxcnnbp.train.setup import choose_model
from jaxcnnbp.train.watch import Epoch, Together, Watch

__all__ = ["Result", "train"]

_ALONE = Run()


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
    try:
        with _precision(options.dtype), mode(options.gradients), joined(run) as alive:
            data = held_out(load(options, run.workers) if data is None else data, options.validation)
            job = prepare(options, run, data, watch, stop, alive)
            with _closing(job):
                return _result(job, run_epochs(job))
    except (Diverged, Stopped, SaveFailed, Lost) as error:
        watch.fail(str(error))
        raise


@contextlib.contextmanager
def _closing(job: Job) -> Iterator[None]:
    """Finish what is being written; not where processes have lost each other, as Orbax would wait for them."""
    lost = False
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError, SaveFailed) as error:
        lost = job.several and (isinstance(error, SaveFailed) or is_lost(error))
        raise
    finally:
        if job.checkpoints is not None and not lost:
            job.checkpoints.close()


def _result(job: Job, finished: Finished) -> Result:
    course = finished.course
    name, _ = choose_model(job.options, job.data.train.images.shape[1:])
    whole = [jax.tree.map(job.layout.whole, tree) for tree in (finished.state.weights, finished.best)]
    if job.layout.mesh is None:
        whole = [finished.state.weights, finished.best]
    params, best = whole
    if course.score is None or course.best is None:
        raise ValueError("a run of at least one epoch has a score")
    history = tuple(course.history)
    tested = course.score, job.data, course.best, best, course.best_score
    return Result(job.options, name, job.program, params, history, *tested)


def _precision(dtype: str) -> contextlib.AbstractContextManager:
    return jax.enable_x64(True) if dtype == "float64" else contextlib.nullcontext()
