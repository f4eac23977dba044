"""Where a run stands beside its weights: position in the data, sums of the running epoch, history, best model."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jaxcnnbp.train.evaluate import Score
from jaxcnnbp.train.watch import Epoch

__all__ = ["Best", "Course"]


@dataclasses.dataclass(frozen=True)
class Best:
    """The epoch whose test error was lowest; of equal errors the one with the lower loss, then the earlier."""

    epoch: int
    test_error: float
    test_loss: float

    def beats(self, other: Best | None) -> bool:
        """Whether this one is to be kept in the place of another."""
        return other is None or (self.test_error, self.test_loss) < (other.test_error, other.test_loss)


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

    def next_epoch(self) -> None:
        """Begin the next epoch with empty sums."""
        self.epoch += 1
        self.batches, self.images, self.loss, self.wrong, self.seconds = 0, 0, 0.0, 0, 0.0

    def to_json(self) -> dict[str, Any]:
        """The course as values that JSON has."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        score = self.score and {"loss": self.score.loss, "confusion": self.score.confusion.tolist()}
        best = self.best and dataclasses.asdict(self.best)
        return plain | {"history": [dataclasses.asdict(epoch) for epoch in self.history], "score": score, "best": best}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Course:
        """What `to_json` gave, as a course."""
        score, best = values["score"], values["best"]
        rich = {
            "history": [Epoch(**epoch) for epoch in values["history"]],
            "score": score and Score(score["loss"], np.array(score["confusion"], np.int32)),
            "best": best and Best(**best),
        }
        return cls(**(values | rich))
