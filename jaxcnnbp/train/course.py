"""Where a run stands beside its weights: position in the data, sums of the running epoch, history, best model."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jaxcnnbp.train.evaluate import Score
from jaxcnnbp.train.extension import Extension
from jaxcnnbp.train.watch import Epoch

__all__ = ["Best", "Course"]


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
class Course:
    """All of a run that is not an array on the devices; a checkpoint holds it as JSON, which keeps floats exactly.

    Args:
        step: steps done since the beginning.
        epoch: the epoch that is being trained, from 1.
        batches: its batches that are done.
        images: its images so far.
        loss: sum of the loss over them.
        wrong: how many of them were misclassified.
        seconds: spent on training it.
        history: the finished epochs.
        score: the test after the last of them.
        best: the best of them.
        best_score: its test.
        extensions: changes of the number of epochs.
    """

    step: int = 0
    epoch: int = 1
    batches: int = 0
    images: int = 0
    loss: float = 0.0
    wrong: int = 0
    seconds: float = 0.0
    history: list[Epoch] = dataclasses.field(default_factory=list)
    score: Score | None = None
    best: Best | None = None
    best_score: Score | None = None
    extensions: list[Extension] = dataclasses.field(default_factory=list)

    def next_epoch(self) -> None:
        """Begin the next epoch with empty sums."""
        self.epoch += 1
        self.batches, self.images, self.loss, self.wrong, self.seconds = 0, 0, 0.0, 0, 0.0

    def to_json(self) -> dict[str, Any]:
        """The course as values that JSON has."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        best = self.best and dataclasses.asdict(self.best)
        lists = {name: [dataclasses.asdict(item) for item in plain[name]] for name in ("history", "extensions")}
        scores = {name: plain[name] and _plain_score(plain[name]) for name in ("score", "best_score")}
        return plain | lists | scores | {"best": best}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Course:
        """What `to_json` gave, as a course."""
        best, scores = values["best"], {name: values.get(name) for name in ("score", "best_score")}
        rich = {
            "history": [Epoch(**epoch) for epoch in values["history"]],
            "extensions": [Extension(**extension) for extension in values.get("extensions", ())],
            "best": best and Best(**best),
            **{name: score and _rich_score(score) for name, score in scores.items()},
        }
        return cls(**(values | rich))


def _plain_score(score: Score) -> dict[str, Any]:
    return {"loss": score.loss, "confusion": score.confusion.tolist()}


def _rich_score(values: dict[str, Any]) -> Score:
    return Score(values["loss"], np.array(values["confusion"], np.int32))
