"""`jaxcnnbp bench`: layers and training steps by this package, by autodiff and by PyTorch, side by side."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from jaxcnnbp.bench import CASES, PASSES, Results, Settings, check_instrument, load, run, save, select
from jaxcnnbp.bench.run import DTYPES
from jaxcnnbp.bench.table import WIDTH, tables

__all__ = ["bench"]


@click.command()
@click.option("--cases", default="*", show_default=True, help="Layers by shell patterns, after commas; '' for none.")
@click.option("--passes", default=",".join(PASSES), show_default=True, help="Passes, separated by commas.")
@click.option("--dtype", type=click.Choice(DTYPES), default="float32", show_default=True, help="Of everything.")
@click.option("--batch-scale", type=float, default=1.0, show_default=True, help="Factor on the number of images.")
@click.option("--seconds-per-row", type=float, default=2.0, show_default=True, help="Time for the calls of one row.")
@click.option("--torch/--no-torch", default=True, help="Measure PyTorch where it is installed.")
@click.option("--json", "json_path", type=Path, help="Write the results as JSON.")
@click.option("--append", is_flag=True, help="Keep the rows of the --json file that this run does not measure.")
@click.option("--show", type=Path, help="Print stored results, measure nothing.")
@click.option("--self-check", is_flag=True, help="Only time a function against itself; exit code 1 if it is not 1.00.")
def bench(
    cases: str,
    passes: str,
    dtype: str,
    batch_scale: float,
    seconds_per_row: float,
    torch: bool,
    json_path: Path | None,
    append: bool,
    show: Path | None,
    self_check: bool,
) -> None:
    """Time this package against JAX's autodiff and PyTorch, and all of them against the machine's limit."""
    console = _console()
    if show is not None:
        _print(console, load(show))
        return
    try:
        names = select(cases, [case.name for case in CASES])
        chosen = tuple(case for case in CASES if case.name in names)
        settings = Settings(chosen, tuple(select(passes, PASSES)), dtype, batch_scale, seconds_per_row, torch)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if self_check:
        found = check_instrument(settings.with_torch)
        console.print(str(found))
        raise SystemExit(0 if found.ok else 1)
    older = load(json_path) if append and json_path is not None and json_path.exists() else None
    results = _run(settings, json_path, older)
    _print(console, results)


def _run(settings: Settings, path: Path | None, older: Results | None) -> Results:
    def merged(results: Results) -> Results:
        return results if older is None else results.over(older)

    def watch(results: Results) -> None:
        if path is not None:
            save(merged(results), path)
        row = results.rows[-1]
        click.echo(f"{len(results.rows)} rows, {row.case}", err=True)

    results = run(settings, watch)
    if path is not None:
        save(merged(results), path)
    return results


def _console() -> Console:
    console = Console(highlight=False)
    # A file has no width: Rich would fold the table to 80 columns.
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def _print(console: Console, results: Results) -> None:
    for part in tables(results):
        console.print(part)
