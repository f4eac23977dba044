"""Checkpoints: resumed to the same bits, damage found, runs of others refused, a full disk survived."""

from __future__ import annotations

import collections
import dataclasses
import gc
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but

from jaxcnnbp.train import (
    Data,
    Diverged,
    InputError,
    Options,
    Result,
    Run,
    SaveFailed,
    Stopped,
    TrainState,
    Watch,
    load_params,
    train,
)
from jaxcnnbp.train.checkpoints import identity as identities
from jaxcnnbp.train.checkpoints import store as module
from jaxcnnbp.train.checkpoints.arrays import check_sums
from jaxcnnbp.train.checkpoints.identity import identity_of
from jaxcnnbp.train.checkpoints.store import Checkpoints
from jaxcnnbp.train.layout import ONE_DEVICE
from jaxcnnbp.train.run_state import RunState

# Coroutines that Orbax abandons when a file is damaged complain while they are collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

# All that draws random numbers or carries state is switched on; 50 images give batches of 20, 20 and 10.
OPTIONS = Options(
    model="tiny",
    epochs=3,
    batch=20,
    optimizer="adamw",
    learning_rate=0.01,
    weight_decay=0.01,
    ema=0.9,
    augment="affine",
    seed=5,
)


@pytest.fixture(autouse=True)
def _abandoned() -> Iterator[None]:
    """Has them collected within the test that they belong to."""
    yield
    gc.collect()


class Notes(Watch):
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def after(asked: int) -> Callable[[], bool]:
    """A wish to stop that comes when it is asked for the n-th time."""
    counter = collections.Counter()

    def stop() -> bool:
        counter["asked"] += 1
        return counter["asked"] >= asked

    return stop


def bits(tree: object) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def same(ours: Result, theirs: Result) -> bool:
    """Whether two runs ended alike in every bit, what the clock says left out."""
    unclocked = [
        [dataclasses.replace(record, seconds=0.0, images_per_second=0.0) for record in result.history]
        for result in (ours, theirs)
    ]
    return (
        bits((ours.params, ours.best_params)) == bits((theirs.params, theirs.best_params))
        and unclocked[0] == unclocked[1]
        and ours.best == theirs.best
        and np.array_equal(ours.score.confusion, theirs.score.confusion)
    )


@pytest.fixture(scope="module")
def undisturbed(bars: Data) -> Result:
    return train(OPTIONS, bars)


