"""Reading data sets: what is read, and one sentence for everything that is damaged."""

from __future__ import annotations

import gzip
import struct
import sys
import types
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

from jaxcnnbp.train import Data, DataError, Options, load, read_idx
from jaxcnnbp.train.data import digits, openml
from jaxcnnbp.train.data.split import pixel_statistics

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
PACKED_IMAGES, PACKED_LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"


def replace(at: int, new: bytes) -> Callable[[bytes], bytes]:
    """Overwrite bytes at an offset."""
    return lambda content: content[:at] + new + content[at + len(new) :]


def sizes(*new: int) -> Callable[[bytes], bytes]:
    """Overwrite the sizes in the header."""
    return replace(4, struct.pack(f">{len(new)}I", *new))


DAMAGES = {
    "missing images": (IMAGES, None, "holds no file train-images-idx3-ubyte"),
    "missing packed labels": (PACKED_LABELS, None, "holds no file t10k-labels-idx1-ubyte"),
    "empty file": (IMAGES, lambda content: b"", "is empty"),
    "no magic number": (IMAGES, replace(0, b"GIF8"), "starts with 47 49 46 38, not with 00 00"),
    "half a magic number": (IMAGES, lambda content: content[:3], "is no IDX file"),
    "cut in the header": (IMAGES, lambda content: content[:10], "ends inside its header"),
    "cut in the content": (IMAGES, lambda content: content[:-1], "= 3,200 bytes, but 3,199 follow"),
    "bytes behind the end": (IMAGES, lambda content: content + b"\0", "= 3,200 bytes, but more follow"),
    "type of floats": (IMAGES, replace(2, b"\x0d"), "elements of type 0x0d"),
    "labels for images": (
        IMAGES,
        lambda content: bytes([0, 0, 8, 1, 0, 0, 0, 1, 5]),
        "has 1 dimensions, but 3",
    ),
    "images for labels": (LABELS, replace(3, b"\3"), "has 3 dimensions, but 1"),
    "no images": (IMAGES, lambda content: sizes(0, 8, 8)(content)[:16], "holds 0 images of 8x8"),
    "no rows": (IMAGES, lambda content: sizes(50, 0, 8)(content)[:16], "50 images of 0x8"),
    "not square": (IMAGES, sizes(50, 4, 16), "images are 4x16, but square ones"),
    "a size beyond all memory": (IMAGES, sizes(*[2**32 - 1] * 3), "but 3,200 follow"),
    "other number of labels": (
        LABELS,
        lambda content: sizes(49)(content)[:-1],
        "50 images, but .* 49 labels",
    ),
    "label out of range": (LABELS, replace(8 + 7, b"\x0b"), "label 11 at position 7 is outside 0 .. 9"),
    "gzip cut": (PACKED_IMAGES, lambda content: content[:-20], "gzip stream is damaged"),
    "gzip with a flipped byte": (PACKED_IMAGES, replace(40, b"\xff\xff\xff\xff"), "gzip stream is damaged"),
    "gzip with a wrong check sum": (PACKED_LABELS, lambda content: content[:-8] + b"12345678", "is damaged"),
    "gzip and rubbish": (PACKED_LABELS, lambda content: content + b"rubbish", "gzip stream is damaged"),
}


