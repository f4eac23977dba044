"""The bench: every case in every pass, side by side, and what the machine allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnnbp.bench.cases import CASES, PASSES, Case
from jaxcnnbp.bench.jax_side import Program, arrays, autodiff_layer, call_of, manual_layer, programs
from jaxcnnbp.bench.limit import Limit, measure_limit
from jaxcnnbp.bench.machine import cores, machine, versions
from jaxcnnbp.bench.program_facts import Compiled, compile_cold, residual_bytes
from jaxcnnbp.bench.results import Results, Row
from jaxcnnbp.bench.self_check import SelfCheck, check_instrument
from jaxcnnbp.bench.timing import SYSTEM, Call, Clock, Plan, Timing, side_by_side
from jaxcnnbp.bench.torch_side import torch_calls, why_no_torch

__all__ = ["DTYPES", "Settings", "measure_case", "rows_of", "run"]

DTYPES = ("float32", "bfloat16", "float64")
_TRIALS = 3


@dataclass(frozen=True)
class Settings:
    """What to measure, and for how long.

    Attributes:
      cases: the layers.
      passes: some of `PASSES`.
      dtype: of everything.
      batch_scale: factor on the number of images.
      seconds: to spend on the calls of one row; a slow function is called three times at least.
      torch: whether to measure PyTorch where it is installed.
    """

    cases: tuple[Case, ...] = CASES
    passes: tuple[str, ...] = PASSES
    dtype: str = "float32"
    batch_scale: float = 1.0
    seconds: float = 2.0
    torch: bool = True

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"`dtype` (={self.dtype!r}) must be one of {', '.join(DTYPES)}.")
        if unknown := set(self.passes) - set(PASSES):
            raise ValueError(f"`passes` (={sorted(unknown)}) must be among {', '.join(PASSES)}.")
        if self.seconds <= 0 or self.batch_scale <= 0:
            raise ValueError(f"`seconds` (={self.seconds}) and `batch_scale` (={self.batch_scale}) must be above 0.")

    @property
    def with_torch(self) -> bool:
        """Whether PyTorch is measured."""
        return self.torch and not why_no_torch()


def run(settings: Settings, watch: Callable[[Results], None] = lambda _: None, clock: Clock = SYSTEM) -> Results:
    """Measure everything that the settings name.

    Args:
      settings: what, and for how long.
      watch: is given what is there after each layer, for instance to store it.
      clock: where the time comes from.

    Returns:
      All rows, the limit, and the self-check: the worse of one before the first row and one after the last.

    Example:
      `run(Settings(cases=CASES[:2], torch=False)).rows[0].speedup("autodiff")`
    """
    with jax.enable_x64(settings.dtype == "float64" or jax.config.read("jax_enable_x64")):
        before = check_instrument(settings.with_torch, clock=clock)
        limit = measure_limit(settings.dtype, settings.with_torch, clock=clock)
        rows: tuple[Row, ...] = ()
        for found in rows_of(settings, limit, clock):
            rows += found
            watch(_results(settings, before, limit, rows))
        after = check_instrument(settings.with_torch, clock=clock)
    return _results(settings, max(before, after, key=lambda check: check.deviation), limit, rows)


def _results(settings: Settings, check: SelfCheck, limit: Limit, rows: tuple[Row, ...]) -> Results:
    return Results(machine(), versions(), _method(settings), check, {settings.dtype: limit}, rows)


def _method(settings: Settings) -> dict[str, Any]:
    return {
        "seconds_per_row": settings.seconds,
        "batch_scale": settings.batch_scale,
        "jax": "this package and autodiff alternate call by call",
        "torch": why_no_torch() if not settings.with_torch and settings.torch else _torch_method(settings),
        "figures": "median and quartiles of single calls, warm, each with new outputs, random inputs",
    }


def _torch_method(settings: Settings) -> str:
    if not settings.torch:
        return "not measured"
    return f"eager, {cores()} threads, blocks of its own behind a pause, the better of channels first and channels last"


def rows_of(settings: Settings, limit: Limit, clock: Clock = SYSTEM) -> Iterator[tuple[Row, ...]]:
    """The rows of one layer after the other."""
    for case in settings.cases:
        yield tuple(measure_case(case.scaled(settings.batch_scale), settings, limit, clock))


@dataclass(frozen=True)
class _Sides:
    """The programs of both JAX sides for every pass, what each keeps, and why one is not there."""

    programs: dict[str, dict[str, Program]]
    residual_bytes: dict[str, int]
    notes: dict[str, str]


def measure_case(case: Case, settings: Settings, limit: Limit, clock: Clock = SYSTEM) -> Iterator[Row]:
    """One row for each pass of a layer."""
    operands = arrays(case, settings.dtype)
    sides = _sides(case, operands)
    for step in case.passes:
        if step in settings.passes:
            yield _measure_pass(case, step, operands, sides, settings, limit, clock)


def _sides(case: Case, operands: tuple[jax.Array, ...]) -> _Sides:
    inputs = operands[: 1 if case.is_pool else 2]
    found, kept, notes = {}, {}, {}
    for side, layer in {"jaxcnnbp": manual_layer(case), "autodiff": autodiff_layer(case)}.items():
        try:
            found[side] = programs(layer, case, operands)
            kept[side] = residual_bytes(layer, *inputs)
        except NotImplementedError as error:  # JAX: a maximum over a dilated window
            found[side] = {"forward": Program(jax.jit(layer), inputs)}
            notes[side] = str(error)
    return _Sides(found, kept, notes)


def _measure_pass(
    case: Case,
    step: str,
    operands: tuple[jax.Array, ...],
    sides: _Sides,
    settings: Settings,
    limit: Limit,
    clock: Clock,
) -> Row:
    here = {side: of[step] for side, of in sides.programs.items() if step in of}
    compiled = {side: compile_cold(program.function, *program.args) for side, program in here.items()}
    calls = {side: call_of(compiled[side].function, program.args) for side, program in here.items()}
    notes = {side: note for side, note in sides.notes.items() if side not in here}
    layout, torch_block = _torch_block(case, operands, step, settings, notes, clock)
    times = side_by_side([calls, torch_block], Plan(settings.seconds), clock)
    allowed = limit.seconds(*case.work(step, jnp.dtype(settings.dtype).itemsize))
    return Row(
        case.name,
        case.layer,
        step,
        settings.dtype,
        times,
        temp_bytes=_temp_bytes(compiled),
        residual_bytes=sides.residual_bytes,
        compile_s={side: program.seconds for side, program in compiled.items()},
        roofline_fraction=allowed / times["jaxcnnbp"].median if times["jaxcnnbp"].median else None,
        layout=layout,
        notes=notes,
    )


def _temp_bytes(compiled: dict[str, Compiled]) -> dict[str, int]:
    return {side: program.temp_bytes for side, program in compiled.items() if program.temp_bytes is not None}


def _torch_block(
    case: Case, operands: tuple[jax.Array, ...], step: str, settings: Settings, notes: dict[str, str], clock: Clock
) -> tuple[str, dict[str, Call]]:
    """PyTorch's call in its better memory format, or a note."""
    if not settings.with_torch:
        return "", {}
    try:
        candidates = torch_calls(case, operands, step)
        times = {name: _best_of(call, clock) for name, call in candidates.items()}
    except (NotImplementedError, RuntimeError) as error:  # a dtype that PyTorch has no kernel for
        notes["torch"] = str(error).partition("\n")[0]
        return "", {}
    layout = min(times, key=times.__getitem__)
    return layout, {"torch": candidates[layout]}


def _best_of(call: Call, clock: Clock) -> float:
    clock.sleep(Plan().pause)
    times: list[float] = []
    for _ in range(1 + _TRIALS):
        begin = clock.now()
        call()
        times.append(clock.now() - begin)
    return Timing.of(times[1:]).median
