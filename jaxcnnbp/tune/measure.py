"""The time of every implementation that supports a pass of a convolution, side by side on this device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxcnnbp.modes import chosen_implementation
from jaxcnnbp.ops.conv import dispatch
from jaxcnnbp.ops.conv.measured import Measured
from jaxcnnbp.ops.conv.problem import ConvProblem
from jaxcnnbp.settings import Under, in_force
from jaxcnnbp.timing import Plan, call_of, side_by_side

_CHOOSE: dict[str, Callable[..., Array]] = {
    "forward": dispatch.choose_forward,
    "input grad": dispatch.choose_input_grad,
    "kernel grad": dispatch.choose_kernel_grad,
}
# An implementation that took so many times as long as the fastest one at a first look is not called again.
HOPELESS = 2.5
# Calls of a first look, the least of which counts: one may meet whatever else the machine does. A long one is enough.
LOOKS, LONG = 3, 0.02


def supporting(pass_name: str, problem: ConvProblem) -> list[str]:
    """The names of what supports a pass on the default backend."""
    return [row.name for row in dispatch.passes()[pass_name].supporting(problem, False)]


def measure(pass_name: str, problem: ConvProblem, names: Sequence[str], seconds: float) -> Measured:
    """Implementations of one pass by name, call by call in turns for about `seconds` after they are compiled."""
    operands = random_operands(pass_name, problem)
    # What is in force here, `jax.enable_x64` for one, is not in another thread.
    compile_here = Under(in_force(), partial(_compiled, pass_name, problem, operands))
    with ThreadPoolExecutor(2) as pool:
        compiled = dict(zip(names, pool.map(compile_here, names), strict=True))
    took = {name: t for name, (_, t) in compiled.items()}
    first = {name: _first_look(call, operands) for name, (call, _) in compiled.items()}
    hopeful = [name for name, t in first.items() if t <= HOPELESS * min(first.values())]
    times = side_by_side(
        [{name: call_of(compiled[name][0], operands) for name in hopeful}],
        Plan(seconds=seconds, rounds=1, least=5, most=400, warm=1),
    )
    return Measured(pass_name, problem, {**first, **{name: t.median for name, t in times.items()}}, took)


def random_operands(pass_name: str, problem: ConvProblem) -> tuple[Array, ...]:
    """What a pass takes, normally distributed: zeros would be fast, denormal numbers slow."""
    window, groups, rng = problem.geometry.window, problem.geometry.groups, np.random.default_rng(0)
    x = (problem.images, *window.spatial, problem.in_channels * groups)
    delta = (problem.images, *window.output, problem.out_channels * groups)
    kernel = (*window.size, problem.in_channels, problem.out_channels * groups)
    shapes = {"forward": (x, kernel), "input grad": (delta, kernel), "kernel grad": (x, delta)}[pass_name]
    return tuple(jnp.asarray(rng.standard_normal(s, np.float32), problem.dtype) for s in shapes)


def _compiled(pass_name: str, problem: ConvProblem, operands: tuple[Array, ...], name: str) -> tuple[Any, float]:
    begin = time.perf_counter()
    with chosen_implementation(name):
        program = jax.jit(partial(_CHOOSE[pass_name], geometry=problem.geometry)).lower(*operands).compile()
    return program, time.perf_counter() - begin


def _first_look(program: Any, operands: tuple[Array, ...]) -> float:
    jax.block_until_ready(program(*operands))
    least = math.inf
    for _ in range(LOOKS):
        begin = time.perf_counter()
        jax.block_until_ready(program(*operands))
        least = min(least, time.perf_counter() - begin)
        if least > LONG:
            break
    return least
