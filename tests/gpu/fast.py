"""A short bench of layers and training steps that fill the chip, against autodiff and PyTorch.

It is stored as `jaxcnnbp bench` stores its own: `jaxcnnbp bench --show FILE` prints it.
"""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

from jax import Array

from jaxcnnbp.bench.cases import Case
from jaxcnnbp.bench.jax_side import TimedPass, arrays, autodiff_layer, manual_layer, programs
from jaxcnnbp.bench.limit import Limit, measure_limit
from jaxcnnbp.bench.networks import Network
from jaxcnnbp.bench.opponent import Opponent, better_layout, blocks
from jaxcnnbp.bench.program_facts import Compiled, compile_cold, residual_bytes, temporary
from jaxcnnbp.bench.results import STEP, Results, Row, save
from jaxcnnbp.bench.self_check import check_instrument
from jaxcnnbp.bench.torch_models import torch_step
from jaxcnnbp.bench.torch_side import layouts, torch_calls, why_no_torch
from jaxcnnbp.bench.training import RATE, jax_steps
from jaxcnnbp.machine import machine, versions
from jaxcnnbp.timing import SYSTEM, Plan, call_of, side_by_side
from tests.gpu.problems import narrow, small
from tests.gpu.record import Record

_METHOD = {
    "command": "make gpu",
    "figures": "median and quartiles, warm, random inputs; as many calls as fill 10 ms are queued and waited for once",
    "ours and autodiff": "alternate in one process",
    "alone": "ours once more, in blocks of its own as PyTorch is: what PyTorch is compared with",
    "torch": "eager, the better of channels first and last, cudnn.benchmark, TF32 as JAX has it",
}
PASSES = ("forward", "input grad", "kernel grad")
_SIDES = {"jaxcnnbp": manual_layer, "autodiff": autodiff_layer}


def run(
    record: Record,
    layers: tuple[Case, ...],
    networks: tuple[Network, ...],
    dry: bool,
    workers: int,
    until: float,
    path: Path,
) -> None:
    """Store what was measured by `until`; programs are compiled side by side, then nothing runs but what is timed."""
    with_torch = not dry and not why_no_torch()
    seconds = 0.01 if dry else 0.2
    limits = {d: Limit(1.0, 1.0) if dry else measure_limit(d, with_torch, 1.0) for d in ("float32", "bfloat16")}
    method = _METHOD | {"seconds_per_row": seconds} | ({} if with_torch else {"torch": "not here"})
    check = check_instrument(False, 0.2 if dry else 1.0)
    results = Results(machine(), versions("flax", "torch"), method, check, limits)
    layers = tuple(narrow(small(case, 1, 5), 8) for case in layers) if dry else layers
    for network in networks:  # first: what people train takes longer than every layer, and says more
        if monotonic() > until:
            record.add(name=network.name, left_out="no time")
            continue
        row = _step_row(network, dict(jax_steps(network, "float32")), seconds, with_torch)
        results = dataclasses.replace(results, steps=(*results.steps, row))
        save(results, path)
    for dtype in limits:
        for case in layers:
            if monotonic() > until:
                record.add(name=f"{case.name}, {dtype}", left_out="no time")
                continue
            operands = arrays(case, dtype)
            found = _compiled(case, operands, workers)
            rows = tuple(_row(case, step, operands, found[step], limits[dtype], seconds, with_torch) for step in found)
            results = dataclasses.replace(results, rows=results.rows + rows)
            save(results, path)
    record.add(name="rows", ok=bool(results.rows), rows=len(results.rows), steps=len(results.steps))


Operands = tuple[Array, Array, Array]  # input, kernel, delta
Sides = dict[str, tuple[Compiled, TimedPass, int]]  # the program, what it is called with, bytes between the passes


def _compiled(case: Case, operands: Operands, workers: int) -> dict[str, Sides]:
    """The programs of each pass, by side, compiled side by side."""
    inputs = operands[: 1 if case.is_pool else 2]
    jobs: list[tuple[str, str, TimedPass, int]] = []
    for side, make in _SIDES.items():
        kept = residual_bytes(make(case), *inputs)
        passes = programs(make(case), case, operands).items()
        jobs += [(step, side, program, kept) for step, program in passes if step in PASSES]
    with ThreadPoolExecutor(workers) as pool:
        ready = pool.map(lambda job: compile_cold(job[2].function, *job[2].args), jobs)
        found: dict[str, Sides] = {}
        for (step, side, program, kept), compiled in zip(jobs, ready, strict=True):
            found.setdefault(step, {})[side] = (compiled, program, kept)
    return found


def _row(
    case: Case, step: str, operands: Operands, sides: Sides, limit: Limit, seconds: float, with_torch: bool
) -> Row:
    calls = {side: call_of(compiled.function, program.args) for side, (compiled, program, _) in sides.items()}
    other = better_layout(lambda: torch_calls(case, operands, step), SYSTEM) if with_torch else Opponent({})
    times = side_by_side(blocks(calls, other), Plan(seconds, pause=0.0), SYSTEM)
    allowed = limit.seconds(*case.work(step, operands[0].dtype.itemsize))
    return Row(
        case.name,
        case.layer,
        step,
        operands[0].dtype.name,
        times,
        temp_bytes=temporary({side: compiled for side, (compiled, *_) in sides.items()}),
        residual_bytes={side: kept for side, (*_, kept) in sides.items()},
        compile_s={side: compiled.seconds for side, (compiled, *_) in sides.items()},
        roofline_fraction=allowed / times.get("alone", times["jaxcnnbp"]).median,
        layout=other.layout,
        notes={"torch": other.note} if other.note else {},
    )


def _step_row(network: Network, sides: dict[str, Any], seconds: float, with_torch: bool) -> Row:
    other = Opponent({})
    if with_torch:
        other = better_layout(lambda: {name: torch_step(network, "float32", name, RATE) for name in layouts(2)}, SYSTEM)
    calls = {side: step.call for side, step in sides.items()}
    compiled = {side: step.compiled for side, step in sides.items()}
    return Row(
        network.name,
        network.layer,
        STEP,
        "float32",
        side_by_side(blocks(calls, other), Plan(8 * seconds, pause=0.0), SYSTEM),
        temp_bytes=temporary(compiled),
        residual_bytes={side: step.residual_bytes for side, step in sides.items()},
        compile_s={side: program.seconds for side, program in compiled.items()},
        layout=other.layout,
        notes={"torch": other.note} if other.note else {},
    )
