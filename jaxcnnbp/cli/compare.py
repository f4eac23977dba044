"""`jaxcnnbp compare`: the gradients of a shipped model, or of any function, by hand-written rules, by autodiff and by
the float64 oracle.
"""

from __future__ import annotations

import importlib
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any

import click
import jax
import jax.numpy as jnp
from click.core import ParameterSource
from rich.console import Console

from jaxcnnbp.audit import GradientReport, compare_gradients
from jaxcnnbp.errors import InputError, check_output
from jaxcnnbp.nn.models import MODELS, ModelSpec

CLASSES = 10
SEEDS = click.IntRange(min=0, max=2**32 - 1)
WIDTH = 120  # of tables that are piped
PACKAGE = Path(__file__).parents[1]


@click.command()
@click.argument("function", required=False, metavar="[MODULE:FUNCTION]")
@click.option("--args", "args_path", metavar="MODULE:ARGS", help="Arguments of FUNCTION: a tuple, or what returns one.")
@click.option("--model", type=click.Choice(tuple(MODELS)), default="lenet5", show_default=True, help="Shipped model.")
@click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True, help="Images in the batch.")
@click.option(
    "--dtype",
    type=click.Choice(("float64", "float32", "bfloat16", "float16")),
    default="float32",
    show_default=True,
    help="Of parameters, images and gradients; of the real float arguments of FUNCTION, if given.",
)
@click.option("--seed", type=SEEDS, default=0, show_default=True, help="Of parameters and images.")
@click.option("--json", "json_path", type=Path, help="Write the report as JSON.")
@click.option("--html", "html_path", type=Path, help="Write the report as a page: one file, works offline.")
@click.option("--plot", "plot_path", type=Path, help="Draw the error map of the worst leaf.")
@click.option("--timing/--no-timing", default=True, help="Measure time and memory.")
@click.pass_context
def compare(
    ctx: click.Context,
    function: str | None,
    args_path: str | None,
    model: str,
    batch: int,
    dtype: str,
    seed: int,
    json_path: Path | None,
    html_path: Path | None,
    plot_path: Path | None,
    timing: bool,
) -> None:
    """Compare hand-written gradients, per parameter, with autodiff and a float64 oracle.

    Those of MODULE:FUNCTION at the arguments that --args names, or of a shipped model. The exit code is 1 if one of
    them is further off than rounding explains, 2 if there is nothing to compare.
    """
    check_outputs(json_path, html_path, plot_path)
    require_both(function, args_path)
    typed = typed_options(ctx)
    if function is not None and (other := typed & {"model", "batch"}):
        raise click.UsageError(f"--{min(other)} is of the shipped models; MODULE:FUNCTION takes what --args gives.")
    with jax.enable_x64(dtype == "float64" or jax.config.read("jax_enable_x64")):
        try:
            report = (
                report_of(MODELS[model], batch, dtype, seed, timing)
                if function is None
                else report_of_function(function, args_path or "", dtype if "dtype" in typed else None, seed, timing)
            )
        except InputError as error:
            raise click.UsageError(str(error)) from error
    console_for_tables().print(report)
    if json_path is not None:
        json_path.write_text(report.to_json() + "\n", encoding="utf-8")
    if html_path is not None:
        title = f"Gradients of {function}" if function else f"Gradients of {model}, {batch} images, {dtype}"
        report.save_html(html_path, title, command_of(ctx))
    if plot_path is not None:
        _plot(report, plot_path)
    raise SystemExit(0 if report.ok else 1)


def typed_options(ctx: click.Context) -> set[str]:
    """The parameters that the command line says, and not a default."""
    return {name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}


