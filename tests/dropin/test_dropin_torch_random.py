"""A sample of the random pools of `fuzz_pools.py` against PyTorch."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")


def _fuzz():
    spec = importlib.util.spec_from_file_location("fuzz_pools", Path(__file__).with_name("fuzz_pools.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_pools"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


FUZZ = _fuzz()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("seed", range(64))
def test_a_random_pool_is_that_of_torch(seed: int):
    FUZZ.compare(FUZZ.draw(seed))


def test_the_sample_has_everything():
    configs = [FUZZ.draw(seed) for seed in range(64)]
    assert {c.kind for c in configs} == set(FUZZ.KINDS)
    assert {(c.kind, c.data) for c in configs} >= {(kind, "special") for kind in ("max", "avg", "adaptive_avg")}
    assert any(c.ceil_mode and c.kind == kind for kind in ("max", "avg", "lp") for c in configs)
