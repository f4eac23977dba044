"""Who watches a run: the records of a run, and watchers that print lines or write JSON."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np

from jaxcnnbp.train.errors import InputError
from jaxcnnbp.train.options import Options

__all__ = [
    "Beginning",
    "Ending",
    "Epoch",
    "JsonLines",
    "Lines",
    "Progress",
    "Together",
    "Watch",
    "epoch_line",
    "versions",
]


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


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a run ended."""

    test_error: float
    test_loss: float
    confusion: np.ndarray
    seconds: float


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

    def fail(self, reason: str) -> None:
        """Called instead of `end` if the run diverges."""


class Together(Watch):
    """Several watchers as one.

    Args:
        watches: told in this order.
    """

    def __init__(self, watches: Sequence[Watch]) -> None:
        self._watches = tuple(watches)

    def begin(self, beginning: Beginning) -> None:
        for watch in self._watches:
            watch.begin(beginning)

    def progress(self, progress: Progress) -> None:
        for watch in self._watches:
            watch.progress(progress)

    def epoch(self, epoch: Epoch) -> None:
        for watch in self._watches:
            watch.epoch(epoch)

    def end(self, ending: Ending) -> None:
        for watch in self._watches:
            watch.end(ending)

    def fail(self, reason: str) -> None:
        for watch in self._watches:
            watch.fail(reason)


class Lines(Watch):
    """One readable line an epoch, and one every half minute within a long epoch.

    Args:
        write: receives each line, without its newline.
        every: seconds between two lines within an epoch.
    """

    def __init__(self, write: Callable[[str], None], every: float = 30.0) -> None:
        self._write, self._every, self._total, self._epochs = write, every, 0, 0

    def begin(self, beginning: Beginning) -> None:
        self._epochs = beginning.options.epochs
        self._total = beginning.train_images * self._epochs
        self._since = time.monotonic()

    def progress(self, progress: Progress) -> None:
        if time.monotonic() - self._since < self._every:
            return
        share = 100 * progress.images / self._total
        figures = f"loss {progress.loss:.4f}  error {100 * progress.error:.2f} %"
        self._write(f"epoch {progress.epoch}/{self._epochs}  {figures}  ({share:.0f} % of the run)")
        self._since = time.monotonic()

    def epoch(self, epoch: Epoch) -> None:
        self._write(epoch_line(epoch, self._epochs))
        self._since = time.monotonic()


class JsonLines(Watch):
    """Metrics as JSON lines: one with the configuration, one an epoch, one at the end.

    Args:
        path: the file; an older one is replaced.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, path: Path | str) -> None:
        try:
            self._file: TextIO = Path(path).open("w", encoding="utf-8")  # noqa: SIM115  closed by end or fail
        except OSError as error:
            raise InputError(f"`metrics` (={path}) cannot be written ({error.strerror}).") from error

    def begin(self, beginning: Beginning) -> None:
        device = jax.devices()[0]
        where = {"platform": device.platform, "device": device.device_kind}
        self._line("begin", {**dataclasses.asdict(beginning), "versions": versions(), **where})

    def epoch(self, epoch: Epoch) -> None:
        self._line("epoch", dataclasses.asdict(epoch))

    def end(self, ending: Ending) -> None:
        self._line("end", {**dataclasses.asdict(ending), "confusion": ending.confusion.tolist()})
        self._file.close()

    def fail(self, reason: str) -> None:
        self._line("fail", {"reason": reason})
        self._file.close()

    def _line(self, event: str, values: dict[str, Any]) -> None:
        self._file.write(json.dumps({"event": event, **values}, allow_nan=False) + "\n")
        self._file.flush()


def epoch_line(epoch: Epoch, epochs: int) -> str:
    """The summary of one epoch as one line.

    Args:
        epoch: the epoch.
        epochs: how many there are.

    Returns:
        The line, without a newline.

    Example:
        >>> epoch_line(Epoch(2, 94, 0.5, 0.125, 0.25, 0.06, 1e-3, 2.0, 1500.0), epochs=9)
        'epoch 2/9  train loss 0.5000  error 12.50 %  test loss 0.2500  error  6.00 %  1,500 images/s  2.0 s'
    """
    number = f"epoch {epoch.epoch:{len(str(epochs))}d}/{epochs}"
    train = f"train loss {epoch.train_loss:.4f}  error {100 * epoch.train_error:5.2f} %"
    test = f"test loss {epoch.test_loss:.4f}  error {100 * epoch.test_error:5.2f} %"
    return f"{number}  {train}  {test}  {epoch.images_per_second:,.0f} images/s  {epoch.seconds:.1f} s"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a run's figures depend on.

    Returns:
        Package name to version; a package run from a source tree without metadata is `"unknown"`.

    Example:
        >>> sorted(versions())
        ['jax', 'jaxcnnbp', 'jaxlib', 'numpy', 'optax', 'python']
    """
    packages = ("jaxcnnbp", "jax", "jaxlib", "optax", "numpy")
    return {"python": platform.python_version(), **{package: _version(package) for package in packages}}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
