"""The row of whole training steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxcnnbp.bench.networks import Network
from jaxcnnbp.bench.opponent import Opponent, better_layout, blocks
from jaxcnnbp.bench.program_facts import temporary
from jaxcnnbp.bench.results import LOOP, STEP, Row
from jaxcnnbp.bench.settings import Settings
from jaxcnnbp.bench.torch_models import torch_step
from jaxcnnbp.bench.torch_side import layouts, synchronised
from jaxcnnbp.bench.training import RATE, jax_steps
from jaxcnnbp.timing import Call, Clock, Plan, side_by_side


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
