"""Runs that are resumed for longer, validated by images held out, and ended when they no longer improve."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxcnnbp.ops.conv.tuning import Tuned, Tuning
from jaxcnnbp.train import Data, InputError, Options, Result, Run, Stopped, Watch, train
from jaxcnnbp.train.checkpoints.identity import Identity, identity_of
from jaxcnnbp.train.optimizer import Extension, extended_schedule, make_schedule
from jaxcnnbp.train.run_state import Best, RunState

OPTIONS = Options(model="tiny", epochs=2, batch=20, ema=0.9, augment="shift", seed=5)  # 3 steps an epoch
LONGER = dataclasses.replace(OPTIONS, epochs=4)


class Notes(Watch):
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def bits(result: Result) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves((result.params, result.best_params))]


@pytest.mark.parametrize(
    ("extensions", "expected"),
    [
        ([], [1, 0.75, 0.5, 0.25]),
        ([Extension("hold", 4, 4, 6)], [1, 0.75, 0.5, 0.25, 0.25, 0.25]),
        ([Extension("restart", 2, 4, 8)], [1, 0.75, 0.5, 0.25, 1, 0.75, 0.5, 0.25]),
        ([Extension("stretch", 2, 4, 8)], [1, 0.75, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        ([Extension("hold", 4, 4, 5), Extension("restart", 5, 5, 7)], [1, 0.75, 0.5, 0.25, 0.25, 1, 0.5]),
    ],
)
def test_rates_of_extended_runs(extensions: list[Extension], expected: list[float]) -> None:
    options = Options(schedule="linear", learning_rate=1.0, final_rate=0.0, epochs=4)
    rate = extended_schedule(options, 1, extensions)
    assert [float(rate(step)) for step in range(len(expected))] == expected


def same_run(ours: Options, theirs: Options, data: Data, step: int, extend: str | None = None) -> RunState:
    """What a checkpoint of `theirs` gives to a run of `ours`."""
    found = identity_of(theirs, data, 1, 1, print).to_json()
    identity = identity_of(ours, data, 1, 1, lambda _: None, extend)
    return identity.require_same(found, RunState(step=step, epoch=step // 3 + 1), Path("place"))


def test_another_tuning_is_refused(bars: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other implementations round differently, and a resumed run has the same bits."""
    without = identity_of(OPTIONS, bars, 1, 1, print).to_json()
    state, place = RunState(step=3, epoch=1), Path("place")
    tuning = Tuning((Tuned("forward float32[1,4,4,1] * [2,2,1,3]", "xla"),))
    monkeypatch.setattr("jaxcnnbp.train.checkpoints.identity.in_force", lambda: tuning)
    under = identity_of(OPTIONS, bars, 1, 1, print)
    assert under.require_same(under.to_json(), state, place) == state
    with pytest.raises(InputError, match=rf"tuning {tuning.digest}\) is none in place; name the file of that run"):
        under.require_same(without, state, place)


CONSTANT = dataclasses.replace(OPTIONS, schedule="constant")


@pytest.mark.parametrize(
    ("theirs", "changes"),
    [
        (CONSTANT, {"epochs": 9}),
        (dataclasses.replace(CONSTANT, epochs=9), {"epochs": 2}),
        (CONSTANT, {"final_rate": 0.5}),  # which a constant schedule does not read
        (OPTIONS, {"learning_rate": 5e-3}),  # adam's own
        (OPTIONS, {"patience": 4}),
        (OPTIONS, {"rotate": 30.0, "shear": 0.0}),  # shifts do neither
        (OPTIONS, {"loss": "cross_entropy"}),  # the model's own
        (OPTIONS, {"corrupt": "skip"}),
        (dataclasses.replace(CONSTANT, optimizer="sgd"), {"momentum": 0.5, "beta2": 0.5}),
    ],
)
def test_what_changes_no_step_taken_is_allowed(bars: Data, theirs: Options, changes: dict) -> None:
    assert same_run(dataclasses.replace(theirs, **changes), theirs, bars, step=6).extensions == []