@pytest.fixture(scope="module")
def finished(bars: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("finished") / "checkpoints"
    train(OPTIONS, bars, run=Run(checkpoints=str(folder)))
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return shutil.copytree(finished, tmp_path / "checkpoints")


def test_resumed_again_and_again_to_the_same_bits(bars: Data, undisturbed: Result, tmp_path: Path) -> None:
    run = Run(checkpoints=str(tmp_path / "new" / "checkpoints"), resume=True, checkpoint_every=2)
    stops: list[str] = []
    notes = Notes()
    while True:
        try:
            result = train(OPTIONS, bars, [notes], run, after(2))
            break
        except Stopped as stopped:
            stops.append(str(stopped))
    assert len(stops) >= 3
    pattern = r"Stopped at step \d of 9 and saved; the same command with --resume goes on\."
    assert all(re.fullmatch(pattern, text) for text in stops)
    assert notes.texts == [f"{run.checkpoints}: holds no checkpoint yet; the run starts at step 0."]
    assert same(result, undisturbed)
    best = load_params(tmp_path / "new" / "checkpoints" / "best.npz")
    assert bits(best) == bits(undisturbed.best_params)


def test_a_finished_run_resumes_to_its_end(bars: Data, undisturbed: Result, folder: Path) -> None:
    assert same(train(OPTIONS, bars, run=Run(checkpoints=str(folder), resume=True)), undisturbed)


def test_retention(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {"3", "6", "9", "best.npz", "lock"}


def test_folders_that_cannot_be_meant(bars: Data, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds checkpoints of a run; give --resume"):
        train(OPTIONS, bars, run=Run(checkpoints=str(folder)))
    step = max(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    with pytest.raises(InputError, match=rf"`checkpoints` .* is one checkpoint of a run; give the .* run, {folder}\."):
        train(OPTIONS, bars, run=Run(checkpoints=str(folder / str(step)), resume=True))
    with pytest.raises(InputError, match=r"`resume` \(=True\) needs `checkpoints`"):
        Run(resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"`checkpoints` \(=.*file\) cannot be used"):
        train(OPTIONS, bars, run=Run(checkpoints=str(tmp_path / "file")))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"batch": 25}, r"`batch` \(=25\) is 20 in .*; give the options of that run"),
        ({"seed": 6}, r"`seed` \(=6\) is 5 in "),
        ({"epochs": 4}, r"`epochs` \(=4\) is 3 in "),
    ],
)
def test_other_options_are_named(bars: Data, folder: Path, change: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        train(dataclasses.replace(OPTIONS, **change), bars, run=Run(checkpoints=str(folder), resume=True))


def test_other_data_and_other_versions(bars: Data, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(checkpoints=str(folder), resume=True)
    images = np.array(bars.train.images)
    images[7, 3, 3] ^= 1
    with pytest.raises(InputError, match=r"was made from other data"):
        train(OPTIONS, dataclasses.replace(bars, train=bars.train._replace(images=images)), run=run)
    own = identities.versions()
    monkeypatch.setattr(identities, "versions", lambda: own | {"jax": "0.9.0"})
    notes = Notes()
    train(OPTIONS, bars, [notes], run)
    assert any("the result may differ in its last digits" in text for text in notes.texts)
    monkeypatch.setattr(identities, "versions", lambda: own)
    monkeypatch.setattr(identities, "cpu_kind", lambda: "another")
    train(OPTIONS, bars, [notes := Notes()], run)
    assert any("processor" in text for text in notes.texts)
    monkeypatch.setattr(identities, "versions", lambda: own | {"jaxcnnbp": "7.0.0"})
    with pytest.raises(InputError, match=r"was written by jaxcnnbp \S+, and this is 7\.0\.0; resume with that version"):
        train(OPTIONS, bars, run=run)


def test_another_network_of_the_same_name(bars: Data, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jaxcnnbp import nn
    from jaxcnnbp.nn.models import MODELS

    other = nn.Sequential((nn.Conv(3, 3, stride=2), nn.Relu(), nn.Flatten(), nn.Dense(10)))
    monkeypatch.setitem(MODELS, "tiny", dataclasses.replace(MODELS["tiny"], build=lambda: other))
    with pytest.raises(InputError, match=r"holds another network \(its `best/conv1/bias` is \(\[2\]"):
        train(OPTIONS, bars, run=Run(checkpoints=str(folder), resume=True))


def test_a_full_disk_ends_with_a_sentence_and_keeps_what_was_good(
    bars: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(checkpoints=str(tmp_path / "checkpoints"))
    usage = shutil.disk_usage(tmp_path)
    free = iter([10**9, 10**9, 0, 0])
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage._replace(free=next(free)))
    notes = Notes()
    with pytest.raises(SaveFailed, match=r"The checkpoint of step 9 could not be .* \(No space left .* of step 3\."):
        train(OPTIONS, bars, [notes], run)
    assert any("The checkpoint of step 6 could not be written" in text for text in notes.texts)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir() if path.is_dir()} == {"0", "3"}


def test_orbax_that_fails_half_way_is_a_sentence_too(
    bars: Data, undisturbed: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from etils.epath import abstract_path

    run = Run(checkpoints=str(tmp_path / "checkpoints"))
    whole = abstract_path.Path.write_text

    def half(path, text: str, *rest: object, **more: object) -> int:
        if "/6." in str(path) or "/9." in str(path):
            raise OSError(28, "No space left on device")
        return whole(path, text, *rest, **more)

    monkeypatch.setattr(abstract_path.Path, "write_text", half)
    with pytest.raises(
        SaveFailed, match=r"The checkpoint of step 9 could not be written to .*; the last good one is of step 3\."
    ):
        train(OPTIONS, bars, run=run)
    monkeypatch.undo()
    assert same(train(OPTIONS, bars, run=dataclasses.replace(run, resume=True)), undisturbed)


def test_a_state_that_is_not_finite_is_never_written(bars: Data, tmp_path: Path) -> None:
    identity = identity_of(OPTIONS, bars, 1, 1, print)
    checkpoints = Checkpoints(tmp_path / "checkpoints", 3, ONE_DEVICE, identity, print)
    with pytest.raises(ArithmeticError, match="not finite"):
        checkpoints.save(small_state(np.nan), None, RunState(step=1))
    with pytest.raises(InputError, match=r"`checkpoints` \(=.*\) is in use by another run"):
        Checkpoints(tmp_path / "checkpoints", 3, ONE_DEVICE, identity, print)
    checkpoints.close()
    assert [path.name for path in checkpoints.folder.iterdir()] == ["lock"]


def small_state(value: float) -> TrainState:
    """A state without a network."""
    params = {"dense1": {"kernel": jnp.arange(60.0).reshape(5, 12) + value, "bias": jnp.zeros(12)}}
    return TrainState(params, None, {}, jnp.int32(3), jax.random.key(1))


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a flipped bit at the start": lambda content: flipped(content, 0),
    "a flipped bit in the middle": lambda content: flipped(content, len(content) // 2),
    "a flipped bit at the end": lambda content: flipped(content, len(content) - 1),
    "half of it": lambda content: content[: len(content) // 2],
    "nothing in it": lambda content: b"",
}


@pytest.mark.parametrize("damage", slow_but(["a flipped bit in the middle"], DAMAGES))
def test_damage_to_any_file_is_found_or_harmless(bars: Data, tmp_path: Path, damage: str) -> None:
    """Either the newest checkpoint gives the right bits, or the one before it does and the newest is moved aside."""
    identity = identity_of(OPTIONS, bars, 1, 1, lambda _: None)
    source = tmp_path / "source"
    checkpoints = Checkpoints(source, 3, ONE_DEVICE, identity, print)
    for step in (1, 2):
        checkpoints.save(small_state(step), None, RunState(step=step))
    checkpoints.close()
    found = collections.Counter()
    for path in sorted(path.relative_to(source) for path in (source / "2").rglob("*") if path.is_file()):
        copy = shutil.copytree(source, tmp_path / "copy")
        before = (copy / path).read_bytes()
        (copy / path).write_bytes(DAMAGES[damage](before) if before else b"x")
        notes: list[str] = []
        again = Checkpoints(copy, 3, ONE_DEVICE, identity, notes.append)
        restored = again.restore(small_state(0), None)
        again.close()
        assert restored is not None
        assert bits(restored.state.params) == bits(small_state(restored.run_state.step).params), path
        assert (restored.run_state.step == 1) == bool(notes) == (copy / "damaged" / "2").exists(), path
        found[restored.run_state.step] += 1
        shutil.rmtree(copy)
    assert found[1] >= 3, "no damage was found at all"


def test_when_all_are_damaged_the_run_does_not_start_anew(bars: Data, folder: Path) -> None:
    for path in folder.glob("*/about/metadata"):
        path.write_bytes(path.read_bytes().replace(b'"step": ', b'"step": 1'))
    notes = Notes()
    with pytest.raises(InputError, match=r"none of its 3 checkpoints can be read; name another folder"):
        train(OPTIONS, bars, [notes], Run(checkpoints=str(folder), resume=True))
    assert len(notes.texts) == 3


def test_check_sums_notice_every_single_bit() -> None:
    array = jnp.array([[1.5, 0.0], [-2.0, 3.0]], jnp.float32)
    plain = np.asarray(check_sums({"a": array})[0]["a"])
    for element in range(4):
        for bit in range(32):
            words = np.array(array).view(np.uint32).reshape(-1)
            words[element] ^= np.uint32(1 << bit)
            changed = jnp.asarray(words.view(np.float32).reshape(2, 2))
            assert not np.array_equal(np.asarray(check_sums({"a": changed})[0]["a"]), plain)


def test_divergence_keeps_the_last_good_state_and_the_best_model(bars: Data, tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, optimizer="sgd", learning_rate=1e30, ema=0.0, weight_decay=0.0)
    with pytest.raises(Diverged, match=r"The last good state, of step \d, is in .*checkpoints\.$"):
        train(options, bars, run=Run(checkpoints=str(tmp_path / "checkpoints")))
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"0", "lock"}
