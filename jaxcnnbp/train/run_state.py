"""Where a run stands beside its weights: position in the data, sums of the running epoch, history, best model."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from jaxcnnbp.errors import Diverged
from jaxcnnbp.train.evaluate import Score
from jaxcnnbp.train.optimizer import Extension
from jaxcnnbp.train.step import Figures
from jaxcnnbp.train.watch.events import Epoch, Progress

_REPORT_EVERY = 0.1  # seconds: reading a figure waits for the device, so it is not done at every step
_HOPELESS = 1e6  # a mean over images that begins at about 2 does not come back from here; nor does a NaN
_IN_FLIGHT = 64  # steps that may run ahead of their figures, so that the device need not wait for Python
_SCORES = ("score", "best_score")  # fields that hold an array


@dataclasses.dataclass(frozen=True)
class Best:
    """The epoch whose error was lowest; of equal errors the one with the lower loss, then the earlier.

    The error on the validation images counts where there are such, that on the test images otherwise.
    """

    epoch: int
    test_error: float
    test_loss: float
    validation_error: float | None = None
    validation_loss: float | None = None

    def beats(self, other: Best | None) -> bool:
        """Whether this one is to be kept in the place of another."""
        return other is None or self._figures < other._figures

    @property
    def _figures(self) -> tuple[float, float]:
        if self.validation_error is None or self.validation_loss is None:
            return self.test_error, self.test_loss
        return self.validation_error, self.validation_loss


@dataclasses.dataclass
class RunState:
    """All of a run that is not an array on the devices; a checkpoint holds it as JSON, which keeps floats exactly."""

    step: int = 0  # steps done since the beginning
    epoch: int = 1  # the one that is being trained, from 1
    batches: int = 0  # its batches that are done
    images: int = 0  # its images so far
    loss: float = 0.0  # sum of the loss over them
    wrong: int = 0  # how many of them were misclassified
    seconds: float = 0.0  # spent on training it
    history: list[Epoch] = dataclasses.field(default_factory=list)  # the finished epochs
    score: Score | None = None  # the test after the last of them
    best: Best | None = None  # of them
    best_score: Score | None = None  # its test
    extensions: list[Extension] = dataclasses.field(default_factory=list)  # changes of the number of epochs

    def next_epoch(self) -> None:
        """Begin the next epoch with empty sums."""
        self.epoch += 1
        self.batches, self.images, self.loss, self.wrong, self.seconds = 0, 0, 0.0, 0, 0.0

    def to_json(self) -> dict[str, Any]:
        """The same as values that JSON has."""
        plain = dataclasses.asdict(self)
        for name in _SCORES:
            score = plain[name]
            plain[name] = score and {"loss": score.loss, "confusion": score.confusion.tolist()}
        return plain

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RunState:
        """What `to_json` gave, also of a version that had fewer fields."""
        rich = values | {
            "history": [Epoch(**epoch) for epoch in values["history"]],
            "extensions": [Extension(**extension) for extension in values.get("extensions", ())],
            "best": values["best"] and Best(**values["best"]),
        }
        for name in _SCORES:
            if score := values.get(name):
                rich[name] = Score(score["loss"], np.array(score["confusion"], np.int32))
        return cls(**rich)


class RunningMean:
    """Loss and errors of one epoch: the figures of steps that are still running are added up once they are there.

    Args:
        run_state: where the run stands; its sums over the epoch are added to.
        before: images trained on before the epoch.
        by_clock: whether figures are read when a report is due, too; processes that have to stop at the same
            step read them after the same steps.
    """

    def __init__(self, run_state: RunState, before: int, by_clock: bool = True) -> None:
        self._run_state, self._before, self._by_clock = run_state, before, by_clock
        self._pending: list[Figures] = []
        self._step = run_state.step
        self._since = time.monotonic()

    def add(self, figures: Figures) -> Progress | None:
        """Note a step; returns a report if it is time for one."""
        self._pending.append(figures)
        due = self._by_clock and time.monotonic() - self._since >= _REPORT_EVERY
        return self.read() if due or len(self._pending) >= _IN_FLIGHT else None

    def read(self) -> Progress:
        """Wait for all steps noted so far and report their means.

        Raises:
            Diverged: a loss is beyond 1e6 or not a number; names the first such step.
        """
        run_state = self._run_state
        images, loss, wrong = run_state.images, run_state.loss, run_state.wrong
        for figures in self._pending:
            self._add_one(int(figures.images), float(figures.loss), int(figures.wrong))
        self._pending, self._since = [], time.monotonic()
        seen = max(run_state.images - images, 1)
        means = (run_state.loss - loss) / seen, (run_state.wrong - wrong) / seen
        return Progress(run_state.epoch, self._before + run_state.images, *means)

    def means(self) -> tuple[float, float]:
        """Mean loss and share of errors over all steps of the epoch that were read."""
        images = max(self._run_state.images, 1)
        return self._run_state.loss / images, self._run_state.wrong / images

    def _add_one(self, images: int, loss: float, wrong: int) -> None:
        self._step += 1
        if not loss < _HOPELESS:
            raise Diverged(
                f"The loss is {np.float32(loss)} in epoch {self._run_state.epoch} at step {self._step:,}; "
                "a smaller --learning-rate may help."
            )
        self._run_state.images += images
        self._run_state.loss += loss * images
        self._run_state.wrong += wrong
