"""Small data for the tests of training: a few drawn images, and MNIST-format files made by hand."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from jaxcnnbp import nn
from jaxcnnbp.nn.models import MODELS, ModelSpec
from jaxcnnbp.train import Data, Split

SIZE = 8  # of the drawn images: the shipped network for digits takes them


def idx_bytes(array: np.ndarray) -> bytes:
    """An array of bytes in the IDX format."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def drawn_split(count: int, seed: int) -> Split:
    """Bright bars: class c is a horizontal bar in row c for c < 8, a vertical one for 8 and 9."""
    labels = (np.arange(count) % 10).astype(np.int32)
    images = np.random.default_rng(seed).integers(0, 60, (count, SIZE, SIZE, 1)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[(label, slice(None)) if label < SIZE else (slice(None), 3 * (label - 7))] = 255
    return Split(images, labels)


def tiny() -> nn.Sequential:
    """A convolution and a dense layer, which compile in a moment."""
    return nn.Sequential((nn.Conv(2, 3, stride=2), nn.Relu(), nn.Flatten(), nn.Dense(10)))


@pytest.fixture(scope="module", autouse=True)
def _quick(quick: None) -> None:
    """See `quick`."""


@pytest.fixture(scope="module", autouse=True)
def _tiny_model() -> Iterator[None]:
    """Lets the options name `tiny` as a model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "tiny", ModelSpec(tiny, (8, 8, 1), nn.softmax_cross_entropy, "for tests"))
        yield


@pytest.fixture(scope="session")
def bars() -> Data:
    """50 training and 20 test images of bars."""
    return Data("bars", drawn_split(50, seed=1), drawn_split(20, seed=2), white=255, classes=10)


@pytest.fixture
def mnist_like(tmp_path: Path, bars: Data) -> Path:
    """A folder in MNIST's format that holds the bars; training files plain, test files compressed."""
    for prefix, split in (("train", bars.train), ("t10k", bars.test)):
        for kind, array in (("images-idx3", split.images[..., 0]), ("labels-idx1", split.labels)):
            content = idx_bytes(np.asarray(array))
            packed = prefix == "t10k"
            path = tmp_path / f"{prefix}-{kind}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content) if packed else content)
    return tmp_path


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
    """The folder of the real MNIST, on machines that have it."""
    folder = os.environ.get("JAXCNNBP_MNIST")
    if not folder:
        pytest.skip("set JAXCNNBP_MNIST to a folder with the four MNIST files to run this test")
    return Path(folder)