@pytest.mark.parametrize(
    ("theirs", "changes", "extend", "sentence"),
    [
        (OPTIONS, {"epochs": 4}, None, r"`epochs` \(=4\) is 2 in place, and the cosine .*; give --extend hold,"),
        (dataclasses.replace(CONSTANT, warmup=0.5), {"epochs": 4}, None, "and the constant schedule would have given"),
        (CONSTANT, {"epochs": 1}, None, r"`epochs` \(=1\) are fewer than place has done \(6 steps\)"),
        (LONGER, {"epochs": 3}, "restart", r"`extend` \(=restart\) adds epochs after that"),
        (CONSTANT, {"learning_rate": 0.1}, None, r"`learning_rate` \(=0\.1\) is None in place"),
        (OPTIONS, {"epochs": 4, "schedule": "linear"}, "hold", r"`schedule` \(=linear\) is cosine in place"),
        (OPTIONS, {"rotate": 30.0, "augment": "affine"}, None, r"`augment` \(=affine\) is shift in place"),
        (OPTIONS, {"augment": "none"}, None, r"`augment` \(=none\) is shift in place"),
        (OPTIONS, {"optimizer": "sgd"}, None, r"`optimizer` \(=sgd\) is adam in place"),
        (OPTIONS, {"batch": 25}, None, r"`batch` \(=25\) is 20 in place"),
        (dataclasses.replace(OPTIONS, corrupt="skip"), {"corrupt": "stop"}, None, r"`corrupt` \(=stop\) is skip"),
    ],
)  # fmt: skip
def test_the_rest_is_refused_by_name(
    bars: Data, theirs: Options, changes: dict, extend: str | None, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        same_run(dataclasses.replace(theirs, **changes), theirs, bars, 6, extend)


def test_a_run_that_was_extended_in_another_way(bars: Data) -> None:
    extended = RunState(step=6, epoch=3, extensions=[Extension("restart", 6, 2, 4)])
    for extend in (None, "restart"):
        identity = identity_of(LONGER, bars, 1, 1, print, extend)
        assert identity.require_same(identity.to_json(), extended, Path("place")) == extended
    identity = identity_of(LONGER, bars, 1, 1, print, "stretch")
    with pytest.raises(InputError, match=r"`extend` \(=stretch\) is restart in place; give the options of that run"):
        identity.require_same(identity.to_json(), extended, Path("place"))


def test_a_checkpoint_from_before_an_option_existed(bars: Data) -> None:
    found = identity_of(OPTIONS, bars, 1, 1, print).to_json()
    del found["options"]["patience"], found["options"]["validation"]
    identity: Identity = identity_of(OPTIONS, bars, 1, 1, print)
    assert identity.require_same(found, RunState(step=3, epoch=2), Path("place")).step == 3


@pytest.mark.slow
def test_a_constant_rate_extends_to_the_bits_of_the_longer_run(bars: Data, tmp_path: Path) -> None:
    run = Run(checkpoints=str(tmp_path / "checkpoints"), resume=True)
    train(CONSTANT, bars, run=run)
    longer = dataclasses.replace(CONSTANT, epochs=4)
    assert bits(train(longer, bars, run=run)) == bits(train(longer, bars))


@pytest.mark.slow
def test_an_extension_is_recorded_and_goes_on_to_the_same_bits(bars: Data, tmp_path: Path) -> None:
    results, notes = [], Notes()
    for name, interrupted in (("whole", False), ("interrupted", True)):
        run = Run(checkpoints=str(tmp_path / name), resume=True)
        train(OPTIONS, bars, run=run)
        asked = iter([False] * 2 + [interrupted] + [False] * 99)
        extending = dataclasses.replace(run, extend="restart")
        try:
            result = train(LONGER, bars, [notes], extending, stop=lambda asked=asked: next(asked))
        except Stopped:
            result = train(LONGER, bars, run=run)  # recorded: it need not be named again
        results.append(result)
    assert bits(results[0]) == bits(results[1])
    rate = make_schedule(OPTIONS, 6)
    assert [record.learning_rate for record in results[0].history] == [float(rate(step)) for step in (2, 5, 2, 5)]
    said = "4 epochs instead of 2: from the end of epoch 2 on, the rate begins anew (--extend restart)."
    assert sum(text.endswith(said) for text in notes.texts) == 2
    with pytest.raises(InputError, match=r"`extend` \(=hold\) needs `resume`"):
        Run(extend="hold")


def test_validation_chooses_the_best_epoch_and_ends_the_run(bars: Data, tmp_path: Path) -> None:
    run, notes = Run(checkpoints=str(tmp_path / "checkpoints"), resume=True, checkpoint_every=100), Notes()
    options = Options(model="tiny", epochs=9, batch=20, learning_rate=1e-6, validation=0.2, patience=2)
    result = train(options, bars, [notes], run)
    held = [(record.validation_error, record.validation_loss) for record in result.history]
    assert (result.best.validation_error, result.best.validation_loss) == min(held)
    assert result.best.epoch == held.index(min(held)) + 1
    assert result.data.validation is not None
    assert (len(result.data.train.labels), len(result.data.validation.labels)) == (40, 10)
    assert result.best_score is not None
    assert result.best_score.error == result.best.test_error
    ended = len(result.history) < 9
    assert ended == any(text.endswith("(--patience).") for text in notes.texts)
    again = train(options, bars, run=run)
    assert again.best_score is not None
    assert (bits(again), again.best_score.confusion.tolist()) == (bits(result), result.best_score.confusion.tolist())


def test_patience_counts_from_the_best_epoch(bars: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Best, "beats", lambda self, other: other is None)  # nothing is ever better than the first epoch
    run, notes = Run(checkpoints=str(tmp_path / "checkpoints"), resume=True), Notes()
    options = dataclasses.replace(CONSTANT, epochs=9, validation=0.2, patience=2)
    assert len(train(options, bars, [notes], run).history) == 3
    ended = "No lower validation error than after epoch 1 in 2 epochs: the run ends after epoch 3 of 9 (--patience)."
    assert ended in notes.texts
    assert len(train(dataclasses.replace(options, patience=3), bars, run=run).history) == 4
    with pytest.raises(InputError, match=r"`patience` \(=2\) needs images .*; --validation 0\.1 holds some out"):
        train(dataclasses.replace(options, validation=0.0), bars)
