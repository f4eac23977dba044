"""Whole runs: reproducible, complete, stopped when they diverge."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxcnnbp.train import (
    Data,
    Diverged,
    InputError,
    JsonLines,
    Lines,
    Options,
    Result,
    Watch,
    load_params,
    save_params,
    train,
)
from jaxcnnbp.train.feed import batches
from jaxcnnbp.train.watch.events import Epoch, Progress

# All that draws random numbers or carries state is switched on; 50 images give batches of 20, 20 and 10.
OPTIONS = Options(
    model="tiny",
    epochs=2,
    batch=20,
    optimizer="adamw",
    learning_rate=0.01,
    weight_decay=0.01,
    ema=0.9,
    augment="affine",
    seed=5,
)


class Recorder(Watch):
    """Keeps how many images it was told of."""

    def __init__(self) -> None:
        self.images: list[int] = []

    def progress(self, progress: Progress) -> None:
        self.images.append(progress.images)


@dataclasses.dataclass
class Run:
    """A finished run with what was written about it."""

    result: Result
    events: list[dict]
    lines: list[str]
    images: list[int]


@pytest.fixture(scope="module")
def run(bars: Data, tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    lines: list[str] = []
    recorder = Recorder()
    result = train(OPTIONS, bars, [JsonLines(path), Lines(lines.append, every=0.0), recorder])
    events = [json.loads(line) for line in path.read_text().splitlines()]
    return Run(result, events, lines, recorder.images)


def bits(params: dict) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(params)]


def figures(result: Result) -> list[tuple]:
    return [(record.train_loss, record.train_error, record.test_loss, record.test_error) for record in result.history]


def test_same_seed_same_bits(run: Run, bars: Data) -> None:
    again = train(OPTIONS, bars)
    assert bits(again.params) == bits(run.result.params)
    assert figures(again) == figures(run.result)
    np.testing.assert_array_equal(again.score.confusion, run.result.score.confusion)


def test_other_seed_other_bits(run: Run, bars: Data) -> None:
    other = train(dataclasses.replace(OPTIONS, seed=6, epochs=1), bars)
    assert figures(other)[0] != figures(run.result)[0]


def test_epochs_visit_every_image_once_in_their_own_order() -> None:
    orders = [np.concatenate(list(batches(seed, epoch, 50, 20))) for seed, epoch in ((0, 1), (0, 2), (1, 1), (0, 1))]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(50))
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
    np.testing.assert_array_equal(orders[0], orders[3])


def test_last_partial_batch_is_trained_on(run: Run) -> None:
    assert [record.step for record in run.result.history] == [3, 6]
    assert run.images[-1] == 100
    assert run.result.score.confusion.sum() == 20


def test_metrics_file(run: Run) -> None:
    begin, *epochs, end = run.events
    assert begin["event"] == "begin"
    assert begin["options"]["optimizer"] == "adamw"
    assert begin["model"] == "tiny"
    assert (begin["train_images"], begin["test_images"], begin["image_shape"]) == (50, 20, [8, 8, 1])
    assert set(begin["versions"]) == {"python", "jaxcnnbp", "jax", "jaxlib", "optax", "numpy"}
    records = [Epoch(**{name: value for name, value in event.items() if name != "event"}) for event in epochs]
    assert records == list(run.result.history)
    assert end["event"] == "end"
    assert end["confusion"] == run.result.score.confusion.tolist()
    assert end["test_error"] == run.result.history[-1].test_error


def test_lines_are_readable(run: Run) -> None:
    assert any(line.startswith("epoch 1/2  loss ") for line in run.lines)
    finished = [line for line in run.lines if "test loss" in line]
    assert [line[:9] for line in finished] == ["epoch 1/2", "epoch 2/2"]
    assert "images/s" in finished[0]


def test_learning_happens(bars: Data) -> None:
    result = train(Options(epochs=20, batch=50, learning_rate=0.02), bars)
    assert result.history[-1].train_error < 0.1
    assert result.history[-1].train_loss < result.history[0].train_loss / 4


def test_divergence_names_epoch_and_step(bars: Data, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    options = Options(model="tiny", epochs=3, batch=25, optimizer="sgd", learning_rate=1e30)
    with pytest.raises(Diverged, match=r"The loss is \S+ in epoch 1 at step \d; a smaller"):
        train(options, bars, [JsonLines(path)])
    last = json.loads(path.read_text().splitlines()[-1])
    assert last["event"] == "fail"
    assert "The loss is" in last["reason"]


def test_gradients_by_autodiff_train_the_same_network(bars: Data) -> None:
    manual, autodiff = (
        train(Options(model="tiny", epochs=1, batch=25, optimizer="sgd", gradients=gradients), bars)
        for gradients in ("manual", "autodiff")
    )
    for ours, theirs in zip(jax.tree.leaves(manual.params), jax.tree.leaves(autodiff.params), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)  # two float32 steps, sums in another order


def test_float64_runs_in_float64(bars: Data) -> None:
    result = train(Options(model="tiny", epochs=1, batch=50, dtype="float64"), bars)
    assert {np.asarray(leaf).dtype for leaf in jax.tree.leaves(result.params)} == {np.dtype(np.float64)}
    assert math.isfinite(result.score.loss)


def test_model_and_data_that_do_not_fit(bars: Data) -> None:
    with pytest.raises(InputError, match=r"`model` \(=lenet5\) does not take the 8x8x1 images of bars"):
        train(Options(model="lenet5"), bars)
    with pytest.raises(InputError, match=r"`model` \(=resnet\) must be one of digits, lenet5"):
        train(Options(model="resnet"), bars)


def test_the_last_layer_follows_the_classes(bars: Data) -> None:
    result = train(Options(model="tiny", epochs=1, batch=50), dataclasses.replace(bars, classes=47))
    assert result.params["dense1"]["bias"].shape == (47,)
    assert result.score.confusion.shape == (47, 47)


def test_parameters_survive_the_file(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "params.npz"
    save_params(path, run.result.params)
    assert bits(load_params(path)) == bits(run.result.params)
    assert list(tmp_path.iterdir()) == [path]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="no readable file of parameters"):
        load_params(path)
