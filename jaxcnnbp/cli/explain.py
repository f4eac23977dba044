"""`jaxcnnbp explain`: a layer with its numbers, or a digit on its way through a network, as page, picture or text."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console

from jaxcnnbp import explain as explaining
from jaxcnnbp.cli.compare import SEEDS, check_outputs
from jaxcnnbp.nn.models import MODELS
from jaxcnnbp.ops.pool.parse import TIES


class _Numbers(click.ParamType):
    """Ints along the axes, `6x6`; one alone stands for all axes."""

    name = "N or NxN"

    def __init__(self, least: int = 1):
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        if not re.fullmatch(r"\d+(x\d+)*", value):
            self.fail(f"{value!r} must be a number, or one an axis with x between them, such as 6x6.", param, ctx)
        numbers = tuple(map(int, value.split("x")))
        if min(numbers) < self.least:
            self.fail(f"{value!r} must be at least {self.least} along every axis.", param, ctx)
        return numbers


class _Padding(_Numbers):
    """A word, a number, numbers an axis as `1x2`, or (low, high) pairs as `1:2x0:1`."""

    name = "N, NxN, LOW:HIGHx.. or a word"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and value.isalpha():
            return value.upper()
        if isinstance(value, str) and re.fullmatch(r"-?\d+(:-?\d+)?(x-?\d+(:-?\d+)?)*", value):
            pairs = [entry.split(":") for entry in value.split("x")]
            return tuple((int(entry[0]), int(entry[-1])) for entry in pairs)
        return self.fail(
            f"{value!r} must be a word as SAME, a number, numbers as 1x2, or pairs as 1:2x0:1.", param, ctx
        )


class _Array(click.ParamType):
    """A file of numbers that NumPy reads."""

    name = "FILE.npy"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> np.ndarray:
        try:
            array = np.load(value, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            # Not NumPy's words, which advise a way that runs whatever the file says.
            reason = error.strerror if isinstance(error, OSError) else "no .npy file of numbers"
            self.fail(f"{value} cannot be read as an array ({reason}); write it by numpy.save.", param, ctx)
        if not isinstance(array, np.ndarray):
            self.fail(f"{value} holds several arrays; write one by numpy.save.", param, ctx)
        return array


def _option(*names: str, **settings: Any) -> Callable:
    return click.option(*names, **settings)


_OUTPUTS = (
    _option("--html", "html_path", type=Path, help="Write the interactive page: one file, works offline."),
    _option("--png", "png_path", type=Path, help="Draw the picture; .svg and .pdf are drawn as well."),
    _option("--text", is_flag=True, help="Print as text; this is done anyway if no file is asked for."),
)
_SEED = _option("--seed", type=SEEDS, default=0, show_default=True, help="Of the numbers drawn.")
_WINDOW = (
    _option("--padding", type=_Padding(0), default="0", show_default=True, help="Around the input."),
    _option("--dilation", type=_Numbers(), default="1", show_default=True, help="Positions from tap to tap."),
    _option("--delta-values", "delta", type=_Array(), help="Gradient of the loss by the output."),
    _SEED,
)


def _group(*options: Callable) -> Callable[[Callable], Callable]:
    def decorate(command: Callable) -> Callable:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _convolution_options(stride: str, size: str, kernel: str) -> Callable[[Callable], Callable]:
    return _group(
        _option(
            "--input", "input_shape", type=_Numbers(), default=size, show_default=True, help="Extents of the input."
        ),
        _option("--kernel", "kernel_shape", type=_Numbers(), default=kernel, show_default=True, help="Extents."),
        _option("--values", type=_Array(), help="The input's numbers, instead of drawn ones: (*spatial[, channels])."),
        _option("--kernel-values", type=_Array(), help="The kernel's numbers: (*window[, in, out])."),
        _option("--stride", type=_Numbers(), default=stride, show_default=True, help="From output to output."),
        *_WINDOW,
        *_OUTPUTS,
    )


def _pool_options(own: Callable) -> Callable[[Callable], Callable]:
    return _group(
        _option(
            "--input", "input_shape", type=_Numbers(), default="6x6", show_default=True, help="Extents of the input."
        ),
        _option("--window", type=_Numbers(), default="2", show_default=True, help="Taps."),
        _option("--values", type=_Array(), help="The input's numbers, instead of drawn ones: (*spatial[, channels])."),
        _option("--stride", type=_Numbers(), help="From window to window; the window's size by default."),
        _option("--ceil-mode", is_flag=True, help="The last, partial window counts."),
        own,
        *_WINDOW,
        *_OUTPUTS,
    )


@click.group()
def explain() -> None:
    """Show a backward pass: a layer in numbers, or a digit in a trained network.

    Every number is computed by the rules of the package; how far autodiff is from it stands beside it.
    """


@explain.command("conv")
@_convolution_options("1", "6x6", "3x3")
@click.option("--flip", is_flag=True, help="True convolution: the kernel is flipped.")
def conv(flip: bool, **given: Any) -> None:
    """A convolution, 2-D: windows, the flipped kernel over the deltas, the kernel's gradient."""
    _show_convolution(explaining.conv, flip, given)


