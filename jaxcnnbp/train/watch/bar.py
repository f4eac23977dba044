"""The progress bar of a terminal: loss, error, images per second, time left."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from jaxcnnbp.train.watch.events import Beginning, Ending, Epoch, Progress, Watch
from jaxcnnbp.train.watch.lines import epoch_line


class _Speed(ProgressColumn):
    """Images per second, over the last half minute."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} images/s" if task.speed else "", style="cyan")


class Bar(Watch):
    """One bar over the whole run; each finished epoch leaves its line above it.

    A context manager, so that the terminal gets its cursor back however the run ends.
    """

    def __init__(self, console: Console) -> None:
        text = TextColumn("epoch {task.fields[epoch]}")
        figures = TextColumn("[bold]loss {task.fields[loss]:.4f}  error {task.fields[error]:.2f} %")
        columns = (text, BarColumn(bar_width=None), figures, _Speed(), TimeRemainingColumn())
        self._bar = RichProgress(*columns, console=console, transient=True, expand=True, speed_estimate_period=30.0)
        self._epochs = 0

    def begin(self, beginning: Beginning) -> None:
        self._epochs = beginning.options.epochs
        total = beginning.train_images * self._epochs
        done = beginning.train_images * len(beginning.history)
        epoch = f"{min(len(beginning.history) + 1, self._epochs)}/{self._epochs}"
        self._task = self._bar.add_task("", total=total, completed=done, epoch=epoch, loss=0.0, error=0.0)
        self._bar.start()

    def progress(self, progress: Progress) -> None:
        epoch = f"{progress.epoch}/{self._epochs}"
        loss, error = progress.loss, 100 * progress.error
        self._bar.update(self._task, completed=progress.images, epoch=epoch, loss=loss, error=error)

    def epoch(self, epoch: Epoch) -> None:
        self._bar.console.print(epoch_line(epoch, self._epochs), highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def end(self, ending: Ending) -> None:
        self._bar.stop()

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
