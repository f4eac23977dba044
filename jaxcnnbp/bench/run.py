"""A run of the bench: every layer in every pass, every training step, the machine's limit, and the self-check."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from jaxcnnbp.bench.allocator import keep_freed_memory
from jaxcnnbp.bench.limit import measure_limit
from jaxcnnbp.bench.results import Results
from jaxcnnbp.bench.rows import measure_layer, measure_step
from jaxcnnbp.bench.self_check import SelfCheck, check_instrument
from jaxcnnbp.bench.settings import Settings
from jaxcnnbp.bench.torch_side import why_no_torch
from jaxcnnbp.machine import cores, machine, versions
from jaxcnnbp.timing import SYSTEM, Clock

Watch = Callable[[Results], None]


def run(settings: Settings, watch: Watch = lambda _: None, clock: Clock = SYSTEM) -> Results:
    """Measure everything that the settings name.

    Args:
      settings: what, and for how long.
      watch: is given what there is after each layer and network, for instance to store it.
      clock: where the time comes from.

    Returns:
      All rows, the limit, and the self-check: the worse of one before the first row and one after the last.

    Raises:
      jaxcnnbp.train.InputError: a training step is asked for and Flax is not installed; memory shall be kept and the
        C library is not glibc.

    Example:
      `run(Settings(cases=CASES[:2], networks=(), torch=False)).rows[0].speedup("autodiff")`
    """
    if settings.keep_memory:
        keep_freed_memory()
    with jax.enable_x64(settings.dtype == "float64" or jax.config.read("jax_enable_x64")):
        results = _begin(settings, clock)
        limit = results.limit[settings.dtype]
        for case in settings.cases:
            found = tuple(measure_layer(case.scaled(settings.batch_scale), settings, limit, clock))
            results = dataclasses.replace(results, rows=results.rows + found)
            watch(results)
        for network in settings.networks:
            row = measure_step(network.scaled(settings.batch_scale), settings, clock)
            results = dataclasses.replace(results, steps=(*results.steps, row))
            watch(results)
        checks = results.self_check, _check(settings, clock)
        return dataclasses.replace(results, self_check=max(checks, key=lambda check: check.deviation))


def _begin(settings: Settings, clock: Clock) -> Results:
    check = _check(settings, clock)
    limit = measure_limit(settings.dtype, settings.with_torch, 1.5 * settings.seconds, clock)
    return Results(machine(), versions("flax", "torch"), _method(settings), check, {settings.dtype: limit})


def _check(settings: Settings, clock: Clock) -> SelfCheck:
    return check_instrument(settings.with_torch, 2 * settings.seconds, clock)


def _method(settings: Settings) -> dict[str, Any]:
    return {
        "figures": "median and quartiles of single calls, warm, each with new outputs, random inputs",
        "ours and autodiff": "alternate call by call in one process",
        "alone": "ours once more, in blocks of its own as PyTorch is: what PyTorch is compared with",
        "torch": _torch_method(settings),
        "limit": "the best of JAX's and PyTorch's matrix product, and of JAX's, NumPy's and PyTorch's copy",
        "freed memory": "stays with the process" if settings.keep_memory else "as the system's allocator has it",
        "seconds_per_row": settings.seconds,
        "batch_scale": settings.batch_scale,
    }


def _torch_method(settings: Settings) -> str:
    if not settings.torch:
        return "left out"
    return why_no_torch() or (
        f"the same process, eager, {cores()} threads, blocks of its own behind a pause, the better of channels first "
        "and channels last"
    )
