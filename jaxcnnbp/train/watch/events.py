"""Who watches a run: the records of a run, and what a watcher is told."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcnnbp.train.options import Options


@dataclasses.dataclass(frozen=True)
class Beginning:
    """What is known before the first step."""

    options: Options
    model: str
    parameters: int
    data: str
    train_images: int
    test_images: int
    image_shape: tuple[int, ...]
    devices: int = 1
    step: int = 0  # steps done by an earlier part of the run
    history: tuple[Epoch, ...] = ()  # and its epochs
    validation_images: int = 0
    extensions: tuple[Any, ...] = ()  # changes of the number of epochs


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a run is, a few times a second."""

    epoch: int
    images: int  # trained on since the run began
    loss: float  # means over the steps since the last report
    error: float


@dataclasses.dataclass(frozen=True)
class Epoch:
    """One pass over the training images, and the test that followed it."""

    epoch: int
    step: int
    train_loss: float  # mean over the epoch while training, with augmentation and smoothing
    train_error: float
    test_loss: float
    test_error: float
    learning_rate: float  # of the last step
    seconds: float  # of training, without the test
    images_per_second: float
    validation_loss: float | None = None  # of the images that are held out, if there are any
    validation_error: float | None = None


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a run ended."""

    test_error: float
    test_loss: float
    confusion: np.ndarray
    seconds: float
    best: Any = None  # the epoch with the lowest error


class Watch:
    """A watcher that does nothing; derive from it and override what is wanted."""

    def begin(self, beginning: Beginning) -> None:
        """Called once, before the first step."""

    def progress(self, progress: Progress) -> None:
        """Called a few times a second during an epoch."""

    def epoch(self, epoch: Epoch) -> None:
        """Called after every epoch."""

    def end(self, ending: Ending) -> None:
        """Called once, after the last epoch."""

    def note(self, text: str) -> None:
        """Called with a sentence on something that does not end the run."""

    def fail(self, reason: str) -> None:
        """Called instead of `end` if the run stops before its end."""


class Together(Watch):
    """Several watchers as one, told in this order."""

    def __init__(self, watches: Sequence[Watch]) -> None:
        self._watches = tuple(watches)

    def begin(self, beginning: Beginning) -> None:
        self._tell("begin", beginning)

    def progress(self, progress: Progress) -> None:
        self._tell("progress", progress)

    def epoch(self, epoch: Epoch) -> None:
        self._tell("epoch", epoch)

    def end(self, ending: Ending) -> None:
        self._tell("end", ending)

    def note(self, text: str) -> None:
        self._tell("note", text)

    def fail(self, reason: str) -> None:
        self._tell("fail", reason)

    def _tell(self, event: str, what: object) -> None:
        for watch in self._watches:
            getattr(watch, event)(what)
