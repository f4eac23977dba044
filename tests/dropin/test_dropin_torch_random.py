"""A sample of the random pools of `fuzz_pools.py` against PyTorch."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import sys
from pathlib import Path

import pytest

import jaxcnnbp

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
    assert {c.dtype for c in configs} == set(FUZZ.TOLERANCE)
    assert {c.data for c in configs if c.kind == "max"} == set(FUZZ.DATA)
    assert {len(c.size) for c in configs} == {1, 2, 3}
    assert all(any(c.ceil_mode and c.kind == kind for c in configs) for kind in ("max", "avg", "lp"))
    assert any(math.prod(c.size) > 256 for c in configs)


MISTAKES = {
    "a window in ceil mode is dropped": lambda c: dict(ceil_mode=False),
    "padding counts in a mean": lambda c: dict(count_include_pad=True),
    "padding does not count in a mean": lambda c: dict(count_include_pad=False),
    "padding is on the other side": lambda c: dict(low=c.high, high=c.low),
    "dilation is forgotten": lambda c: dict(dilation=(1,) * len(c.size)),
    "a norm is off": lambda c: dict(norm=c.norm + 1e-6),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_found(mistake: str, monkeypatch: pytest.MonkeyPatch):
    right = FUZZ.by_jaxcnnbp

    def wrong(config, x):
        return right(dataclasses.replace(config, **MISTAKES[mistake](config)), x)

    monkeypatch.setattr(FUZZ, "by_jaxcnnbp", wrong)
    assert _finds(range(64))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind, ties", [("max", "split"), ("min", "all")])
def test_another_tie_is_found(kind: str, ties: str, monkeypatch: pytest.MonkeyPatch):
    def wrong(config, x):
        pool = getattr(jaxcnnbp, f"{kind}_pool")
        padding = list(zip(config.low, config.high, strict=True))
        options = dict(window_dilation=config.dilation, ceil_mode=config.ceil_mode, ties=ties)
        return pool(x, config.size, config.stride, padding, **options), None

    monkeypatch.setattr(FUZZ, "by_jaxcnnbp", wrong)
    monkeypatch.setattr(FUZZ, "by_torch", lambda config, x, torchs=FUZZ.by_torch: (torchs(config, x)[0], None))
    assert _finds(seed for seed in range(200) if FUZZ.draw(seed).kind == kind and FUZZ.draw(seed).data == "ties")


def _finds(seeds) -> bool:
    for seed in seeds:
        try:
            FUZZ.compare(FUZZ.draw(seed))
        except AssertionError:
            return True
    return False