@pytest.mark.parametrize(("name", "damage", "sentence"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_named_in_one_sentence(
    mnist_like: Path, name: str, damage: Callable[[bytes], bytes] | None, sentence: str
) -> None:
    path = mnist_like / name
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=sentence) as caught:
        load(Options(data_dir=str(mnist_like)))
    message = str(caught.value)
    assert str(mnist_like) in message
    assert "\n" not in message
    assert message.endswith(".")


def test_folder_that_is_absent_or_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        load(Options(data_dir=str(tmp_path / "absent")))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is no folder"):
        load(Options(data_dir=str(tmp_path / "file")))


def test_file_that_is_a_folder(mnist_like: Path) -> None:
    (mnist_like / IMAGES).unlink()
    (mnist_like / IMAGES).mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        load(Options(data_dir=str(mnist_like)))


def test_training_and_test_images_of_different_size(mnist_like: Path) -> None:
    content = gzip.decompress((mnist_like / PACKED_IMAGES).read_bytes())
    (mnist_like / PACKED_IMAGES).write_bytes(gzip.compress(sizes(20, 4, 4)(content)[: 16 + 20 * 16]))
    with pytest.raises(DataError, match="training images are 8x8, the test images 4x4"):
        load(Options(data_dir=str(mnist_like)))


def test_folder_gives_what_was_written(mnist_like: Path, bars: Data) -> None:
    data = load(Options(data_dir=str(mnist_like)))
    for read, written in ((data.train, bars.train), (data.test, bars.test)):
        np.testing.assert_array_equal(read.images, written.images)
        np.testing.assert_array_equal(read.labels, written.labels)
    assert (data.white, data.classes) == (255, 10)


def test_names_with_a_dot_and_compressed_content_without_the_ending(mnist_like: Path, bars: Data) -> None:
    (mnist_like / IMAGES).rename(mnist_like / "train-images.idx3-ubyte")
    (mnist_like / PACKED_LABELS).rename(mnist_like / "t10k-labels-idx1-ubyte")
    data = load(Options(data_dir=str(mnist_like)))
    np.testing.assert_array_equal(data.train.images, bars.train.images)
    np.testing.assert_array_equal(data.test.labels, bars.test.labels)


def test_more_classes_on_request(mnist_like: Path) -> None:
    path = mnist_like / LABELS
    path.write_bytes(replace(8, bytes([46]))(path.read_bytes()))
    assert load(Options(data_dir=str(mnist_like), classes=47)).classes == 47


def test_hand_written_bytes(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 255]))
    np.testing.assert_array_equal(read_idx(path, rank=3), [[[1, 2, 3], [4, 5, 255]]])


def test_digits_split_is_fixed_stratified_and_disjoint() -> None:
    data = digits()
    assert data.train.images.shape == (1442, 8, 8, 1)
    assert data.test.images.shape == (355, 8, 8, 1)
    assert int(np.max(data.train.images)) == data.white == 16
    shares = np.bincount(data.test.labels) / np.bincount(data.train.labels)
    assert shares.min() > 0.24
    assert shares.max() <= 0.25
    np.testing.assert_array_equal(data.test.labels[:12], [5, 0, 9, 8, 7, 1, 2, 6, 3, 4, 0, 2])


def test_pixel_statistics(bars: Data) -> None:
    mean, deviation = pixel_statistics(bars)
    pixels = np.asarray(bars.train.images, np.float64) / 255
    np.testing.assert_allclose((mean, deviation), (pixels.mean(), pixels.std()), rtol=1e-12)


def fake_openml(monkeypatch: pytest.MonkeyPatch, rows: np.ndarray | Exception) -> None:
    """Put rows, or a failing network, where scikit-learn's download would be."""

    def fetch(name: str, **_: object) -> types.SimpleNamespace:
        if isinstance(rows, Exception):
            raise rows
        return types.SimpleNamespace(data=rows, target=np.array([str(i % 3) for i in range(len(rows))]))

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)


def test_openml_rows_become_images(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.arange(14 * 16, dtype=np.float64).reshape(14, 16)
    fake_openml(monkeypatch, rows)
    data = openml("any")
    assert (data.train.images.shape, data.test.images.shape, data.classes) == ((12, 4, 4, 1), (2, 4, 4, 1), 3)
    np.testing.assert_array_equal(data.test.images[0, :, :, 0], rows[12].reshape(4, 4))
    np.testing.assert_array_equal(data.test.labels, [0, 1])


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (URLError("no\nroute"), "cannot be fetched: .*no route"),
        (
            ValueError("No active dataset any found."),
            "cannot be fetched: No active dataset any found; --data digits",
        ),
        (TimeoutError(), "cannot be fetched: TimeoutError"),
        (np.zeros((4, 15)), "rows of 15 values are no square images"),
        (np.full((4, 16), 0.5), "no bytes 0 .. 255"),
        (np.full((4, 16), 256.0), "no bytes 0 .. 255"),
        (np.full((4, 16), np.nan), "no bytes 0 .. 255"),
    ],
)
def test_openml_failures_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, rows: np.ndarray | Exception, sentence: str
) -> None:
    fake_openml(monkeypatch, rows)
    with pytest.raises(DataError, match=sentence) as caught:
        openml("any")
    assert "\n" not in str(caught.value)


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ValueError, match=r'pip install "jaxcnnbp\[train\]"'):
        digits()
