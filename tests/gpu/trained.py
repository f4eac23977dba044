"""Training on this device: two epochs, and the same two, interrupted in the middle and resumed, to the same bits."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxcnnbp.train import Data, Options, Result, Run, Split, Stopped, load, train
from tests.gpu.record import Record


def run(record: Record, dry: bool, folder: str | None) -> None:
    """Error and images a second of each epoch; whether the resumed run ends with the same weights and figures."""
    options = Options(data=folder or "digits", epochs=2, batch=64)
    data = _few(load(options)) if dry else load(options)
    with tempfile.TemporaryDirectory() as place:
        for epoch in train(options, data).history:
            record.add(name=f"epoch {epoch.epoch}", **dataclasses.asdict(epoch))
        once = train(options, data, run=Run(checkpoints=f"{place}/once", deterministic=True))
        for epoch in once.history:
            record.add(name=f"epoch {epoch.epoch}, deterministic", **dataclasses.asdict(epoch))
        halves = f"{place}/halves"
        try:
            train(
                options,
                data,
                run=Run(checkpoints=halves, deterministic=True),
                stop=_after(once.history[0].step * 3 // 2),
            )
            record.add(name="interrupted", ok=False)
        except Stopped:
            resumed = train(options, data, run=Run(checkpoints=halves, deterministic=True, resume=True))
            record.add(name="resumed to the same bits", ok=_bits(once) == _bits(resumed))
    error, most = once.history[-1].test_error, 0.95 if dry else 0.1
    record.add(name="learns", test_error=error, ok=error < most)


def _few(data: Data) -> Data:
    few = {
        name: Split(part.images[:256], part.labels[:256]) for name, part in (("train", data.train), ("test", data.test))
    }
    return dataclasses.replace(data, **few)


def _after(steps: int) -> Callable[[], bool]:
    count = iter(range(steps))
    return lambda: next(count, None) is None


def _bits(result: Result) -> list[Any]:
    return [np.asarray(a).tobytes() for a in jax.tree.leaves(result.params)]
