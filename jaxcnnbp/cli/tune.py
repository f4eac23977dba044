"""`jaxcnnbp tune`: measures implementations, for a program, for a shipped table, or to judge the choice without one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import click
import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxcnnbp.bench import NETWORKS
from jaxcnnbp.bench.own_models import own_model
from jaxcnnbp.cli.compare import SEEDS, check_outputs, function_and_arguments, require_both, told_apart
from jaxcnnbp.nn.models import MODELS
from jaxcnnbp.ops.conv.measured import Measured
from jaxcnnbp.tune.autotune import autotune
from jaxcnnbp.tune.regret import PASSES, Regret, measured_problems, regret_of

_EPILOG = """\b
Without a target: --table adds random problems to a file for as long as --seconds, --regret measures so many and says
how far the choice without a tuning is from the best."""


@click.command(epilog=_EPILOG)
@click.argument("function", required=False, metavar="[MODULE:FUNCTION]")
@click.option("--args", "arguments", metavar="MODULE:ARGS", help="Arguments of FUNCTION, as `jaxcnnbp compare` takes.")
@click.option("--model", type=click.Choice(tuple(MODELS)), help="The loss of a shipped model.")
@click.option("--network", type=click.Choice([n.name for n in NETWORKS]), help="The loss of a network of `bench`.")
@click.option("--batch", type=click.IntRange(min=1), default=32, show_default=True, help="Images, with --model.")
@click.option("--dtype", type=click.Choice(("float32", "bfloat16", "float64")), default="float32", show_default=True)
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=60.0, show_default=True)
@click.option("-o", "--output", type=Path, help="Where the tuning goes, for JAXCNNBP_TUNING; or the table.")
@click.option("--table", is_flag=True, help="Measure random problems for a table; a file that exists is continued.")
@click.option("--regret", type=click.IntRange(min=1), metavar="N", help="Judge the choice on N random layers.")
@click.option("--seed", type=SEEDS, default=1, show_default=True, help="Of random problems.")
def tune(
    function: str | None,
    arguments: str | None,
    model: str | None,
    network: str | None,
    batch: int,
    dtype: str,
    seconds: float,
    output: Path | None,
    table: bool,
    regret: int | None,
    seed: int,
) -> None:
    """Measure which implementation of its convolutions a program runs fastest with, on this machine.

    The machine should have nothing else to do.
    """
    check_outputs(output)
    require_both(function, arguments)
    if not seconds < math.inf:
        raise click.BadParameter(f"--seconds (={seconds}) must be a number of seconds.")
    if sum(map(bool, (function, model, network, table, regret))) != 1:
        raise click.UsageError("Name one of MODULE:FUNCTION, --model, --network, --table and --regret.")
    with jax.enable_x64(dtype == "float64" or jax.config.read("jax_enable_x64")):
        if regret is not None:
            _judge(regret, seed, dtype)
        elif table:
            _add_to_table(output, seed, dtype, seconds)
        else:
            fun, args = _program(function, arguments, model, network, batch, jnp.dtype(dtype))
            with told_apart(f"{function or model or network} cannot be tuned"):
                tuning = autotune(fun, *args, seconds=seconds)
            Console(highlight=False, soft_wrap=True).print(repr(tuning), markup=False)
            if output is not None:
                output.write_text(tuning.dumps(), encoding="utf-8")


def _program(
    function: str | None, arguments: str | None, model: str | None, network: str | None, batch: int, dtype: Any
) -> tuple[Callable[..., Any], Sequence[Any]]:
    if function is not None:
        return function_and_arguments(function, arguments or "")
    if model is not None:
        spec = MODELS[model]
        return _loss_of(spec.build(), (batch, *spec.input_shape), dtype)
    chosen = next(n for n in NETWORKS if n.name == network)
    built = own_model(chosen)
    if built is None:
        raise click.BadParameter(f"--network (={network}) is no model of this package; name its function instead.")
    return _loss_of(built, chosen.shape, dtype)


def _loss_of(model: Any, shape: tuple[int, ...], dtype: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), shape, dtype=dtype))
    return lambda params, images: model.apply(params, images).sum(), (params, jax.ShapeDtypeStruct(shape, dtype))


def _add_to_table(output: Path | None, seed: int, dtype: str, seconds: float) -> None:
    if output is None:
        raise click.UsageError("--table needs a file: -o FILE.")
    console, until = Console(stderr=True), monotonic() + seconds
    before = _rows_in(output) if output.exists() else 0
    with output.open("a", encoding="utf-8") as file:
        # Each continuation draws its own problems.
        for number, row in enumerate(measured_problems(seed + before, dtype, 0.1, hopeless=3.0)):
            file.write(row.to_json() + "\n")
            file.flush()
            if monotonic() > until:
                console.print(f"{number + 1} passes measured, {before + number + 1} in {output}")
                return


def _rows_in(table: Path) -> int:
    text = table.read_text(encoding="utf-8")
    try:
        rows = list(map(Measured.from_json, text.splitlines()))
    except (ValueError, KeyError, TypeError) as error:
        raise click.UsageError(
            f"{table} is no table that could be continued ({error!r}); name another file."
        ) from error
    if rows and not text.endswith("\n"):
        raise click.UsageError(f"{table} ends inside a line; end it, or name another file.")
    return len(rows)


def _judge(count: int, seed: int, dtype: str) -> None:
    console, rows = Console(highlight=False, soft_wrap=True), list[Regret]()
    for row in itertools.islice(measured_problems(seed, dtype, 0.3), count * len(PASSES)):
        rows.append(regret_of(row))
    table = Table("pass", "layers", "chosen / best", "worst", "above 1.3", "chosen / lax", "above 1.05 of lax")
    for name in PASSES:
        of = [row for row in rows if row.measured.pass_name == name]
        to_best, to_lax = (np.array([getattr(row, ratio) for row in of]) for ratio in ("to_best", "to_lax"))
        mean_best, mean_lax = (f"{np.exp(np.log(a).mean()):.3f}" for a in (to_best, to_lax))
        above = f"{(to_best > 1.3).sum()}", f"{(to_lax > 1.05).sum()}"
        table.add_row(name, str(len(of)), mean_best, f"{to_best.max():.2f}", above[0], mean_lax, above[1])
    console.print(table)
    for row in sorted(rows, key=lambda row: -row.to_best)[:10]:
        console.print(f"{row.to_best:.2f}  {row.key}: {row.chosen}, best {row.best}", markup=False)
