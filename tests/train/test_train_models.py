"""The shipped networks: sizes, the table of LeNet-5, how the toolbox's weights are drawn."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest

from jaxcnnbp import nn
from jaxcnnbp.nn.models import LENET_TABLE, MODELS, lenet5, toolbox

# Table I of the LeNet-5 paper, column by column: the maps of S2 that feed each map of C3.
PAPER = ["012", "123", "234", "345", "450", "501", "0123", "1234", "2345", "3450", "4501", "5012"]
PAPER += ["0134", "1245", "0235", "012345"]


def parameters(model: nn.Sequential, image_shape: tuple[int, ...] = (28, 28, 1)) -> int:
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), (1, *image_shape)))
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_connection_table_is_that_of_the_paper() -> None:
    table = np.array(LENET_TABLE)
    assert table.shape == (6, 16)
    assert ["".join(map(str, np.flatnonzero(column))) for column in table.T] == ["".join(sorted(p)) for p in PAPER]


def test_sizes_by_hand() -> None:
    assert parameters(lenet5()) == 6 * 26 + 16 * 151 + 120 * 401 + 84 * 121 + 10 * 85
    assert parameters(toolbox()) == 6 * 26 + 12 * 151 + 10 * 193


@pytest.mark.parametrize("name", MODELS)
def test_every_model_gives_ten_classes(name: str) -> None:
    spec = MODELS[name]
    assert spec.build().output_shape((3, *spec.input_shape)) == (3, 10)


def test_toolbox_weights_are_drawn_as_the_toolbox_draws_them() -> None:
    params = toolbox().init(jax.random.key(0), (50, 28, 28, 1))
    fans = {"conv1": 25 + 6 * 25, "conv2": 6 * 25 + 12 * 25, "dense1": 192 + 10}
    for layer, fan in fans.items():
        kernel, bound = np.asarray(params[layer]["kernel"]), math.sqrt(6 / fan)
        assert np.abs(kernel).max() <= bound
        assert np.abs(kernel).max() > 0.9 * bound
        assert not np.any(params[layer]["bias"])
