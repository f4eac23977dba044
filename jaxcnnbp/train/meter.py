"""Collects the figures of steps that are still running, and adds them up once they are there."""

from __future__ import annotations

import time

import numpy as np

from jaxcnnbp.errors import Diverged
from jaxcnnbp.train.course import Course
from jaxcnnbp.train.gradients import Figures
from jaxcnnbp.train.watch import Progress

__all__ = ["Meter"]

_REPORT_EVERY = 0.1  # seconds: reading a figure waits for the device, so it is not done at every step
_HOPELESS = 1e6  # a mean over images that begins at about 2 does not come back from here; nor does a NaN
_IN_FLIGHT = 64  # steps that may run ahead of their figures, so that the device need not wait for Python


class Meter:
    """Loss and errors of one epoch, added to its course.

    Args:
        course: where the run stands; its sums over the epoch are added to.
        before: images trained on before the epoch.
        by_clock: whether figures are read when a report is due, too; processes that have to stop at the same
            step read them after the same steps.
    """

    def __init__(self, course: Course, before: int, by_clock: bool = True) -> None:
        self._course, self._before, self._by_clock = course, before, by_clock
        self._pending: list[Figures] = []
        self._step = course.step
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
        course = self._course
        images, loss, wrong = course.images, course.loss, course.wrong
        for figures in self._pending:
            self._add_one(int(figures.images), float(figures.loss), int(figures.wrong))
        self._pending, self._since = [], time.monotonic()
        seen = max(course.images - images, 1)
        means = (course.loss - loss) / seen, (course.wrong - wrong) / seen
        return Progress(course.epoch, self._before + course.images, *means)

    def means(self) -> tuple[float, float]:
        """Mean loss and share of errors over all steps of the epoch that were read."""
        images = max(self._course.images, 1)
        return self._course.loss / images, self._course.wrong / images

    def _add_one(self, images: int, loss: float, wrong: int) -> None:
        self._step += 1
        if not loss < _HOPELESS:
            raise Diverged(
                f"The loss is {np.float32(loss)} in epoch {self._course.epoch} at step {self._step:,}; "
                "a smaller --learning-rate may help."
            )
        self._course.images += images
        self._course.loss += loss * images
        self._course.wrong += wrong