def console_for_tables() -> Console:
    """Standard output; a file has no width, and Rich would fold tables to 80 columns."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def report_of(spec: ModelSpec, batch: int, dtype: str, seed: int, timing: bool) -> GradientReport:
    """The report on a model with random parameters, images and classes."""
    model, kind = spec.build(), jnp.dtype(dtype)
    for_params, for_images, for_classes = jax.random.split(jax.random.key(seed), 3)
    params = model.init(for_params, (batch, *spec.input_shape), dtype=kind)
    images = jax.random.normal(for_images, (batch, *spec.input_shape), kind)
    targets = jax.nn.one_hot(jax.random.randint(for_classes, (batch,), 0, CLASSES), CLASSES, dtype=kind)
    loss = _loss_of(model, spec.loss, targets)
    return compare_gradients(loss, params, images, seed=seed, timing=timing)


def report_of_function(function: str, args_path: str, dtype: str | None, seed: int, timing: bool) -> GradientReport:
    """The report on the function that `function` names at the arguments that `args_path` names, in `dtype` if given."""
    fun, args = function_and_arguments(function, args_path)
    if dtype is not None:
        args = jax.tree.map(lambda a: _in_dtype(a, dtype), args)
    with told_apart(f"{function} cannot be compared"):
        return compare_gradients(fun, *args, seed=seed, timing=timing)


def _in_dtype(leaf: Any, dtype: str) -> Any:
    return jnp.asarray(leaf, dtype) if jnp.issubdtype(getattr(leaf, "dtype", type(leaf)), jnp.floating) else leaf


@contextmanager
def told_apart(what: str) -> Iterator[None]:
    """An exception of the user's own code, with its traceback, as nothing to compare, not as a wrong gradient."""
    try:
        yield
    except click.ClickException:
        raise
    except Exception as error:
        raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        if not raised_in.is_relative_to(PACKAGE):
            traceback.print_exc()
        raise click.UsageError(f"{what}: {str(error) or type(error).__name__}") from error


def require_both(function: str | None, args_path: str | None) -> None:
    """Refuses a function without its arguments, and the reverse."""
    if (function is None) != (args_path is None):
        raise click.UsageError("MODULE:FUNCTION and --args MODULE:ARGS go together; give both, or neither.")


def function_and_arguments(function: str, args_path: str) -> tuple[Callable[..., Any], Sequence[Any]]:
    """The function that `function` names, and the arguments that `args_path` names."""
    fun, args = _named(function, "MODULE:FUNCTION"), _named(args_path, "--args")
    if callable(args):
        with told_apart(f"--args {args_path} fails"):
            args = args()
    if not callable(fun) or not isinstance(args, (tuple, list)):
        raise click.UsageError(
            f"{function} (={fun!r}) must be a function, and --args {args_path} (of {type(args).__name__}) a tuple of"
            " its arguments."
        )
    return fun, args


def _named(path: str, what: str) -> Any:
    """The object at `module:name`; modules of the current folder too."""
    module, _, name = path.partition(":")
    if not module or not name:
        raise click.UsageError(f"{what} (={path!r}) must read module:name, such as my_layers:attention.")
    with told_apart(f"{what} (={path!r}) cannot be imported"), _current_folder():
        try:
            return attrgetter(name)(importlib.import_module(module))
        except (ImportError, AttributeError, SyntaxError) as error:
            raise click.UsageError(f"{what} (={path!r}) is not there: {error}") from error


@contextmanager
def _current_folder() -> Iterator[None]:
    sys.path.insert(0, "")
    try:
        yield
    finally:
        sys.path.remove("")


def _loss_of(model: Any, loss: Callable[..., Any], targets: jax.Array) -> Callable[..., Any]:
    def of(params: Any, images: jax.Array) -> jax.Array:
        return loss(model.apply(params, images), targets)

    return of


def command_of(ctx: click.Context) -> str:
    """The command line that says all that this run was told, defaults included."""
    parts = [ctx.command_path.split()[-1]]
    for parameter in ctx.command.params:
        value = ctx.params.get(parameter.name or "")
        flags = [*parameter.opts, *parameter.secondary_opts]
        if isinstance(parameter, click.Argument):
            parts += [] if value is None else [str(value)]
        elif isinstance(value, bool):
            parts.append(flags[0] if value else flags[-1])
        elif value is not None:
            parts += [flags[0], str(value)]
    return shlex.join(["jaxcnnbp", *parts])


def check_outputs(*paths: Path | None) -> None:
    """Refuses what cannot become a file, before anything is computed."""
    for path in paths:
        try:
            if path is not None:
                check_output("output", path)
        except InputError as error:
            raise click.BadParameter(str(error)) from error


def _plot(report: GradientReport, path: Path) -> None:
    try:
        report.plot(path=path)
    except ValueError as error:
        raise click.ClickException(f"{path} cannot be drawn: {error}") from error
