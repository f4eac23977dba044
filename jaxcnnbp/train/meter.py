"""Collects the figures of steps that are still running, and adds them up once they are there."""

from __future__ import annotations

import time

import numpy as np

from jaxcnnbp.train.errors import Diverged
from jaxcnnbp.train.step import Figures
from jaxcnnbp.train.watch import Progress

__all__ = ["Meter"]

_REPORT_EVERY = 0.1  # seconds: reading a figure waits for the device, so it is not done at every step
_HOPELESS = 1e6  # a mean over images that begins at about 2 does not come back from here; nor does a NaN
_IN_FLIGHT = 64  # steps that may run ahead of their figures, so that the device need not wait for Python


class Meter:
    """Loss and errors of one epoch.

    Args:
        epoch: number of the epoch.
        step: steps done before it.
        images: images trained on before it.
    """

    def __init__(self, epoch: int, step: int, images: int) -> None:
        self._epoch, self._step, self._before = epoch, step, images
        self._pending: list[tuple[int, Figures]] = []
        self._images, self._loss, self._wrong = 0, 0.0, 0
        self._since = time.monotonic()

    def add(self, images: int, figures: Figures) -> Progress | None:
        """Note a step of so many images; returns a report if it is time for one."""
        self._pending.append((images, figures))
        due = time.monotonic() - self._since >= _REPORT_EVERY
        return self.read() if due or len(self._pending) >= _IN_FLIGHT else None

    def read(self) -> Progress:
        """Wait for all steps noted so far and report their means.

        Raises:
            Diverged: a loss is beyond 1e6 or not a number; names the first such step.
        """
        images, loss, wrong = self._images, self._loss, self._wrong
        for count, figures in self._pending:
            self._add_one(count, float(figures.loss), int(figures.wrong))
        self._pending, self._since = [], time.monotonic()
        seen = max(self._images - images, 1)
        means = (self._loss - loss) / seen, (self._wrong - wrong) / seen
        return Progress(self._epoch, self._before + self._images, *means)

    def means(self) -> tuple[float, float]:
        """Mean loss and share of errors over all steps that were read."""
        return self._loss / self._images, self._wrong / self._images

    def _add_one(self, images: int, loss: float, wrong: int) -> None:
        self._step += 1
        if not loss < _HOPELESS:
            raise Diverged(
                f"The loss is {np.float32(loss)} in epoch {self._epoch} at step {self._step:,}; "
                "a smaller --learning-rate may help."
            )
        self._images += images
        self._loss += loss * images
        self._wrong += wrong
