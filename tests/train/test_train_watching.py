"""What one sees of a run: lines with throughput, TensorBoard, traces by rule, where the first NaN appeared."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jaxcnnbp import nn
from jaxcnnbp.nn.models import MODELS
from jaxcnnbp.train import (
    Data,
    Diverged,
    JsonLines,
    Lines,
    Options,
    Program,
    Run,
    TensorBoard,
    TrainState,
    initial_state,
    take_batch,
    train,
)
from jaxcnnbp.train.diagnose import first_fault
from jaxcnnbp.train.profile import place_of
from jaxcnnbp.train.watch.events import Progress

OPTIONS = Options(model="tiny", epochs=2, batch=5)


@pytest.fixture(scope="module")
def traced(bars: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trace and with TensorBoard's files; 10 steps an epoch."""
    folder = tmp_path_factory.mktemp("traced")
    plain = nn.Sequential((nn.Conv(2, 3), nn.Relu(), nn.MaxPool(2), nn.Flatten(), nn.Dense(10)))
    MODELS["plain"] = dataclasses.replace(MODELS["tiny"], build=lambda: plain)
    train(
        dataclasses.replace(OPTIONS, model="plain"),
        bars,
        [TensorBoard(folder / "board")],
        Run(profile=str(folder / "trace")),
    )
    return folder


def test_rules_stand_under_their_names_in_the_trace(traced: Path) -> None:
    with gzip.open(traced / "trace" / "rules.trace.json.gz", "rt") as file:
        names = {event.get("name", "") for event in json.load(file)["traceEvents"]}
    for place in ("conv1 conv.forward: ", "conv1 conv.kernel_grad: ", "pool1 extreme_pool.winners: ", "optimizer: "):
        assert any(name.startswith(place) for name in names), place
    assert list((traced / "trace").glob("plugins/profile/*/*.xplane.pb"))


def test_the_time_of_each_rule_is_listed(traced: Path) -> None:
    heading, *rows = (traced / "trace" / "rules.txt").read_text().splitlines()
    assert heading == "ms a step   share  layer and rule"
    shares = [float(row.split()[1]) for row in rows]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=1)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("jit(train_step)/jvp(conv2)/conv.forward/dot_general", "conv2 conv.forward"),
        ("jit(train_step)/transpose(jvp(conv2))/conv.kernel_grad/reduce_sum", "conv2 conv.kernel_grad"),
        ("jit(f)/shard_map/transpose(jvp(pool1))/mean_pool.mean_input_grad/mul", "pool1 mean_pool.mean_input_grad"),
        ("jit(train_step)/optimizer/mul", "optimizer"),
        ("jit(train_step)/jvp(jit(log_softmax))/sub", "elsewhere"),
    ],
)  # fmt: skip
def test_places_of_operations(path: str, place: str) -> None:
    assert place_of(path) == place


def test_tensorboard_has_every_epoch(traced: Path) -> None:
    board = EventAccumulator(str(traced / "board")).Reload()
    assert {"loss/train", "loss/test", "error/train", "error/test", "learning_rate"} <= set(board.Tags()["scalars"])
    assert [event.step for event in board.Scalars("loss/test")] == [10, 20]


def test_lines_tell_throughput_and_time_left() -> None:
    lines: list[str] = []
    watch = Lines(lines.append, every=0.0)
    beginning = train_beginning()
    watch.begin(beginning)
    watch.progress(Progress(1, 50, 2.0, 0.5))
    assert lines[0].startswith("epoch 1/2  loss 2.0000  error 50.00 %  ")
    assert lines[0].endswith(" left  (50 % of the run)")
    assert " images/s, 0:00:0" in lines[0]
    watch.begin(dataclasses.replace(beginning, step=7))
    assert lines[1] == "resumed at step 7, in epoch 1/2"


def train_beginning():
    from jaxcnnbp.train.watch.events import Beginning

    return Beginning(OPTIONS, "tiny", 100, "bars", 50, 20, (8, 8, 1))


def test_metrics_that_a_full_disk_refused_come_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, warnings = tmp_path / "metrics.jsonl", []
    lines = JsonLines(path, warnings.append)
    lines.note("first")
    whole = Path.open

    def full(self, *rest, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    lines.note("second")
    lines.note("third")
    monkeypatch.setattr(Path, "open", whole)
    path.write_bytes(path.read_bytes() + b'{"event": "no')  # what the disk still took
    lines.note("fourth")
    assert [json.loads(line)["text"] for line in path.read_text().splitlines()] == [
        "first",
        "second",
        "third",
        "fourth",
    ]
    assert warnings == [f"{path}: metrics cannot be written (No space left on device); later lines will bring them."]


NETWORK = nn.Sequential((nn.Conv(2, 3), nn.Relu(), nn.MaxPool(2), nn.Conv(3, 2), nn.Flatten(), nn.Dense(10)))


def poisoned(layer: str, parameter: str, value: float) -> TrainState:
    """A state with one parameter that is too large, or no number."""
    program = Program(NETWORK, nn.softmax_cross_entropy, optax.sgd(0.1), 10)
    state = initial_state(program, 0, (5, 8, 8, 1))
    own = state.params[layer] | {parameter: jnp.full_like(state.params[layer][parameter], value)}
    return state._replace(params=state.params | {layer: own})


@pytest.mark.parametrize(
    ("layer", "parameter", "value", "place"),
    [
        ("conv2", "bias", np.nan, "the weights before the step"),
        ("conv2", "kernel", 3e38, "layer conv2: its output, by the rule conv.forward"),
        ("dense1", "kernel", 3e38, "layer dense1: its output, by the rule dense.dense_forward"),
    ],
)
def test_the_first_nan_of_the_forward_pass(bars: Data, layer: str, parameter: str, value: float, place: str) -> None:
    program = Program(NETWORK, nn.softmax_cross_entropy, optax.sgd(0.1), 10)
    assert first_fault(program, poisoned(layer, parameter, value), take_batch(bars.train, np.arange(5))) == place


def test_the_first_nan_of_the_backward_pass(bars: Data) -> None:
    """Dead units hide weights that are too large from the loss, not from the delta."""
    network = nn.Sequential((nn.Conv(2, 3), nn.Relu(), nn.Flatten(), nn.Dense(10)))
    program = Program(network, lambda outputs, _: 2 * outputs.sum(), optax.sgd(0.1), 10)
    state = initial_state(program, 0, (5, 8, 8, 1))
    params = {
        "conv1": state.params["conv1"] | {"bias": jnp.full((2,), -1e6)},
        "dense1": state.params["dense1"] | {"kernel": jnp.full_like(state.params["dense1"]["kernel"], 3e38)},
    }
    place = first_fault(program, state._replace(params=params), take_batch(bars.train, np.arange(5)))
    assert place == "layer dense1: the delta of its input, by the rule dense.dense_input_grad"


def test_divergence_is_traced_to_a_layer_and_a_rule(bars: Data) -> None:
    options = Options(model="tiny", epochs=2, batch=5, optimizer="sgd", learning_rate=3e38)
    with pytest.raises(
        Diverged, match=r"appeared at step \d in layer \w+: .*, by the rule \w+\.\w+|appeared at step \d in the"
    ):
        train(options, bars)
