"""`jaxcnnbp bench`: layers and training steps by this package, by autodiff and by PyTorch, side by side."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from jaxcnnbp.bench import CASES, DTYPES, NETWORKS, PASSES, Results, Settings, check_instrument, load, run, save, select
from jaxcnnbp.bench.compare import changes
from jaxcnnbp.bench.plot import plot_speedups
from jaxcnnbp.bench.table import tables
from jaxcnnbp.cli.compare import console_for_tables
from jaxcnnbp.errors import InputError, check_output
from jaxcnnbp.train.plots import check_picture

_EPILOG = f"""\b
Layers:   {CASES[0].name}, {CASES[1].name}, ... (--list shows all {len(CASES)})
Networks: {", ".join(network.name for network in NETWORKS)}
A name also stands for those that begin with it: --cases vgg --steps u-net."""


@click.command(epilog=_EPILOG)
@click.option("--cases", help="Layers: names or shell patterns, after commas. [default: all, or none with --steps]")
@click.option("--steps", help="Networks to time a training step of. [default: all, or none with --cases]")
@click.option("--passes", default=",".join(PASSES), show_default=True, help="Passes of the layers.")
@click.option("--dtype", type=click.Choice(DTYPES), default="float32", show_default=True, help="Of everything.")
@click.option("--batch-scale", type=float, default=1.0, show_default=True, help="Factor on the number of images.")
@click.option("--steps-a-call", type=int, default=1, show_default=True, help="Training steps in one call (lax.scan).")
@click.option("--seconds-per-row", type=float, default=2.0, show_default=True, help="Time for the calls of one row.")
@click.option("--torch/--no-torch", default=True, help="Measure PyTorch where it is installed.")
@click.option("--keep-memory", is_flag=True, help="Freed memory stays with the process (glibc): no page faults.")
@click.option("--json", "json_path", type=Path, help="Store the results, after each layer.")
@click.option("--append", is_flag=True, help="Keep the rows of the --json file that this run does not measure.")
@click.option("--plot", "plot_path", type=Path, help="Draw the speedups.")
@click.option("--compare", "older_path", type=Path, help="Say what changed since stored results.")
@click.option("--show", "shown_path", type=Path, help="Print stored results and measure nothing.")
@click.option("--list", "listing", is_flag=True, help="Print the layers and networks and measure nothing.")
@click.option("--self-check", is_flag=True, help="Only time a function against itself; exit code 1 unless it is 1.00.")
def bench(
    cases: str | None,
    steps: str | None,
    passes: str,
    json_path: Path | None,
    append: bool,
    plot_path: Path | None,
    older_path: Path | None,
    shown_path: Path | None,
    listing: bool,
    self_check: bool,
    **options: Any,
) -> None:
    """Time this package against JAX's autodiff and PyTorch, and all of them against the limit of the machine.

    The machine should have nothing else to do; each run first times a function against itself and says whether the
    figures can be believed. All layers and networks take about half an hour.
    """
    console = console_for_tables()
    with _sentences():
        settings = _settings(cases, steps, passes, **options)
        if listing or self_check:
            raise SystemExit(_list(console) if listing else _self_check(console, settings))
        _check_files(json_path, plot_path, append)
        before = [None if path is None else load(path) for path in (older_path, shown_path)]
        results = before[1] or _measure(settings, json_path, append)
        for part in tables(results):
            console.print(part)
        if before[0] is not None:
            console.print(changes(results, before[0]))
        if plot_path is not None:
            plot_speedups(plot_path, results)


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    """Errors that are meant for the reader become one sentence instead of a traceback."""
    try:
        yield
    except (InputError, ValueError) as error:
        raise click.UsageError(str(error)) from error


def _settings(cases: str | None, steps: str | None, passes: str, **options: Any) -> Settings:
    if cases is None and steps is None:
        cases = steps = "*"
    wanted, trained = (
        [] if pattern is None else select(pattern, [each.name for each in known], argument)
        for pattern, known, argument in ((cases, CASES, "cases"), (steps, NETWORKS, "steps"))
    )
    options["seconds"] = options.pop("seconds_per_row")
    return Settings(
        cases=tuple(case for case in CASES if case.name in wanted),
        networks=tuple(network for network in NETWORKS if network.name in trained),
        passes=tuple(select(passes, PASSES, "passes")),
        **options,
    )


def _check_files(json_path: Path | None, plot_path: Path | None, append: bool) -> None:
    if append and json_path is None:
        raise InputError("`append` (=True) needs a file to append to; name it by --json.")
    if json_path is not None:
        check_output("json", json_path)
    if plot_path is not None:
        check_picture("plot", plot_path)


def _list(console: Console) -> int:
    for entry in (*CASES, *NETWORKS):
        console.print(f"{entry.name:24} {entry.layer}", soft_wrap=True)
    return 0


def _self_check(console: Console, settings: Settings) -> int:
    found = check_instrument(settings.with_torch)
    console.print(str(found))
    return 0 if found.ok else 1


def _measure(settings: Settings, path: Path | None, append: bool) -> Results:
    older = load(path) if append and path is not None and path.exists() else None
    total = len(settings.cases) + len(settings.networks)
    with _progress(total) as advance:

        def watch(results: Results) -> None:
            last = (results.steps or results.rows)[-1]
            advance(last.case)
            if path is not None:
                save(results if older is None else results.over(older), path)

        results = run(settings, watch)
    if path is not None:
        save(results if older is None else results.over(older), path)
    return results


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Any]:
    """What is done, on standard error, so that a table can be piped."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda name: click.echo(f"measured {name}", err=True)
        return
    times = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*times, TextColumn("{task.description}"), console=console, transient=True) as progress:
        task = progress.add_task("self-check", total=total)
        yield lambda name: progress.update(task, advance=1, description=f"after {name}")