@explain.command("conv1d")
@_convolution_options("1", "8", "3")
@click.option("--flip", is_flag=True, help="True convolution: the kernel is flipped.")
def conv1d(flip: bool, **given: Any) -> None:
    """A convolution along one axis."""
    _show_convolution(explaining.conv1d, flip, given)


@explain.command("conv-transpose")
@_convolution_options("2", "3x3", "3x3")
@click.option("--flip/--no-flip", default=True, help="Stamp the kernel as it stands (PyTorch), or as lax does.")
def conv_transpose(flip: bool, **given: Any) -> None:
    """A transposed convolution; --padding makes the output smaller, as in PyTorch."""
    _show_convolution(explaining.conv_transpose, flip, given)


@explain.command("max-pool")
@_pool_options(_option("--ties", type=click.Choice(TIES), default="first", show_default=True, help="Who gets delta."))
def max_pool(ties: str, **given: Any) -> None:
    """Max pooling: the winners, and the deltas upsampled to them."""
    _show_pool(explaining.max_pool, {"ties": ties}, given)


@explain.command("mean-pool")
@_pool_options(_option("--count-padding/--no-count-padding", "counted", default=True, help="Whether padding counts."))
def mean_pool(counted: bool, **given: Any) -> None:
    """Mean pooling: how many cells each window counts, and the deltas shared among them."""
    _show_pool(explaining.mean_pool, {"count_include_pad": counted}, given)


@explain.command("model")
@click.argument("name", type=click.Choice(tuple(MODELS)), default="lenet5")
@click.option("--sample", type=click.IntRange(min=0), default=7, show_default=True, help="Number of the test image.")
@click.option("--weights", type=Path, help="Trained parameters, as `jaxcnnbp train --save` writes them.")
@click.option("--data-dir", type=Path, help="Folder of MNIST-format files; else scikit-learn's digits are taken.")
@click.option("--standardize", is_flag=True, help="The weights want pixels of mean 0, deviation 1, as the recipes do.")
@click.option("--cache/--no-cache", default=True, help="Keep trained weights in the user's cache for the next time.")
@_group(_SEED, *_OUTPUTS)
def model(name: str, html_path: Path | None, png_path: Path | None, text: bool, **given: Any) -> None:
    """One digit through a trained network and back: activations, deltas, kernel gradients.

    Without --weights the network is trained first, for some seconds.
    """
    check_outputs(html_path, png_path)
    with _sentences():
        walk = explaining.model(name, say=lambda line: click.echo(line, err=True), **given)
        _write(walk, html_path, png_path, text)


def _show_convolution(function: Callable, flip: bool, given: dict[str, Any]) -> None:
    x, kernel = given.pop("values"), given.pop("kernel_values")
    shapes = {"x": given.pop("input_shape"), "kernel": given.pop("kernel_shape")}
    rank = 1 if function is explaining.conv1d else 2
    arrays = [
        _spread(shapes["x"], rank) if x is None else x,
        _spread(shapes["kernel"], rank) if kernel is None else kernel,
    ]
    if x is not None and kernel is None and x.ndim == rank + 1:
        arrays[1] = (*_spread(shapes["kernel"], rank), x.shape[-1], 1)
    _show(function, arrays, given, {"flip": flip}, rank)


def _show_pool(function: Callable, own: dict[str, Any], given: dict[str, Any]) -> None:
    x, shape = given.pop("values"), given.pop("input_shape")
    rank = (len(shape) if len(shape) < 3 else 2) if x is None else min(x.ndim, 2)
    own |= {"ceil_mode": given.pop("ceil_mode")}
    window = _per_axis(given.pop("window"))
    _show(function, [shape if x is None else x, window], given, own, rank)


def _show(function: Callable, arrays: list[Any], given: dict[str, Any], own: dict[str, Any], rank: int) -> None:
    html_path, png_path, text = (given.pop(name) for name in ("html_path", "png_path", "text"))
    check_outputs(html_path, png_path)
    stride, padding, dilation = (_per_axis(given.pop(name)) for name in ("stride", "padding", "dilation"))
    if isinstance(padding, tuple) and not isinstance(padding[0], tuple):
        padding = (padding,) * rank
    with _sentences():
        shown = function(*arrays, stride=stride, padding=padding, dilation=dilation, **own, **given)
        _write(shown, html_path, png_path, text)


def _per_axis(value: Any) -> Any:
    """One entry stands for all axes."""
    return value[0] if isinstance(value, tuple) and len(value) == 1 else value


def _spread(shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    return shape * rank if len(shape) == 1 else shape


def _write(shown: Any, html_path: Path | None, png_path: Path | None, text: bool) -> None:
    if html_path is not None:
        shown.save_html(html_path)
        click.echo(f"{html_path}: open it in a browser.", err=True)
    if png_path is not None:
        shown.plot(png_path)
    if text or (html_path is None and png_path is None):
        console = Console(highlight=False)
        # Colours mark what meets; where there are none, the plain text has marks of its own.
        console.print(shown) if console.is_terminal else click.echo(str(shown))


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    """Refusals, which are sentences, instead of tracebacks."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        raise click.ClickException(str(error)) from error
