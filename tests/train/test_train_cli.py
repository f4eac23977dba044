"""The command line: what it prints and writes, and how it refuses."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from rich.console import Console

from jaxcnnbp import audit
from jaxcnnbp.cli.main import main
from jaxcnnbp.ops.conv import tuning
from jaxcnnbp.train import RECIPES, Data, Options, load_params, train
from jaxcnnbp.train.watch.bar import Bar


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def test_run_with_everything_written(mnist_like: Path, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("metrics.jsonl", "curves.png", "kernels.png", "params.npz")}
    written = zip(("--metrics", "--curves", "--kernels", "--save"), map(str, files.values()), strict=True)
    options = [part for pair in written for part in pair]
    result = call("train", "--model", "tiny", "--data-dir", str(mnist_like), "--epochs", "2", "--batch", "50", *options)
    assert result.exit_code == 0
    assert "epoch 2/2  train loss" in result.output
    assert "true \\ given" in result.output
    assert "of 20 images" in result.output.splitlines()[-1]
    assert all(path.stat().st_size > 0 for path in files.values())
    assert len(files["metrics.jsonl"].read_text().splitlines()) == 4
    assert "conv1" in load_params(files["params.npz"])


def test_quiet_prints_the_error_rate_alone(mnist_like: Path) -> None:
    result = call(
        "train", "--model", "tiny", "--data-dir", str(mnist_like), "--epochs", "1", "--batch", "50", "--quiet"
    )
    assert result.output.startswith("error rate: ")
    assert len(result.output.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "dtype"), [("arrays", "float32"), ("arrays", "float64"), ("pictures", "bfloat16")])
def test_report_compares_the_trained_model(
    mnist_like: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, dtype: str
) -> None:
    """In the type of the run, of whatever its images are read from."""
    judge, judged, folder = audit.compare_gradients, [], tmp_path / "pictures"

    def judge_and_tell(loss: Any, params: Any, images: Any) -> Any:
        judged.extend(leaf.dtype.name for leaf in jax.tree.leaves((params, images)))
        return judge(loss, params, images)

    monkeypatch.setattr(audit, "compare_gradients", judge_and_tell)
    if kind == "pictures":
        for name, row in (("above", 2), ("below", 20)):
            (folder / name).mkdir(parents=True)
            for number in range(8):
                pixels = np.random.default_rng(number).integers(0, 80, (28, 28), dtype=np.uint8)
                pixels[row : row + 5] = 250
                Image.fromarray(pixels).save(folder / name / f"{number}.png")
    data = str(mnist_like if kind == "arrays" else folder)
    options = ["--data-dir", data, "--model", "tiny", "--epochs", "1", "--batch", "5", "--dtype", dtype]
    result = call("train", *options, "--quiet", "--report")
    assert result.exit_code == 0, result.output
    assert set(judged) == {dtype}
    assert len(result.output.splitlines()) > 2


def test_recipe_sets_options_and_gives_way_to_typed_ones(mnist_like: Path, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    common = ("--model", "tiny", "--data-dir", str(mnist_like), "--metrics", str(path), "--quiet")
    result = call("train", "--recipe", "toolbox", "--epochs", "1", "--learning-rate", "0.25", *common)
    assert result.exit_code == 0
    used = json.loads(path.read_text().splitlines()[0])["options"]
    assert (used["optimizer"], used["batch"], used["learning_rate"]) == ("sgd", 50, 0.25)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_valid_options(name: str) -> None:
    assert Options(**RECIPES[name].options).model is not None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data-dir", "no/such/folder"], "no/such/folder: no such folder."),
        (["--epochs", "0"], "`epochs` (=0) must be a whole number, at least 1."),
        (["--model", "resnet"], "`model` (=resnet) must be one of digits"),
        (["--save", "no/such/folder/x.npz"], "lies in no folder that exists."),
        (["--metrics", "no/such/folder/x.jsonl"], "lies in no folder that exists."),
        (["--curves", "curves.doc"], "must end like a picture"),
        (
            ["--data", "digits", "--data-dir", "x"],
            "`data` and `data_dir` both name the data; give one of them.",
        ),
        (["--optimizer", "lion"], "'lion' is not one of"),
        (["--epochs", "many"], "'many' is not a valid integer"),
    ],
)
def test_refusals_are_one_sentence_and_exit_code_2(arguments: list[str], sentence: str) -> None:
    result = call("train", *arguments)
    assert result.exit_code == 2
    assert sentence in result.output
    assert result.output.count("Error: ") == 1
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", [("train", "--model", "digits"), ("compare", "--model", "digits", "--no-timing")])
def test_a_tuning_that_is_not_there_is_named(command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAXCNNBP_TUNING", "no-such-file.json")
    monkeypatch.setattr(tuning, "installed", tuning.installed.__wrapped__)
    result = call(*command)
    assert result.exit_code == 2
    assert "`JAXCNNBP_TUNING` (='no-such-file.json') cannot be read" in " ".join(result.output.split())


def test_damaged_file_is_one_line_and_exit_code_2(mnist_like: Path) -> None:
    path = mnist_like / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-5])
    result = call("train", "--data-dir", str(mnist_like))
    assert result.exit_code == 2
    assert result.output == f"Error: {path}: its header promises 50 x 8 x 8 = 3,200 bytes, but 3,195 follow.\n"


def test_divergence_is_one_sentence(mnist_like: Path) -> None:
    result = call(
        "train",
        "--model",
        "tiny",
        "--data-dir",
        str(mnist_like),
        "--optimizer",
        "sgd",
        "--learning-rate",
        "1e30",
        "--batch",
        "25",
    )
    assert result.exit_code == 1
    assert result.output.startswith("Error: The loss is ")


def test_help_names_every_option() -> None:
    text = call("train", "--help").output
    for name in (field.name for field in dataclasses.fields(Options)):
        assert f"--{name.replace('_', '-')}" in text
    assert "train" in call("--help").output


def test_version() -> None:
    assert call("--version").output.startswith("jaxcnnbp")


def test_bar_on_a_terminal(bars: Data) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with Bar(console) as bar:
        train(Options(model="tiny", epochs=2, batch=50), bars, [bar])
    text = screen.getvalue()
    assert "epoch 2/2  train loss" in text
    assert "images/s" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")  # the cursor is given back


def test_missing_click_names_the_extra() -> None:
    code = (
        "import importlib.util as util, sys; find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'click' else find(name, *rest)\n"
        "import jaxcnnbp.cli"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == 'The command line needs click: pip install "jaxcnnbp[cli]".\n'
