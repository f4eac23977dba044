"""The real MNIST, where there is one: it is read, and a short run learns it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jaxcnnbp.train import Data, Options, Split, load, train

pytestmark = pytest.mark.slow


def test_mnist_is_read(mnist_folder: Path) -> None:
    data = load(Options(data_dir=str(mnist_folder)))
    assert data.train.images.shape == (60_000, 28, 28, 1)
    assert data.test.images.shape == (10_000, 28, 28, 1)
    np.testing.assert_array_equal(data.train.labels[:5], [5, 0, 4, 1, 9])
    np.testing.assert_array_equal(data.test.labels[:5], [7, 2, 1, 0, 4])


def test_lenet_learns_a_part_of_mnist(mnist_folder: Path) -> None:
    data = load(Options(data_dir=str(mnist_folder)))
    part = Data(
        "part",
        *(Split(split.images[:4000], split.labels[:4000]) for split in (data.train, data.test)),
        255,
        10,
    )
    result = train(Options(model="lenet5", epochs=2, batch=50), part)
    assert result.score.error < 0.12
