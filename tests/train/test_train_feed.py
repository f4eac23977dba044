"""The input pipeline: order, threads, corrupt pictures, folders of pictures and `.npz`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxcnnbp.train import Data, DataError, Options, Run, Watch, load, train
from jaxcnnbp.train.data import npz_file, picture_folder
from jaxcnnbp.train.data.split import fingerprint, pixel_statistics
from jaxcnnbp.train.feed import ahead, batches, feed, host_batch
from jaxcnnbp.train.layout import ONE_DEVICE


class Notes(Watch):
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture
def pictures(tmp_path: Path, bars: Data) -> Path:
    """The bars as PNG files, a folder a class, training and test apart."""
    folder = tmp_path / "pictures"
    for part, split in (("train", bars.train), ("test", bars.test)):
        for number, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
            home = folder / part / f"class{label}"
            home.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0]).save(home / f"{number:03d}.png")
    return folder


def test_pictures_are_what_was_drawn(pictures: Path, bars: Data) -> None:
    data = load(Options(data_dir=str(pictures)))
    assert (data.train.images.shape, data.test.images.shape, data.classes) == ((50, 8, 8, 1), (20, 8, 8, 1), 10)
    order = np.argsort(bars.train.labels, kind="stable")
    np.testing.assert_array_equal(data.train.labels, bars.train.labels[order])
    pixels, readable = data.train.images.read(np.arange(50))
    assert readable is None
    np.testing.assert_array_equal(pixels, bars.train.images[order])
    np.testing.assert_allclose(pixel_statistics(data), pixel_statistics(bars), rtol=1e-12)


def test_training_from_pictures_is_training_from_memory(pictures: Path) -> None:
    """Also with any number of threads."""
    options = Options(model="tiny", epochs=1, batch=20, data_dir=str(pictures))
    lazy = load(options, workers=3)
    every = np.arange(50), np.arange(20)
    whole = [
        split._replace(images=split.images.read(rows)[0])
        for split, rows in zip((lazy.train, lazy.test), every, strict=True)
    ]
    in_memory = Data("pictures", *whole, white=255, classes=10)
    results = [train(options, run=Run(workers=1)), train(options, lazy), train(options, in_memory)]
    losses = {(result.history[0].train_loss, result.history[0].test_loss) for result in results}
    assert len(losses) == 1


def test_folders_without_parts_keep_every_fifth_for_the_test(pictures: Path) -> None:
    data = picture_folder(pictures / "train")
    assert (len(data.train.labels), len(data.test.labels)) == (40, 10)
    np.testing.assert_array_equal(np.bincount(data.test.labels), np.ones(10))


def test_a_corrupt_picture_is_named_and_stops_or_is_skipped(pictures: Path) -> None:
    broken = pictures / "train" / "class3" / "013.png"
    broken.write_bytes(broken.read_bytes()[:40])
    text = pictures / "train" / "class4" / "014.png"
    text.write_text("no picture")
    options = Options(model="tiny", epochs=2, batch=20, data_dir=str(pictures))
    with pytest.raises(DataError, match=r"01[34]\.png: cannot be decoded \(.+\); --corrupt skip leaves such"):
        train(options)
    notes = Notes()
    skipping = Options(model="tiny", epochs=2, batch=20, data_dir=str(pictures), corrupt="skip")
    result = train(skipping, watches=[notes])
    assert sorted(Path(note.split(":")[0]).name for note in notes.texts) == ["013.png", "014.png"]
    assert all(note.endswith("; it is skipped.") for note in notes.texts)

    # What is skipped counts for nothing: the same as if it were not there, but for the order.
    split = load(skipping).train
    batch = host_batch(split, np.arange(50), ONE_DEVICE)
    assert batch.weights is not None
    assert (batch.weights.sum(), batch.weights[13 // 10 * 5 :].min()) == (48.0, 0.0)
    assert np.isfinite(result.history[-1].train_loss)


def test_pictures_of_another_size_or_kind(pictures: Path) -> None:
    first = sorted((pictures / "train" / "class0").iterdir())[0]
    other = pictures / "train" / "class9" / "other.png"
    Image.fromarray(np.zeros((9, 8, 3), np.uint8)).save(other)
    data = load(Options(data_dir=str(pictures)))
    with pytest.raises(DataError, match=r"other\.png: is 9x8, where the first picture is 8x8; --image-size"):
        data.train.images.read(np.arange(51))
    resized = load(Options(data_dir=str(pictures), image_size=8))
    assert resized.train.images.read(np.arange(51))[0].shape == (51, 8, 8, 1)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(first)
    assert load(Options(data_dir=str(pictures), image_size=8)).train.images.shape == (51, 8, 8, 3)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda folder: (folder / "test" / "class9" / "019.png").unlink(), "class 'class9' is in only one of"),
        (lambda folder: [path.unlink() for path in folder.rglob("*.png")], "holds no folder with pictures"),
    ],
)
def test_folders_that_are_no_data_set(pictures: Path, change, sentence: str) -> None:
    for path in (pictures / "test" / "class9").iterdir():
        if path.name != "019.png":
            path.unlink()
    change(pictures)
    with pytest.raises(DataError, match=sentence):
        load(Options(data_dir=str(pictures)))


def test_fingerprints_tell_data_apart(pictures: Path, bars: Data) -> None:
    data = load(Options(data_dir=str(pictures)))
    own = fingerprint(data)
    assert own == fingerprint(load(Options(data_dir=str(pictures))))
    assert own != fingerprint(bars)
    path = pictures / "train" / "class3" / "013.png"
    path.write_bytes(path.read_bytes() + b"\0")
    assert fingerprint(load(Options(data_dir=str(pictures)))) != own


def write_npz(path: Path, bars: Data, **changes: np.ndarray) -> None:
    arrays = {
        "x_train": np.asarray(bars.train.images)[..., 0],
        "y_train": np.asarray(bars.train.labels)[:, None],
        "x_test": np.asarray(bars.test.images)[..., 0],
        "y_test": np.asarray(bars.test.labels),
    }
    np.savez(path, allow_pickle=False, **{k: v for k, v in {**arrays, **changes}.items() if v is not None})


def test_npz_gives_what_was_written(tmp_path: Path, bars: Data) -> None:
    write_npz(tmp_path / "bars.npz", bars)
    data = load(Options(data=str(tmp_path / "bars.npz")))
    for read, written in ((data.train, bars.train), (data.test, bars.test)):
        np.testing.assert_array_equal(read.images, written.images)
        np.testing.assert_array_equal(read.labels, written.labels)
    assert (data.name, data.white, data.classes) == ("bars", 255, 10)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"y_test": None}, "holds no array `y_test`"),
        ({"x_train": np.zeros((50, 8, 8))}, "`x_train` is float64 of shape"),
        ({"x_train": np.zeros((50, 64), np.uint8)}, "`x_train` is uint8 of shape"),
        ({"y_train": np.zeros(49, np.int64)}, "`y_train` is int64 of shape .49,., but 50 whole numbers"),
        ({"y_train": np.full(50, 10)}, "label 10 at position 0 of `y_train` is outside 0 .. 9"),
        ({"y_train": np.full(50, -1)}, "label -1 at position 0"),
        ({"x_test": np.zeros((20, 9, 9), np.uint8)}, "the training images are 8x8x1, the test images 9x9x1"),
    ],
)
def test_npz_that_is_no_data_set(tmp_path: Path, bars: Data, changes: dict, sentence: str) -> None:
    write_npz(tmp_path / "bars.npz", bars, **changes)
    with pytest.raises(DataError, match=sentence):
        npz_file(tmp_path / "bars.npz")


def test_npz_that_is_damaged(tmp_path: Path, bars: Data) -> None:
    path = tmp_path / "bars.npz"
    write_npz(path, bars)
    whole = path.read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2], whole[:2000] + b"\xff" * 64 + whole[2064:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"bars\.npz: "):
            npz_file(path)


def test_batches_come_in_order_ahead_of_the_asker() -> None:
    started = threading.Semaphore(0)

    def items() -> Iterator[int]:
        for number in range(6):
            started.release()
            yield number

    fed = ahead(items())
    assert next(fed) == 0
    assert all(started.acquire(timeout=10) for _ in range(3))  # two more are under way before they are asked for
    assert list(fed) == [1, 2, 3, 4, 5]


def test_what_goes_wrong_in_the_thread_is_raised_where_it_is_read() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise DataError("a file is gone.")

    fed = ahead(items())
    assert next(fed) == 1
    with pytest.raises(DataError, match="a file is gone"):
        next(fed)


def test_a_feed_that_is_left_ends_its_thread(bars: Data) -> None:
    fed = feed(bars.train, batches(0, 1, 50, 5), ONE_DEVICE)
    next(fed)
    fed.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("feed")]
