"""The rows of a run: a layer in every pass, and whole training steps, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnnbp.bench.cases import Case
from jaxcnnbp.bench.jax_side import TimedPass, arrays, autodiff_layer, manual_layer, programs
from jaxcnnbp.bench.limit import Limit
from jaxcnnbp.bench.networks import Network
from jaxcnnbp.bench.opponent import Opponent, better_layout, blocks
from jaxcnnbp.bench.program_facts import compile_cold, residual_bytes, temporary
from jaxcnnbp.bench.results import LOOP, STEP, Row
from jaxcnnbp.bench.settings import Settings
from jaxcnnbp.bench.torch_models import torch_step
from jaxcnnbp.bench.torch_side import layouts, synchronised, torch_calls
from jaxcnnbp.bench.training import RATE, jax_steps
from jaxcnnbp.timing import Call, Clock, Plan, call_of, side_by_side
from jaxcnnbp.transform import explain_choice

Operands = tuple[jax.Array, jax.Array, jax.Array]  # x, kernel, delta


@dataclass(frozen=True)
class _Sides:
    """The programs of both JAX sides for every pass, what each keeps, and why one has no backward pass."""

    programs: dict[str, dict[str, TimedPass]]
    residual_bytes: dict[str, int]
    notes: dict[str, str]


def measure_layer(case: Case, settings: Settings, limit: Limit, clock: Clock) -> Iterator[Row]:
    """One row for each pass of a layer that the settings name."""
    operands = arrays(case, settings.dtype)
    sides = _sides(case, operands)
    for step in case.passes:
        if step in settings.passes:
            yield _measure_pass(case, step, operands, sides, settings, limit, clock)


def _sides(case: Case, operands: Operands) -> _Sides:
    inputs = operands[: 1 if case.is_pool else 2]
    sides = _Sides({}, {}, {})
    for side, layer in {"jaxcnnbp": manual_layer(case), "autodiff": autodiff_layer(case)}.items():
        try:
            sides.programs[side] = programs(layer, case, operands)
            sides.residual_bytes[side] = residual_bytes(layer, *inputs)
        except NotImplementedError as error:  # JAX: a maximum over a dilated window
            sides.programs[side] = {"forward": TimedPass(jax.jit(layer), inputs)}
            sides.notes[side] = str(error)
    return sides


def _measure_pass(
    case: Case, step: str, operands: Operands, sides: _Sides, settings: Settings, limit: Limit, clock: Clock
) -> Row:
    here = {side: of[step] for side, of in sides.programs.items() if step in of}
    compiled = {side: compile_cold(program.function, *program.args) for side, program in here.items()}
    calls = {side: call_of(compiled[side].function, program.args) for side, program in here.items()}
    notes = {side: note for side, note in sides.notes.items() if side not in here}
    other = Opponent({})
    if settings.with_torch:
        other = better_layout(lambda: torch_calls(case, operands, step), clock)
    times = side_by_side(blocks(calls, other), Plan(settings.seconds), clock)
    allowed = limit.seconds(*case.work(step, jnp.dtype(settings.dtype).itemsize))
    return Row(
        case.name,
        case.layer,
        step,
        settings.dtype,
        times,
        temp_bytes=temporary(compiled),
        residual_bytes=sides.residual_bytes,
        compile_s={side: program.seconds for side, program in compiled.items()},
        roofline_fraction=allowed / times.get("alone", times["jaxcnnbp"]).median,
        layout=other.layout,
        notes=notes | ({"torch": other.note} if other.note else {}),
        implementation=_served(case, step, operands),
    )


def _served(case: Case, step: str, operands: Operands) -> str:
    """What computes a pass of this package's; of all passes together the three names."""
    rows = explain_choice(manual_layer(case), *operands[: 1 if case.is_pool else 2]).rows
    names = {row.pass_name: row.implementation for row in rows}
    return names.get(step, ", ".join(names.values()))


def measure_step(network: Network, settings: Settings, clock: Clock) -> Row:
    """Gradients and update of one network, by each side that has it."""
    count = settings.steps_a_call
    steps = dict(jax_steps(network, settings.dtype, count))
    other = Opponent({})
    if settings.with_torch:
        other = better_layout(
            lambda: {name: _several(count, torch_step(network, settings.dtype, name, RATE)) for name in layouts(2)},
            clock,
        )
    calls = {side: step.call for side, step in steps.items()}
    compiled = {side: step.compiled for side, step in steps.items()}
    return Row(
        network.name,
        network.layer,
        STEP if count == 1 else f"{count} {LOOP}",
        settings.dtype,
        # A step is the sum of many kernels and varies more than each of them: it gets twice the time of a layer.
        side_by_side(blocks(calls, other), Plan(2 * settings.seconds), clock),
        temp_bytes=temporary(compiled),
        residual_bytes={side: step.residual_bytes for side, step in steps.items()},
        compile_s={side: program.seconds for side, program in compiled.items()},
        layout=other.layout,
        notes={"torch": other.note} if other.note else {},
    )


def _several(count: int, step: Callable[[], Any]) -> Call:
    def steps() -> Any:
        for _ in range(count - 1):
            step()
        return step()

    return synchronised(steps)
