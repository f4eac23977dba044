"""A digit through a network: its numbers are those of the algorithm, its pictures can be read."""

from __future__ import annotations

import io
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from jaxcnnbp import explain, nn
from jaxcnnbp.cli.main import main
from jaxcnnbp.explain import weights as weighing
from jaxcnnbp.explain.walk_picture import mosaic
from jaxcnnbp.nn.models import MODELS
from jaxcnnbp.train import InputError, Split, load_params, save_params
from jaxcnnbp.train.data import digits


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Parameters in files, as if they had been trained; `init` would compile a program for every shape."""
    folder, found, generator = tmp_path_factory.mktemp("weights"), {}, np.random.default_rng(0)
    for name in ("digits", "lenet5", "bouvrie"):
        spec = MODELS[name]
        shapes = jax.eval_shape(lambda key, s=spec: s.build().init(key, (1, *s.input_shape)), jax.random.key(0))
        params = jax.tree.map(lambda leaf: generator.normal(size=leaf.shape).astype(np.float32) / 8, shapes)
        found[name] = folder / f"{name}.npz"
        save_params(found[name], params)
    return found


@pytest.fixture(scope="module")
def walk(weights: dict[str, Path]) -> explain.Walk:
    return explain.model("lenet5", 3, weights=weights["lenet5"])


@pytest.mark.slow
def test_numbers_are_those_of_the_algorithm(walk, weights):
    data = weighing.enlarged(digits(), 28)
    model, image = MODELS["lenet5"].build(), jnp.asarray(data.test.images[3:4], jnp.float32) / 255
    params = load_params(weights["lenet5"])
    found = nn.backprop(model, params, image, jnp.asarray(data.test.labels[3:4]), nn.softmax_cross_entropy)
    assert [step.name for step in walk.steps] == ["input", *model.names]
    for step in walk.steps:
        np.testing.assert_array_equal(step.delta, found.deltas[step.name][0])
        for name, leaf in step.parameters.items():
            np.testing.assert_array_equal(leaf.gradient, found.gradients[step.name][name])
    np.testing.assert_array_equal(walk["conv1"].activation, model.layers[0].apply(params["conv1"], image)[0])
    assert walk.label == data.test.labels[3]


def test_autodiff_is_near(walk):
    for step in walk.steps:
        assert step.gap <= 1e-6 * max(np.abs(step.delta).max(), 1e-30)


def test_text_picture_and_notebook(walk, tmp_path):
    assert "conv2" in str(walk)
    assert "JAX's autodiff differs by at most" in str(walk)
    console = Console(width=140, file=io.StringIO(), record=True)
    console.print(walk)
    assert "█" in console.export_text()
    walk.plot(tmp_path / "walk.png")
    assert (tmp_path / "walk.png").stat().st_size > 20_000
    assert walk._repr_html_().startswith("<iframe")


def test_every_shipped_layer_can_be_shown(weights):
    """Bouvrie's network has layers of every kind, squared error, and outputs that are no chances."""
    walk = explain.model("bouvrie", 0, weights=weights["bouvrie"])
    assert walk.chances is None
    assert {"subsample1", "combine1"} & {step.name for step in walk.steps}
    assert "http" not in walk.to_html()


def test_page_can_be_read(walk, browser, tmp_path):
    from selenium.webdriver.common.keys import Keys

    path = tmp_path / "walk.html"
    walk.save_html(path)
    browser.open(path, width=360, dark=True)
    assert browser.overflow() == 0
    assert browser.nameless() == []
    assert browser.fetched() == []
    picture = browser.driver.find_element("css selector", '[data-picture="conv1/output"]')
    picture.send_keys(Keys.ARROW_DOWN)
    picture.send_keys(Keys.ARROW_RIGHT)
    words = re.fullmatch(r"conv1, output: map 0, row 1, column 1 is (.*)", browser.text("#readout"))
    assert float(words[1].replace("\u2212", "-")) == pytest.approx(walk["conv1"].activation[1, 1, 0], rel=1e-4)
    kernel = browser.driver.find_element("css selector", '[data-picture="conv2/gradient of kernel"]')
    kernel.send_keys(Keys.ARROW_DOWN)
    words = re.fullmatch(
        r"conv2, gradient of kernel: from map 0 to map 0, row 1, column 0 is (.*)", browser.text("#readout")
    )
    assert float(words[1].replace("\u2212", "-")) == pytest.approx(
        walk["conv2"].parameters["kernel"].gradient[1, 0, 0, 0], rel=1e-4
    )
    browser.run("document.getElementById('theme').click()")
    assert browser.console() == []


@pytest.mark.slow
def test_trained_once_and_kept(tmp_path, monkeypatch):
    """The second walk takes the weights of the first; a damaged file is written anew."""
    few = digits()
    small = few.__class__("few digits", Split(*(a[:64] for a in few.train)), few.test, few.white, few.classes)
    monkeypatch.setattr(weighing, "digits", lambda: small)
    said = []
    first = explain.model("digits", 1, cache=tmp_path, say=said.append)
    assert len(said) == 1
    assert "Trained for this walk: 5 epochs on few digits" in first.words[1]
    second = explain.model("digits", 1, cache=tmp_path, say=said.append)
    assert len(said) == 1
    assert "Weights of an earlier walk" in second.words[1]
    np.testing.assert_array_equal(first.scores, second.scores)
    next(tmp_path.iterdir()).write_bytes(b"damaged")
    third = explain.model("digits", 1, cache=tmp_path, say=said.append)
    assert any("trained and written anew" in line for line in said)
    np.testing.assert_array_equal(first.scores, third.scores)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"name": "vgg"}, "`name` (='vgg') must be one of"),
        ({"name": "digits", "sample": 10_000}, "`sample` (=10000) must be the number of a test image, 0 .. 354."),
        ({"name": "digits", "weights": "no.npz"}, "no.npz: no readable file of parameters"),
        ({"name": "digits", "data_dir": "nowhere"}, "nowhere: no such folder"),
    ],
)
def test_refusals(how, words):
    with pytest.raises(InputError, match=re.escape(words)):
        explain.model(**how)


def test_weights_of_another_model_are_refused(weights):
    with pytest.raises(InputError, match=r"are not this model's: its layer conv1 has"):
        explain.model("lenet5", weights=weights["digits"])


def test_command(weights, tmp_path):
    files = [tmp_path / "walk.html", tmp_path / "walk.png"]
    arguments = ["--weights", str(weights["digits"]), "--html", str(files[0]), "--png", str(files[1]), "--text"]
    result = CliRunner().invoke(
        main, ["explain", "model", "digits", "--sample", "2", *arguments], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    assert "One digit through digits and back" in result.output
    assert all(path.stat().st_size > 10_000 for path in files)
    refused = CliRunner().invoke(main, ["explain", "model", "digits", "--sample", "999"])
    assert refused.exit_code == 1
    assert refused.output.startswith("Error: `sample` (=999) must be")


def test_mosaic_keeps_every_number():
    tiles = np.arange(24.0).reshape(2, 3, 2, 2)
    made = mosaic(tiles)
    assert made.shape == (5, 8)
    assert sorted(made[~np.isnan(made)]) == list(range(24))
