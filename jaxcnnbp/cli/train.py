"""`jaxcnnbp train`: the options of `jaxcnnbp.train.Options` and `Run`, and what to write about the run.

Exit codes: 0 finished; 1 diverged; 2 input that cannot be used; 69 another process is lost; 74 the last checkpoint
could not be written; 75 stopped by SIGTERM or SIGINT, and saved.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from jaxcnnbp import train as training
from jaxcnnbp.cli.compare import typed_options
from jaxcnnbp.errors import check_output
from jaxcnnbp.train.diagnose import gradient_report
from jaxcnnbp.train.options import RECIPES
from jaxcnnbp.train.plots import check_picture, plot_curves, plot_kernels
from jaxcnnbp.train.processes import LOST_EXIT_CODE, heeded
from jaxcnnbp.train.watch.bar import Bar
from jaxcnnbp.train.watch.confusion import confusion_summary

_EPILOG = """\b
Recipes:
{recipes}

\b
Exit codes:
  0   finished
  1   the loss diverged; the last good state is kept
  2   options, data or checkpoints that cannot be used
  69  another process of the run does not answer
  74  the last checkpoint could not be written
  75  stopped by SIGTERM or SIGINT, and saved: the same command with --resume goes on"""


_CODES = {
    training.InputError: 2,  # of a wrong command line
    training.Diverged: 1,
    training.SaveFailed: 74,  # EX_IOERR of sysexits.h
    training.Stopped: 75,  # EX_TEMPFAIL: try again later, with --resume
    training.Lost: LOST_EXIT_CODE,
}


class _Ended(click.ClickException):
    """One sentence, and the exit code that goes with the error."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        code = next(code for kind, code in _CODES.items() if isinstance(error, kind))
        self.exit_code = code  # pyright: ignore[reportAttributeAccessIssue] - click declares it of the class


def _add_options(options: type) -> Callable[[Callable], Callable]:
    """One command-line option for every field; click lists them in the reverse order of addition."""

    def add(command: Callable) -> Callable:
        kinds = typing.get_type_hints(options)
        for field in reversed(dataclasses.fields(options)):
            flag = "--" + field.name.replace("_", "-")
            command = click.option(flag, field.name, **_settings(field, kinds[field.name]))(command)
        return command

    return add


def _settings(field: dataclasses.Field, kind: Any) -> dict[str, Any]:
    if isinstance(kind, types.UnionType):
        kind = next(member for member in typing.get_args(kind) if member is not type(None))
    default = field.default
    common = {"help": field.metadata["help"], "default": default, "show_default": default is not None}
    if kind is bool:
        return {**common, "is_flag": True}
    choices = field.metadata["choices"]
    return {**common, "type": click.Choice(choices) if choices else kind}


@click.command(epilog=_EPILOG.format(recipes="\n".join(f"  {name}: {r.summary}" for name, r in RECIPES.items())))
@click.option("--recipe", type=click.Choice(tuple(RECIPES)), help="Options of a documented result.")
@_add_options(training.Options)
@_add_options(training.Run)
@click.option("--metrics", type=Path, help="Write configuration and figures of every epoch as JSON lines.")
@click.option("--tensorboard", type=Path, help="Write figures for TensorBoard into this folder.")
@click.option("--curves", type=Path, help="Draw loss and error over the epochs.")
@click.option("--kernels", type=Path, help="Draw the learned kernels of the first convolution.")
@click.option("--save", type=Path, help="Write the parameters (.npz): the last ones, with validation the best ones.")
@click.option("--report", is_flag=True, help="Then compare the model's gradients with autodiff.")
@click.option("--quiet", is_flag=True, help="Print nothing but the error rate at the end.")
@click.pass_context
def train(ctx: click.Context, recipe: str | None, report: bool, quiet: bool, **values: Any) -> None:
    """Train a shipped model and test it after every epoch.

    Without options it trains a small network on scikit-learn's 8x8 handwritten digits.
    """
    files = {name: values.pop(name) for name in ("metrics", "tensorboard", "curves", "kernels", "save")}
    with _sentences(alone=values["coordinator"] is None), heeded() as stop:
        run = training.Run(**{field.name: values.pop(field.name) for field in dataclasses.fields(training.Run)})
        options = _options(ctx, recipe, values)
        _check_files(files)
        result = _train(options, run, files, quiet, stop)
        if not run.process_id:
            _write_files(result, files)
            _print_result(result, report, quiet)


