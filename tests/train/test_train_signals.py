"""The command line killed and asked to stop at random, then left to end: the same bits as undisturbed."""

from __future__ import annotations

import importlib.util
import random
import signal
from pathlib import Path

import pytest
from running import QUICK_FLAGS

from jaxcnnbp.train.processes import heeded

_SPEC = importlib.util.spec_from_file_location("soak", Path(__file__).with_name("soak.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
soak = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(soak)


@pytest.mark.slow
def test_killed_and_stopped_at_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times here; `python tests/train/soak.py --kills 40` does it for longer."""
    monkeypatch.setenv("XLA_FLAGS", QUICK_FLAGS)
    options = ["--checkpoint-every", "5", "--epochs", "12"]
    longest = soak.undisturbed(tmp_path / "quiet", options, tmp_path / "cache")
    random.seed(1)
    numbers = [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL]
    lines = soak.disturbed(tmp_path / "restless", options, tmp_path / "cache", numbers, longest)
    assert len(lines) == 4
    assert soak.differences(tmp_path / "quiet", tmp_path / "restless") == []


def test_a_signal_is_a_wish_and_the_second_interrupt_an_order() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with heeded() as wish:
        assert not wish()
        signal.raise_signal(signal.SIGTERM)
        assert wish()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before
