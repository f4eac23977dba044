"""Figures of a run for TensorBoard."""

from __future__ import annotations

from pathlib import Path

from jaxcnnbp.errors import InputError, require
from jaxcnnbp.train.watch.events import Beginning, Ending, Epoch, Progress, Watch


class TensorBoard(Watch):
    """Losses, errors, learning rate and throughput as TensorBoard's event files.

    Epochs are drawn over the steps, the progress within them over the images. A resumed run goes on in the same folder,
    and what an interrupted one drew beyond its last checkpoint disappears.

    Args:
        folder: where `tensorboard --logdir FOLDER` looks; made if absent.

    Raises:
        InputError: tensorboardX is not installed, or the folder cannot be made.
    """

    def __init__(self, folder: Path | str) -> None:
        self._library = require("tensorboardX", "tensorboardX", "train")
        self._folder, self._early = Path(folder), list[str]()  # notes from before the run began
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"`tensorboard` (={folder}) cannot be made ({error.strerror}).") from error

    def begin(self, beginning: Beginning) -> None:
        purge = beginning.step + 1 if beginning.step else None
        self._writer = self._library.SummaryWriter(str(self._folder), purge_step=purge)
        images = beginning.train_images * len(beginning.history)
        within = str(self._folder / "within_epochs")
        self._within = self._library.SummaryWriter(within, purge_step=images + 1 if beginning.step else None)
        for text in self._early:
            self._writer.add_text("notes", text)

    def progress(self, progress: Progress) -> None:
        self._within.add_scalar("progress/loss", progress.loss, progress.images)
        self._within.add_scalar("progress/error", progress.error, progress.images)

    def epoch(self, epoch: Epoch) -> None:
        figures = {
            "loss/train": epoch.train_loss,
            "loss/test": epoch.test_loss,
            "error/train": epoch.train_error,
            "error/test": epoch.test_error,
            "learning_rate": epoch.learning_rate,
            "images_per_second": epoch.images_per_second,
        }
        if epoch.validation_loss is not None:
            figures |= {"loss/validation": epoch.validation_loss, "error/validation": epoch.validation_error}
        for name, value in figures.items():
            self._writer.add_scalar(name, value, epoch.step)
        self._writer.flush()

    def note(self, text: str) -> None:
        if hasattr(self, "_writer"):
            self._writer.add_text("notes", text)
        else:
            self._early.append(text)

    def end(self, ending: Ending) -> None:
        self._close()

    def fail(self, reason: str) -> None:
        if hasattr(self, "_writer"):
            self._writer.add_text("notes", reason)
            self._close()

    def _close(self) -> None:
        self._writer.close()
        self._within.close()
