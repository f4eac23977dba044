"""Whether a gradient has the same bits every time: atomic additions, which add in any order, do not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxcnnbp
from jaxcnnbp.bench.cases import Case
from jaxcnnbp.bench.jax_side import arrays, autodiff_layer, manual_layer
from tests.gpu.problems import narrow, small
from tests.gpu.record import Record, side_by_side

RUNS = 20


def run(record: Record, layers: tuple[Case, ...], dry: bool, workers: int, until: float) -> None:
    """The gradients of pools at every overlap and tie, of kernels and inputs; of autodiff only what it does is said."""
    layers = tuple(narrow(small(case, 2, 7), 8) for case in layers) if dry else layers
    jobs = [(functools.partial(_pool, *row, dry, record), str(row)) for row in _pools()]
    jobs += [
        (functools.partial(_layer, case, side, record), f"{case.name}, {side}") for case in layers for side in _SIDES
    ]
    side_by_side(jobs, workers, until, record)


_SIDES: dict[str, Callable[[Case], Callable[..., Any]]] = {"jaxcnnbp": manual_layer, "autodiff": autodiff_layer}


def _layer(case: Case, side: str, record: Record) -> None:
    x, kernel, delta = arrays(case, "float32")
    x = jnp.round(4 * x) / 4 if case.is_pool else x  # many cells of a window are equal
    inputs = (x,) if case.is_pool else (x, kernel)
    # The sums of a convolution are cuDNN's wherever its form is lax's, and not all of its algorithms promise an order.
    promised = side == "jaxcnnbp" and case.is_pool
    _same(f"{case.name}, {side}", _SIDES[side](case), inputs, delta, promised, record)


def _pools() -> list[tuple[str, dict[str, Any]]]:
    windows = [((2, 2), (2, 2)), ((3, 3), (2, 2)), ((3, 3), (1, 1)), ((5, 4), (3, 1))]
    rows = [
        ("max_pool", dict(window_shape=k, strides=s, ties=t)) for k, s in windows for t in ("first", "all", "split")
    ]
    return [*rows, *[("avg_pool", dict(window_shape=k, strides=s)) for k, s in windows], ("max_unpool", {})]


def _pool(op: str, options: dict[str, Any], dry: bool, record: Record) -> None:
    draws = np.random.default_rng(0)
    x = jnp.asarray(np.round(draws.normal(size=(2, 9, 9, 3) if dry else (32, 57, 57, 64)), 1), jnp.float32)
    function = functools.partial(getattr(jaxcnnbp, op), **options)
    if op == "max_unpool":  # several values may go to one cell
        values, cells = jaxcnnbp.max_pool_with_argmax(x, (3, 3), (2, 2))
        function, x = (lambda v: jaxcnnbp.max_unpool(v, cells, x.shape[1:3])), values
    shape = jax.eval_shape(function, x).shape
    delta = jnp.asarray(draws.normal(size=shape), jnp.float32)
    # Addition to cells that several windows chose is a scatter, which JAX does not promise to order.
    _same(f"{op} {options}", function, (x,), delta, op != "max_unpool", record)


def _same(name: str, function: Any, inputs: Any, delta: Any, promised: bool, record: Record) -> None:
    def gradients(inputs: Any, delta: Any) -> Any:
        value, back = jax.vjp(function, *inputs)
        return value, back(delta)

    run = jax.jit(gradients)
    first, different = [np.asarray(a) for a in jax.tree.leaves(run(inputs, delta))], 0
    for _ in range(RUNS - 1):
        again = jax.tree.leaves(run(inputs, delta))
        different += any(not np.array_equal(a, np.asarray(b)) for a, b in zip(first, again, strict=True))
    record.add(name=name, runs=RUNS, differ=different, ok=different == 0 or not promised)
