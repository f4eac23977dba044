"""The group of commands; each command's module is imported when it is run, so that `--help` is fast."""

from __future__ import annotations

import errno
import importlib
import importlib.metadata
from typing import Any

import click

_COMMANDS = {
    "bench": "Time layers and training steps against autodiff, PyTorch and the limit.",
    "compare": "Compare hand-written gradients with autodiff and a float64 oracle.",
    "explain": "Show the backward pass of a layer or of a trained network: page, picture, text.",
    "tune": "Measure which implementation of its convolutions a program runs fastest with.",
    "train": "Train a shipped model on handwritten digits.",
}


class _Commands(click.Group):
    """Commands that live in modules of their own name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        return getattr(importlib.import_module(f"jaxcnnbp.cli.{cmd_name}"), cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        """A file that cannot be read or written is told in one sentence; click itself knows of a closed pipe."""
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.errno in (None, errno.EPIPE):
                raise
            place = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{place}{error.strerror}.") from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(_COMMANDS.items()))


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    try:
        click.echo(f"jaxcnnbp {importlib.metadata.version('jaxcnnbp')}")
    except importlib.metadata.PackageNotFoundError:
        click.echo("jaxcnnbp, run from a source tree that is not installed")
    ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def main() -> None:
    """Back-propagation of convolutional networks by hand-written rules, in JAX."""
