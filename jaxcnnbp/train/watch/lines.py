"""Watchers that write lines: readable ones for a terminal or a file, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jaxcnnbp.errors import InputError
from jaxcnnbp.machine import versions
from jaxcnnbp.train.watch.events import Beginning, Ending, Epoch, Progress, Watch


class Lines(Watch):
    """One readable line an epoch, and one every half minute within a long epoch, with throughput and time left.

    Args:
        write: receives each line, without its newline.
        every: seconds between two lines within an epoch.
    """

    def __init__(self, write: Callable[[str], None], every: float = 30.0) -> None:
        self._write, self._every, self._total, self._epochs = write, every, 0, 0

    def begin(self, beginning: Beginning) -> None:
        self._epochs = beginning.options.epochs
        self._total = beginning.train_images * self._epochs
        self._since = self._started = time.monotonic()
        self._before = beginning.train_images * len(beginning.history)
        if beginning.step:
            done = len(beginning.history)
            place = "where it was finished" if done == self._epochs else f"in epoch {done + 1}/{self._epochs}"
            self._write(f"resumed at step {beginning.step:,}, {place}")

    def progress(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._since < self._every:
            return
        share = 100 * progress.images / self._total
        figures = f"loss {progress.loss:.4f}  error {100 * progress.error:.2f} %"
        speed = (progress.images - self._before) / max(now - self._started, 1e-9)
        left = f"{speed:,.0f} images/s, {duration((self._total - progress.images) / max(speed, 1e-9))} left"
        self._write(f"epoch {progress.epoch}/{self._epochs}  {figures}  {left}  ({share:.0f} % of the run)")
        self._since = now

    def epoch(self, epoch: Epoch) -> None:
        self._write(epoch_line(epoch, self._epochs))
        self._since = time.monotonic()

    def note(self, text: str) -> None:
        self._write(text)


class JsonLines(Watch):
    """Metrics as JSON lines: one with the configuration, one an epoch, one at the end.

    A resumed run writes the file anew from the history in its checkpoint: no epoch is missing, none is there twice.
    Lines that a full disk refuses are written with the next ones.

    Args:
        path: the file; an older one is replaced when the run begins.
        warn: told, once, if lines cannot be written.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, path: Path | str, warn: Callable[[str], None] = lambda _: None) -> None:
        self._path, self._warn = Path(path), warn
        self._waiting, self._written, self._warned = b"", 0, False
        try:
            self._path.open("ab").close()
        except OSError as error:
            raise InputError(f"`metrics` (={path}) cannot be written ({error.strerror}).") from error

    def begin(self, beginning: Beginning) -> None:
        device = jax.devices()[0]
        where = {"platform": device.platform, "device": device.device_kind}
        values = dataclasses.asdict(beginning)
        history = values.pop("history")
        self._line("begin", {**values, "versions": versions(), **where})
        for record in history:
            self._line("epoch", record)
        if beginning.step:
            self._line("resume", {"step": beginning.step})

    def epoch(self, epoch: Epoch) -> None:
        self._line("epoch", dataclasses.asdict(epoch))

    def end(self, ending: Ending) -> None:
        self._line("end", {**dataclasses.asdict(ending), "confusion": ending.confusion.tolist()})

    def note(self, text: str) -> None:
        self._line("note", {"text": text})

    def fail(self, reason: str) -> None:
        if self._written or self._waiting:  # what failed before it began leaves the older file alone
            self._line("fail", {"reason": reason})

    def _line(self, event: str, values: dict[str, Any]) -> None:
        self._waiting += json.dumps({"event": event, **values}, allow_nan=False).encode() + b"\n"
        try:
            with self._path.open("r+b") as file:
                file.truncate(self._written)  # half a line, if the disk was full
                file.seek(self._written)
                file.write(self._waiting)
        except OSError as error:
            if not self._warned:
                self._warn(f"{self._path}: metrics cannot be written ({error.strerror}); later lines will bring them.")
            self._warned = True
        else:
            self._written, self._waiting = self._written + len(self._waiting), b""


def epoch_line(epoch: Epoch, epochs: int) -> str:
    """The summary of one epoch as one line.

    Example:
        >>> epoch_line(Epoch(2, 94, 0.5, 0.125, 0.25, 0.06, 1e-3, 2.0, 1500.0), epochs=9)
        'epoch 2/9  train loss 0.5000  error 12.50 %  test loss 0.2500  error  6.00 %  1,500 images/s  2.0 s'
    """
    number = f"epoch {epoch.epoch:{len(str(epochs))}d}/{epochs}"
    train = f"train loss {epoch.train_loss:.4f}  error {100 * epoch.train_error:5.2f} %"
    test = f"test loss {epoch.test_loss:.4f}  error {100 * epoch.test_error:5.2f} %"
    if epoch.validation_loss is not None and epoch.validation_error is not None:
        held = f"validation loss {epoch.validation_loss:.4f}  error {100 * epoch.validation_error:5.2f} %"
        test = f"{held}  {test}"
    return f"{number}  {train}  {test}  {epoch.images_per_second:,.0f} images/s  {epoch.seconds:.1f} s"


def duration(seconds: float) -> str:
    """A span of time as one reads it.

    Example:
        >>> duration(3723.4)
        '1:02:03'
    """
    minutes, rest = divmod(round(min(seconds, 3.6e8)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
