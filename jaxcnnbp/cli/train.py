"""`jaxcnnbp train`: the options of `jaxcnnbp.train.Options`, and what to write about the run."""

from __future__ import annotations

import contextlib
import dataclasses
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console

from jaxcnnbp import train as training
from jaxcnnbp.train.confusion import confusion_summary
from jaxcnnbp.train.outputs import check_output, check_picture
from jaxcnnbp.train.pictures import plot_curves, plot_kernels
from jaxcnnbp.train.progress import Bar
from jaxcnnbp.train.recipes import RECIPES, recipe_options
from jaxcnnbp.train.report import gradient_report

__all__ = ["train"]

_FIELDS = dataclasses.fields(training.Options)
_TYPES = typing.get_type_hints(training.Options)
_EPILOG = "\b\nRecipes:\n" + "\n".join(f"  {name}: {recipe.summary}" for name, recipe in RECIPES.items())


class _Refusal(click.ClickException):
    """Input that cannot be used: one sentence, and the exit code of a wrong command line."""

    exit_code = 2


def _add_options(command: Callable) -> Callable:
    """One option for every field of `Options`; click lists them in the reverse order of addition."""
    for field in reversed(_FIELDS):
        flag = "--" + field.name.replace("_", "-")
        command = click.option(flag, field.name, **_settings(field))(command)
    return command


def _settings(field: dataclasses.Field) -> dict[str, Any]:
    kind = _TYPES[field.name]
    if isinstance(kind, types.UnionType):
        kind = next(member for member in typing.get_args(kind) if member is not type(None))
    default = field.default
    common = {"help": field.metadata["help"], "default": default, "show_default": default is not None}
    if kind is bool:
        return {**common, "is_flag": True}
    choices = field.metadata["choices"]
    return {**common, "type": click.Choice(choices) if choices else kind}


@click.command(epilog=_EPILOG)
@click.option("--recipe", type=click.Choice(tuple(RECIPES)), help="Options of a documented result.")
@_add_options
@click.option("--metrics", type=Path, help="Write configuration and figures of every epoch as JSON lines.")
@click.option("--curves", type=Path, help="Draw loss and error over the epochs.")
@click.option("--kernels", type=Path, help="Draw the learned kernels of the first convolution.")
@click.option("--save", type=Path, help="Write the parameters (.npz).")
@click.option("--report", is_flag=True, help="Then compare the model's gradients with autodiff.")
@click.option("--quiet", is_flag=True, help="Print nothing but the error rate at the end.")
@click.pass_context
def train(ctx: click.Context, recipe: str | None, report: bool, quiet: bool, **values: Any) -> None:
    """Train a shipped model and test it after every epoch.

    Without options it trains a small network on scikit-learn's 8x8 handwritten digits.
    """
    files = {name: values.pop(name) for name in ("metrics", "curves", "kernels", "save")}
    with _sentences():
        options = _options(ctx, recipe, values)
        _check_files(files)
        result = _train(options, files["metrics"], quiet)
        _write_files(result, files)
        _print_result(result, report, quiet)


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    """Errors that are meant for the reader become one sentence instead of a traceback."""
    try:
        yield
    except training.InputError as error:
        raise _Refusal(str(error)) from error
    except training.Diverged as error:
        raise click.ClickException(str(error)) from error


def _options(ctx: click.Context, recipe: str | None, values: dict[str, Any]) -> training.Options:
    typed = {name for name in values if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    if {"data", "data_dir"} <= typed:
        raise training.InputError("`data` and `data_dir` both name the data; give one of them.")
    chosen = recipe_options(recipe) if recipe else {}
    return training.Options(**{**chosen, **{name: values[name] for name in typed}})


def _check_files(files: dict[str, Path | None]) -> None:
    for option, path in files.items():
        if path is not None:
            (check_picture if option in ("curves", "kernels") else check_output)(option, path)


def _train(options: training.Options, metrics: Path | None, quiet: bool) -> training.Result:
    with contextlib.ExitStack() as stack:
        watches: list[training.Watch] = []
        if not quiet:
            console = Console()
            shown = stack.enter_context(Bar(console)) if console.is_terminal else training.Lines(click.echo)
            watches.append(shown)
        if metrics is not None:
            watches.append(training.JsonLines(metrics))
        return training.train(options, watches=watches)


def _write_files(result: training.Result, files: dict[str, Path | None]) -> None:
    title = f"{result.model} on {result.data.name}"
    if files["curves"] is not None:
        plot_curves(files["curves"], result.history, title)
    if files["kernels"] is not None:
        plot_kernels(files["kernels"], result.params, title)
    if files["save"] is not None:
        training.save_params(files["save"], result.params)


def _print_result(result: training.Result, report: bool, quiet: bool) -> None:
    summary = confusion_summary(result.score.confusion)
    click.echo(summary.splitlines()[-1] if quiet else f"\n{summary}")
    if report:
        click.echo(f"\n{gradient_report(result)}")
