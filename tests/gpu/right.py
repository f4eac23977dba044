"""Every rule, and every form of it that the problem admits, against the float64 oracle on the host, element by element.

What a sum may be off by follows from its terms. With `B = sum |a| |b|`, what the same rule makes of magnitudes,

    |found - true| <= (operands + sums) B + result |true|

where `operands` is what rounding an operand costs (TF32: 2^-11 each; 0 where products are exact), `sums` what adding n
terms in float32 costs: n 2^-24 in the worst order, 8 sqrt(n) 2^-24 here, which holds for the random signs of these
terms and for Winograd's transforms, and `result` what storing the result costs (bfloat16 2^-9, float16 2^-11).
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cases
import jax
import jax.numpy as jnp
import numpy as np
from check import delta_like, value_and_pullback

import jaxcnnbp.audit.oracle  # noqa: F401 - fills mode("oracle")
from jaxcnnbp import mode
from jaxcnnbp.bench.cases import Case
from jaxcnnbp.bench.jax_side import arrays as drawn
from jaxcnnbp.bench.jax_side import manual_layer
from tests.gpu import forms
from tests.gpu.problems import narrow, small
from tests.gpu.record import Record, side_by_side


@dataclass(frozen=True)
class Arithmetic:
    """A dtype and how its products are formed.

    Attributes:
      dtype: of operands and results.
      precision: of `jax.default_matmul_precision`.
      operands: what rounding the operands of a product may cost, relative to the product.
      result: what storing a result costs.
    """

    dtype: str
    precision: str
    operands: float
    result: float

    def __str__(self) -> str:
        return f"{self.dtype} {self.precision}"

    def allowed(self, truth: np.ndarray, magnitude: np.ndarray, terms: int) -> np.ndarray:
        """What each element may be off by; what underflows to nothing may be off by the smallest normal number."""
        sums = 8 * math.sqrt(terms) * 2.0**-24
        least = float(jnp.finfo(self.dtype).tiny)
        return (self.operands + sums) * magnitude + self.result * np.abs(truth) + least


EXACT = Arithmetic("float32", "highest", 2.0**-23, 2.0**-24)
# Of an H100 the default is TF32: operands are rounded to 11 bits.
DEFAULT = Arithmetic("float32", "default", 2.0**-10, 2.0**-24)
BFLOAT16 = Arithmetic("bfloat16", "default", 0.0, 2.0**-8)
FLOAT16 = Arithmetic("float16", "default", 0.0, 2.0**-11)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Under `jax.jit`, with the algorithm that cuDNN would guess: trying all of them takes a second a convolution."""
    options = {"xla_gpu_autotune_level": 0} if jax.default_backend() == "gpu" else None
    return jax.jit(function, compiler_options=options)


def run(record: Record, layers: tuple[Case, ...], dry: bool, workers: int, until: float) -> None:
    """Every case of the tests, then layers of every kind in every arithmetic and form."""
    kinds = (EXACT, BFLOAT16) if dry else (EXACT, DEFAULT, BFLOAT16, FLOAT16)
    few = [small(case, 2, 9 if dry else 15) for case in layers]
    few = [narrow(case, 8) for case in few] if dry else few
    every = cases.ALL[::20] if dry else cases.ALL
    jobs = [(functools.partial(_check_case, case, kinds, record), str(case)) for case in every]
    for kind in kinds:
        jobs += [(functools.partial(check_layer, case, kind, record), f"{case.name}, {kind}") for case in few]
    random.Random(0).shuffle(jobs)  # what there is no time for shall not be all of one kind
    side_by_side(jobs, workers, until, record)


# --- layers


def check_layer(case: Case, kind: Arithmetic, record: Record) -> None:
    operands = drawn(case, kind.dtype, seed=len(case.name))
    inputs = operands[:1] if case.is_pool else operands[:2]
    layer = manual_layer(case)
    # The winners of a maximum are those of the numbers themselves.
    sizes = inputs if case.op == "max_pool" else [abs(a) for a in inputs]
    truth, size = _oracle(layer, inputs, operands[2]), _oracle(layer, sizes, abs(operands[2]))
    with jax.default_matmul_precision(kind.precision):
        value, gradients = compiled(lambda a, d: value_and_pullback(layer, a, d))(inputs, operands[2])
        every_form = not case.is_pool and kind in (EXACT, BFLOAT16)
        others = forms.in_every_form(case, *operands, compiled) if every_form else {}
    steps = ("forward", "input grad", "kernel grad")
    for step, found, true, magnitude in zip(steps, (value, *gradients), truth, size, strict=False):
        magnitude = np.abs(magnitude)
        for name, array in {"the rule": found, **others.get(step, {})}.items():
            row = _compared(array, true, kind.allowed(true, magnitude, _terms(case, step)))
            record.add(name=f"{case.name}, {step}, {name}", kind=str(kind), **row)


