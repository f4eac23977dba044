"""`jaxcnnbp compare`: the gradients of a shipped model by hand-written rules, by autodiff and by the float64
oracle.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import jax
import jax.numpy as jnp
from rich.console import Console

from jaxcnnbp.audit import GradientReport, compare_gradients
from jaxcnnbp.nn.models import MODELS, ModelSpec

__all__ = ["compare"]

CLASSES = 10
PIPED_WIDTH = 120


@click.command()
@click.option("--model", type=click.Choice(tuple(MODELS)), default="lenet5", show_default=True, help="Shipped model.")
@click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True, help="Images in the batch.")
@click.option(
    "--dtype",
    type=click.Choice(("float64", "float32", "bfloat16", "float16")),
    default="float32",
    show_default=True,
    help="Of parameters, images and gradients.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of parameters and images.")
@click.option("--json", "json_path", type=Path, help="Write the report as JSON.")
@click.option("--html", "html_path", type=Path, help="Write the report as a page: one file, works offline.")
@click.option("--plot", "plot_path", type=Path, help="Draw the error map of the worst leaf.")
@click.option("--timing/--no-timing", default=True, help="Measure time and memory.")
@click.pass_context
def compare(
    ctx: click.Context,
    model: str,
    batch: int,
    dtype: str,
    seed: int,
    json_path: Path | None,
    html_path: Path | None,
    plot_path: Path | None,
    timing: bool,
) -> None:
    """Compare a model's hand-written gradients, per parameter, with autodiff and a float64 oracle.

    The exit code is 1 if one of them is further off than rounding explains.
    """
    check_folders(json_path, html_path, plot_path)
    with jax.enable_x64(dtype == "float64" or jax.config.read("jax_enable_x64")):
        report = report_of(MODELS[model], batch, dtype, seed, timing)
    _print(report)
    if json_path is not None:
        json_path.write_text(report.to_json() + "\n", encoding="utf-8")
    if html_path is not None:
        report.save_html(html_path, f"Gradients of {model}, {batch} images, {dtype}", command_of(ctx))
    if plot_path is not None:
        _plot(report, plot_path)
    raise SystemExit(0 if report.ok else 1)


def _print(report: GradientReport) -> None:
    console = Console(highlight=False)
    # A file has no width: Rich would fold the tables to 80 columns.
    (console if console.is_terminal else Console(highlight=False, width=PIPED_WIDTH)).print(report)


def report_of(spec: ModelSpec, batch: int, dtype: str, seed: int, timing: bool) -> GradientReport:
    """The report on a model with random parameters, images and classes."""
    model, kind = spec.build(), jnp.dtype(dtype)
    for_params, for_images, for_classes = jax.random.split(jax.random.key(seed), 3)
    params = model.init(for_params, (batch, *spec.input_shape), dtype=kind)
    images = jax.random.normal(for_images, (batch, *spec.input_shape), kind)
    targets = jax.nn.one_hot(jax.random.randint(for_classes, (batch,), 0, CLASSES), CLASSES, dtype=kind)
    loss = _loss_of(model, spec.loss, targets)
    return compare_gradients(loss, params, images, seed=seed, timing=timing)


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
        if isinstance(value, bool):
            parts.append(flags[0] if value else flags[-1])
        elif value is not None:
            parts += [flags[0], str(value)]
    return shlex.join(["jaxcnnbp", *parts])


def check_folders(*paths: Path | None) -> None:
    """Refuses files in folders that do not exist, before anything is computed."""
    for path in paths:
        if path is not None and not path.parent.is_dir():
            raise click.BadParameter(f"the folder of {path} does not exist; create it or name another file.")


def _plot(report: GradientReport, path: Path) -> None:
    try:
        report.plot(path=path)
    except (ModuleNotFoundError, ValueError) as error:
        raise click.ClickException(f"{path} cannot be drawn: {error}") from error
