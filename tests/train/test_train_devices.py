"""Eight devices in one process: the same numbers, one exchange a step, checkpoints that fit another number of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running import STRICT, environment, python

pytestmark = pytest.mark.slow

PROGRAM = """
import dataclasses, importlib.util, json, re, sys, tempfile
import jax, numpy as np
from jaxcnnbp import nn
from jaxcnnbp.nn.models import MODELS, ModelSpec
from jaxcnnbp.train import Data, Options, Run, Stopped, initial_state, make_step, train
from jaxcnnbp.train.feed import batches, host_batch
from jaxcnnbp.train.checkpoints.arrays import check_sums, flatten
from jaxcnnbp.train.layout import make_layout
from jaxcnnbp.train.program import build_program

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
assert len(jax.devices()) == 8
spec = importlib.util.spec_from_file_location("drawn", sys.argv[1])
drawn = importlib.util.module_from_spec(spec)
spec.loader.exec_module(drawn)

def network():
    return nn.Sequential((nn.Conv(8, 3, stride=2), nn.Relu(), nn.Flatten(), nn.Dense(10)))

MODELS["small"] = ModelSpec(network, (8, 8, 1), nn.softmax_cross_entropy, "for tests")
bars = Data("bars", drawn.drawn_split(50, seed=1), drawn.drawn_split(20, seed=2), white=255, classes=10)
options = Options(model="small", epochs=2, batch=24, optimizer="adamw", learning_rate=0.01, weight_decay=0.01, ema=0.9,
                  augment="affine", seed=5)
COLLECTIVE = re.compile(r"= (.*?) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?[(]")
KINDS = {"one": dict(devices=1), "eight": dict(), "parts": dict(shard_params=True), "bands": dict(spatial=4)}

def leaves(result):
    return [np.asarray(leaf) for leaf in jax.tree.leaves((result.params, result.best_params))]

def farthest(a, b):
    return max(float(np.abs(x - y).max()) for x, y in zip(leaves(a), leaves(b), strict=True))

# A random key is two words long: on a data axis of two it must not be taken for a parameter that can be halved.
HALVES = {"halves": dict(devices=2, shard_params=True), "both": dict(devices=4, spatial=2, shard_params=True)}
results = {name: train(options, bars, run=Run(**settings)) for name, settings in (KINDS | HALVES).items()}
report = {"farthest": {name: farthest(results["one"], result) for name, result in results.items()}}
report["largest"] = max(float(np.abs(leaf).max()) for leaf in leaves(results["one"]))
report["moved"] = farthest(results["one"], train(dataclasses.replace(options, seed=6), bars, run=Run(devices=1)))
report["again"] = farthest(results["eight"], train(options, bars))
report["confusion"] = {name: result.score.confusion.sum().item() for name, result in results.items()}

program = build_program(options, bars)
report["exchanged"] = {}
for name, settings in KINDS.items():
    layout = make_layout(Run(**settings), options.batch, 8, augmented=True)
    state = layout.place(initial_state(program, 0, (24, 8, 8, 1)))
    for count in (24, 2):
        batch = layout.put(host_batch(bars.train, np.arange(count), layout))
        text = make_step(program, layout).lower(state, batch).compile().as_text()
        report["exchanged"][f"{name} {count}"] = [(kind, shape) for shape, kind in COLLECTIVE.findall(text)]
    report.setdefault("sums", {})[name] = {
        key: np.asarray(value).tolist() for key, value in check_sums(flatten(state))[0].items()
    }
report["parameters"] = sum(leaf.size for leaf in jax.tree.leaves(state.params))

asked = iter([False] * 4 + [True] * 9)
with tempfile.TemporaryDirectory() as folder:
    ways = (dict(shard_params=True), lambda: next(asked)), (dict(devices=2, shard_params=True), lambda: False)
    for settings, stop in ways:
        try:
            moved = train(options, bars, run=Run(checkpoints=folder, resume=True, **settings), stop=stop)
        except Stopped as stopped:
            report["stopped"] = str(stopped)
report["restored"] = farthest(results["one"], moved)
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def report() -> dict:
    drawn = str(Path(__file__).with_name("conftest.py"))
    done = python(*STRICT, "-c", PROGRAM, drawn, env=environment(devices=8, quick=True))
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_any_layout_gives_the_result_of_one_device(report: dict) -> None:
    # Six steps whose gradients differ in the order of their sums alone: some units in the last place of float32 each.
    # Adam enlarges that only where a gradient nearly cancels, which none does here; another seed is far off.
    bound = 6 * 16 * 2.0**-24 * max(1.0, report["largest"])
    assert max(report["farthest"].values()) <= bound
    assert report["moved"] > 1000 * bound
    assert report["confusion"] == dict.fromkeys(report["farthest"], 20)


def test_runs_repeat_to_the_bit(report: dict) -> None:
    assert report["again"] == 0.0


def test_a_step_has_one_all_reduce(report: dict) -> None:
    # Every gradient, the loss, and the counts of errors and images, in one vector.
    vector = [["all-reduce", f"f32[{report['parameters'] + 3}]{{0}}"]]
    assert report["exchanged"]["eight 24"] == vector
    assert report["exchanged"]["eight 2"] == vector
    assert report["exchanged"]["one 24"] == report["exchanged"]["one 2"] == []


def test_parameters_in_parts_are_gathered_once_and_scattered_once(report: dict) -> None:
    for count in (24, 2):
        kinds = sorted(kind for kind, _ in report["exchanged"][f"parts {count}"])
        assert kinds == ["all-gather", "all-reduce", "reduce-scatter"]


def test_bands_exchange_their_edges(report: dict) -> None:
    kinds = {kind for kind, _ in report["exchanged"]["bands 24"]}
    assert "collective-permute" in kinds
    assert "all-to-all" not in kinds


def test_check_sums_do_not_depend_on_the_layout(report: dict) -> None:
    one, *others = report["sums"].values()
    assert all(other == one for other in others)


def test_a_checkpoint_fits_another_number_of_devices(report: dict) -> None:
    assert report["stopped"].startswith("Stopped at step 4 of 6 and saved")
    assert report["restored"] <= 6 * 16 * 2.0**-24 * max(1.0, report["largest"])