def _terms(case: Case, step: str) -> int:
    if step == "kernel grad":
        return math.prod(case.output_shape[:-1])
    return math.prod(case.window) * (1 if case.is_pool else max(case.kernel_shape[-2:]))


def _oracle(function: Callable[..., Any], arrays: Any, delta: Any) -> tuple[np.ndarray, ...]:
    """The output and the gradients, in float64 on the host."""
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]), mode("oracle"):
        wide = [jnp.asarray(np.asarray(a, np.float64)) for a in (*arrays, delta)]
        value, gradients = value_and_pullback(function, wide[:-1], wide[-1])
        return tuple(np.asarray(a) for a in (value, *gradients))


def _compared(found: Any, true: np.ndarray, allowed: np.ndarray) -> dict[str, Any]:
    off = np.abs(np.asarray(found, np.float64) - true)
    ok = found.shape == true.shape and bool((off <= allowed).all())
    worst = float((off / allowed).max(initial=0)) if found.shape == true.shape else math.inf
    return {"ok": ok, "of_what_is_allowed": round(worst, 3)}


# --- the cases of the tests


def _check_case(case: cases.Case, kinds: tuple[Arithmetic, ...], record: Record) -> None:
    """All in one program: most of the time goes into compiling."""
    operands = {kind: _operands(case, kind) for kind in kinds if kind in (EXACT, BFLOAT16)}
    is_product = case in cases.CONVOLUTIONS + cases.LAX_CONVOLUTIONS
    along = case.arrays("float32", seed=4)

    def slope(arrays: Any, delta: Any) -> Any:
        _, gradients = value_and_pullback(case, arrays, delta)
        return sum(jnp.vdot(g, t, precision="highest") for g, t in zip(gradients, along, strict=True))

    def run(every: list[Any]) -> tuple[Any, Any]:
        second = jax.grad(slope)(*every[0]) if is_product else None
        return [value_and_pullback(case, *pair) for pair in every], second

    with jax.default_matmul_precision("highest"):
        firsts, second = compiled(run)(list(operands.values()))
    for (kind, (arrays, delta)), (value, gradients) in zip(operands.items(), firsts, strict=True):
        # A result is rounded, and so is a product in between that is an array of its own; a block is three rules in a
        # row, each from the rounded result of the one before. Sums of float32 add their own roundings.
        eps = float(jnp.finfo(kind.dtype).eps) * (12 if case.op == "conv_block" else 4)
        eps *= 4 if kind is EXACT else 1
        record.add(name=str(case), kind=str(kind), **_near((value, *gradients), _oracle(case, arrays, delta), eps))
    if second is not None:
        truth = _second_order(case, along, *operands[EXACT])
        record.add(name=f"{case}, second order", kind=str(EXACT), **_near(second, truth, 64 * 2.0**-24))


def _operands(case: cases.Case, kind: Arithmetic) -> tuple[Any, Any]:
    arrays = case.arrays(kind.dtype)
    return arrays, delta_like(case, arrays)


def _near(found: Any, truth: Any, eps: float) -> dict[str, Any]:
    """Whether all of some arrays are within `eps` of the element and of the largest."""
    rows = [
        _compared(a, true, eps * (np.abs(true) + np.abs(true).max(initial=1)))
        for a, true in zip(found, truth, strict=True)
    ]
    worst = max(row["of_what_is_allowed"] for row in rows)
    return {"ok": all(row["ok"] for row in rows), "of_what_is_allowed": worst}


def _second_order(case: cases.Case, along: Any, arrays: Any, delta: Any) -> list[np.ndarray]:
    """How the gradients change along a direction; those of a convolution are products of two operands, so a difference
    over any distance is their derivative.
    """
    wide = [[np.asarray(a, np.float64) for a in each] for each in (arrays, along)]
    ahead, behind = (_oracle(case, [a + sign * t for a, t in zip(*wide, strict=True)], delta)[1:] for sign in (1, -1))
    return [(a - b) / 2 for a, b in zip(ahead, behind, strict=True)]