@contextlib.contextmanager
def _sentences(alone: bool) -> Iterator[None]:
    """Errors that are meant for the reader become one sentence and an exit code instead of a traceback."""
    try:
        yield
    except tuple(_CODES) as error:
        ended = _Ended(error)
        if alone or isinstance(error, training.Stopped | training.Diverged):
            raise ended from error
        # The other processes did not agree to end, and JAX would wait for them at Python's end.
        ended.show()
        sys.stdout.flush()
        os._exit(ended.exit_code)


def _options(ctx: click.Context, recipe: str | None, values: dict[str, Any]) -> training.Options:
    typed = typed_options(ctx) & values.keys()
    if {"data", "data_dir"} <= typed:
        raise training.InputError("`data` and `data_dir` both name the data; give one of them.")
    chosen = RECIPES[recipe].options if recipe else {}
    return training.Options(**{**chosen, **{name: values[name] for name in typed}})


def _check_files(files: dict[str, Path | None]) -> None:
    for option, path in files.items():
        if path is not None and option != "tensorboard":
            (check_picture if option in ("curves", "kernels") else check_output)(option, path)


def _train(
    options: training.Options, run: training.Run, files: dict[str, Path | None], quiet: bool, stop: Callable[[], bool]
) -> training.Result:
    with contextlib.ExitStack() as stack:
        # Of several processes, the first one speaks for all.
        watches = [] if run.process_id else _watches(stack, files, quiet)
        return training.train(options, watches=watches, run=run, stop=stop)


def _watches(stack: contextlib.ExitStack, files: dict[str, Path | None], quiet: bool) -> list[training.Watch]:
    console = Console()
    bar = not quiet and console.is_terminal
    shown = stack.enter_context(Bar(console)) if bar else _Notes() if quiet else training.Lines(click.echo)
    watches: list[training.Watch] = [shown]
    if files["metrics"] is not None:
        watches.append(training.JsonLines(files["metrics"], shown.note))
    if files["tensorboard"] is not None:
        watches.append(training.TensorBoard(files["tensorboard"]))
    return watches


class _Notes(training.Watch):
    """What remains of a quiet run: what goes wrong without ending it."""

    def note(self, text: str) -> None:
        click.echo(text, err=True)


def _write_files(result: training.Result, files: dict[str, Path | None]) -> None:
    title = f"{result.model} on {result.data.name}"
    if files["curves"] is not None:
        plot_curves(files["curves"], result.history, title)
    if files["kernels"] is not None:
        plot_kernels(files["kernels"], result.params, title)
    if files["save"] is not None:
        training.save_params(files["save"], result.params if result.best_score is None else result.best_params)


def _print_result(result: training.Result, report: bool, quiet: bool) -> None:
    best = result.best
    score = result.score if result.best_score is None else result.best_score
    summary = confusion_summary(score.confusion, names=result.data.names)
    if result.best_score is not None and best.validation_error is not None and not quiet:
        lowest = f"lowest validation error: {100 * best.validation_error:.2f} % after epoch {best.epoch}"
        click.echo(f"\n{lowest}; what follows, and --save, is the model of that epoch")
    click.echo(summary.splitlines()[-1] if quiet else f"\n{summary}")
    if result.best_score is None and not quiet and best.epoch < len(result.history):
        click.echo(f"lowest test error: {100 * result.best.test_error:.2f} % after epoch {result.best.epoch}")
    if report:
        click.echo(f"\n{gradient_report(result.program, result.params, result.data.test)}")
