"""What users bring: pictures of every mode and on any level, files of other names; read, or said what is wanted."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from jaxcnnbp.train import Data, DataError, InputError, Options, load
from jaxcnnbp.train.data.pictures import decode
from jaxcnnbp.train.data.split import held_out

RAMP = np.linspace(0, 1, 48).reshape(6, 8)  # of what each mode holds, as shares of its white
BYTES = np.round(255 * RAMP).astype(np.uint8)
COLOURS = np.stack([BYTES, 255 - BYTES, BYTES // 2], -1)


def exif(orientation: int) -> Image.Exif:
    entries = Image.Exif()
    entries[0x0112] = orientation
    return entries


def tiff(values: np.ndarray, bits: int = 16, white_is_zero: bool = False) -> bytes:
    """An uncompressed grey TIFF, little-endian: what Pillow reads and cannot write."""
    content, (height, width) = values.tobytes(), RAMP.shape
    entries = {256: width, 257: height, 258: bits, 259: 1, 262: int(not white_is_zero), 273: 8, 277: 1, 278: height,
               279: len(content), 339: 1}  # fmt: skip
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    return b"II*\0" + struct.pack("<I", 8 + len(content)) + content + struct.pack("<H", len(entries)) + table + bytes(4)


def twelve_bits() -> np.ndarray:
    """The ramp, two values in three bytes."""
    first, second = np.round(4095 * RAMP).astype(np.uint16).reshape(-1, 2).T
    return np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1).astype(np.uint8)


def palette(path: Path) -> None:
    image = Image.frombytes("P", (8, 6), bytes(range(48)))
    image.putpalette(COLOURS.reshape(-1).tolist())
    image.save(path)


SIXTEEN = np.round(65535 * RAMP).astype(np.uint16)
WRITERS: dict[str, tuple[str, Callable[[Path], object], np.ndarray]] = {
    "16-bit PNG": ("png", lambda path: Image.fromarray(SIXTEEN).save(path), BYTES),
    "16-bit TIFF": ("tif", lambda path: Image.fromarray(SIXTEEN).save(path), BYTES),
    "16-bit TIFF, big-endian": ("tiff", lambda p: Image.fromarray(SIXTEEN.astype(">u2")).save(p), BYTES),
    "16-bit PGM": ("pgm", lambda p: p.write_bytes(b"P5 8 6 65535\n" + SIXTEEN.astype(">u2").tobytes()), BYTES),
    "10-bit PGM": (
        "pgm",
        lambda p: p.write_bytes(b"P5 8 6 1023\n" + np.round(1023 * RAMP).astype(">u2").tobytes()),
        BYTES,
    ),
    "16-bit TIFF, white is zero": ("tif", lambda p: p.write_bytes(tiff(SIXTEEN, white_is_zero=True)), 255 - BYTES),
    "12-bit TIFF": ("tif", lambda p: p.write_bytes(tiff(twelve_bits(), bits=12)), BYTES),
    "float TIFF": ("tif", lambda path: Image.fromarray(RAMP.astype(np.float32)).save(path), BYTES),
    "float PFM": ("pfm", lambda path: Image.fromarray(RAMP.astype(np.float32)).save(path), BYTES),
    "1-bit PNG": ("png", lambda path: Image.fromarray(BYTES > 127).save(path), np.where(BYTES > 127, 255, 0)),
    "grey and alpha": ("png", lambda p: Image.fromarray(np.stack([BYTES, BYTES // 2 + 9], -1)).save(p), BYTES),
    "RGB": ("png", lambda path: Image.fromarray(COLOURS).save(path), COLOURS),
    "RGB and alpha": ("png", lambda p: Image.fromarray(np.dstack([COLOURS, BYTES])).save(p), COLOURS),
    "palette": ("png", palette, COLOURS),
    "CMYK": ("tif", lambda path: Image.fromarray(COLOURS).convert("CMYK").save(path), COLOURS),
}  # fmt: skip


@pytest.mark.parametrize(("name", "suffix", "write", "expected"), [(name, *case) for name, case in WRITERS.items()])
def test_modes_are_read_by_their_own_range(
    tmp_path: Path, name: str, suffix: str, write: Callable, expected: np.ndarray
) -> None:
    path = tmp_path / f"{name}.{suffix}"
    write(path)
    picture = decode(path)
    # One unit: the ranges are not multiples of 255, so that what is rounded twice may fall on either side.
    np.testing.assert_allclose(np.asarray(picture.image, np.int32), expected, atol=1)
    assert picture.left_out == (("transparency",) if "alpha" in path.stem else ())


def test_every_mode_of_pillow_is_converted_or_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, refused = tmp_path / "picture.png", set[str]()
    path.touch()
    for mode in Image.MODES:
        picture = Image.new(mode, (3, 2))
        monkeypatch.setattr(Image, "open", lambda _, made=picture: made)
        try:
            assert decode(path).image.mode in ("L", "RGB"), mode
        except DataError as error:
            refused.add(str(error).split("mode ")[1].split()[0].rstrip(","))
    assert refused == {"I", "LAB"}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright(tmp_path: Path, orientation: int) -> None:
    turns = [0, lambda a: a, np.fliplr, lambda a: np.rot90(a, 2), np.flipud, np.transpose,
             lambda a: np.rot90(a, -1), lambda a: np.rot90(a, 2).T, np.rot90]  # fmt: skip
    Image.fromarray(BYTES).save(tmp_path / "picture.png", exif=exif(orientation))
    np.testing.assert_array_equal(decode(tmp_path / "picture.png").image, turns[orientation](BYTES))


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda path: Image.fromarray(255 * RAMP.astype(np.float32)).save(path), r"floats 0 to 255 \(mode F\)"),
        (lambda path: Image.fromarray(np.full((2, 2), np.nan, np.float32)).save(path), "floats that are not finite"),
        (lambda path: Image.fromarray(SIXTEEN.astype(np.int32)).save(path), r"no known range \(mode I of TIFF\)"),
    ],
)
def test_ranges_that_no_file_says_are_refused(tmp_path: Path, write: Callable, sentence: str) -> None:
    write(tmp_path / "picture.tif")
    with pytest.raises(DataError, match=sentence):
        decode(tmp_path / "picture.tif")


@pytest.mark.parametrize("orientation", [6, 8])
def test_pictures_of_raw_pixels_stand_upright(tmp_path: Path, orientation: int) -> None:
    """Pillow maps such a file by the size that it has when it is turned."""
    turned, tags = np.arange(24, dtype=np.uint8).reshape(4, 6), TiffImagePlugin.ImageFileDirectory_v2()
    tags[274] = orientation
    Image.fromarray(np.rot90(turned, 1 if orientation == 6 else -1).copy()).save(tmp_path / "a.tif", tiffinfo=tags)
    np.testing.assert_array_equal(decode(tmp_path / "a.tif").image, turned)


def test_signs_and_further_channels_of_a_tiff(tmp_path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[339] = 2
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / "a.tif", tiffinfo=tags)
    with pytest.raises(DataError, match="holds whole numbers with a sign"):
        decode(tmp_path / "a.tif")
    Image.new("RGBX", (3, 2)).save(tmp_path / "b.tif")
    assert decode(tmp_path / "b.tif").left_out == ("further channels",)


def test_an_opaque_palette_leaves_nothing_out(tmp_path: Path) -> None:
    picture = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3)).convert("P")
    for alpha, left_out in ((255, ()), (9, ("transparency",))):
        picture.save(tmp_path / "a.png", transparency=bytes([alpha] * 6))
        assert decode(tmp_path / "a.png").left_out == left_out


def test_a_link_to_nothing_is_skipped(tmp_path: Path) -> None:
    classes(tmp_path)
    (tmp_path / "cat" / "zz.png").symlink_to(tmp_path / "nowhere.png")
    images = load(Options(data_dir=str(tmp_path), corrupt="skip")).train.images
    assert images.fingerprint()
    images.read(np.arange(len(images)))
    assert [fault for fault in images.faults() if "zz.png: cannot be decoded (No such file" in fault]


@pytest.mark.parametrize("words", [("training_set", "test_set"), ("seg_train", "seg_test"), ("Train", "val_images")])
def test_other_words_for_the_parts(tmp_path: Path, words: tuple[str, str]) -> None:
    for word in words:
        classes(tmp_path / word / word if "seg" in word else tmp_path / word)
    draw(tmp_path / "extra" / "cow" / "1.png", tmp_path / "loose.png")
    data = load(Options(data_dir=str(tmp_path)))
    assert (data.names, counts(data)[:2]) == (("cat", "dog"), (12, 12))
    assert data.notes[0].startswith(f"{tmp_path}: what lies beside")
    assert data.notes[0].endswith("is left out: 2 (extra, loose.png).")


def draw(*paths: Path) -> None:
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), number % 256, np.uint8)).save(path)


def classes(folder: Path, count: int = 6) -> None:
    """Pictures of two classes."""
    draw(*(folder / name / f"{number}.png" for name in ("cat", "dog") for number in range(count)))


def counts(data: Data) -> tuple[int, ...]:
    return tuple(len(part.labels) for part in (data.train, data.validation, data.test) if part is not None)


def test_parts_have_several_names(tmp_path: Path) -> None:
    classes(tmp_path / "train")
    classes(tmp_path / "val", 2)
    data = load(Options(data_dir=str(tmp_path)))
    assert (counts(data), data.names) == ((12, 4), ("cat", "dog"))
    assert data.notes == (f"{tmp_path / 'val'}: is the test part.",)
    draw(tmp_path / "test" / "1.png")  # ImageNet's test pictures have no classes
    assert counts(load(Options(data_dir=str(tmp_path)))) == (12, 4)
    classes(tmp_path / "test", 3)
    assert counts(load(Options(data=str(tmp_path)))) == (12, 4, 6)


def test_what_lies_beside_and_below_classes_is_read_or_named(tmp_path: Path) -> None:
    classes(tmp_path)
    draw(tmp_path / "loose.png", tmp_path / "cat" / "of_a_friend" / "1.png", tmp_path / ".hidden" / "1.png")
    (tmp_path / "dog" / "about.txt").write_text("barks")
    (tmp_path / "dog" / "._0.png").write_text("of another system")
    (tmp_path / "empty").mkdir()
    data = load(Options(data_dir=str(tmp_path)))
    assert (sum(counts(data)), data.names) == (13, ("cat", "dog"))
    assert [note.removeprefix(f"{tmp_path}: ") for note in data.notes] == [
        "folders without a picture are no classes (empty).",
        "files that are no pictures of a class are left out: 2 (loose.png, dog/about.txt).",
        "pictures in sub-folders of a class are read with it: 1.",
    ]


def test_what_a_picture_holds_beside_is_told_once(tmp_path: Path) -> None:
    classes(tmp_path)
    for name in ("cat", "dog"):
        Image.fromarray(np.full((8, 8, 4), 9, np.uint8)).save(tmp_path / name / "3.png")
    images = load(Options(data_dir=str(tmp_path))).train.images
    images.read(np.arange(len(images)))
    kinds = ("transparency", "colour, as the first picture is grey")
    assert sorted(images.faults()) == sorted(
        f"{tmp_path / 'cat' / '3.png'}: left out are its {kind}, and so those of others like it." for kind in kinds
    )


def nothing(folder: Path) -> None:
    pass


FOLDERS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "too high": (
        lambda f: (classes(f / "set" / "train"), classes(f / "set" / "val")),
        "",
        r"set, in which there are train, val; give .*/set\.",
    ),
    "too high of classes": (lambda f: classes(f / "set"), "", r"holds set, in which there are cat, dog; give .*/set\."),
    "train alone": (lambda f: classes(f / "train"), "", r"holds train, in which there are cat, dog; give .*/train\."),
    "far too high": (
        lambda f: (classes(f / "a" / "b" / "train"), classes(f / "a" / "b" / "val")),
        "",
        r"holds a, in which there are train, val; give .*/a/b\.",
    ),
    "parts without classes": (
        lambda f: draw(f / "train" / "1.png", f / "val" / "1.png"),
        "",
        r"train: holds no folder .* but 1 in itself \(1\.png\), .*; wanted is a folder for each class\.$",
    ),
    "parts without train": (lambda f: [classes(f / p) for p in ("val", "test")], "", "holds .*, but no folder train"),
    "parts by other names": (
        lambda f: [classes(f / p) for p in ("images", "masks")],
        "",
        "each of images, masks holds cat, dog, which seem to be the classes",
    ),
    "a name too long": (lambda f: None, "x" * 300, r"cannot be read \(File name too long\)"),
    "two sets": (lambda f: [classes(f / s / p) for s in "ab" for p in ("train", "test")], "", r"give .*/a\."),
    "too low": (classes, "cat", r"but 6 in itself \(0\.png, .*\), of which nothing says the .*; give the folder above"),
    "flat": (lambda f: draw(f / "1.png", f / "2.png"), "", "2 in itself .* of which nothing says the class"),
    "one class": (lambda f: draw(f / "cat" / "1.png"), "", r"holds one class alone \(cat\), but two at least"),
    "others in val": (
        lambda f: (classes(f / "train"), draw(f / "val" / "images" / "1.png")),
        "",
        "val: holds images, but none of the classes of train",
    ),
    "nothing": (nothing, "", "holds nothing; wanted are the four files of MNIST's format or pictures"),
    "a table": (lambda f: (f / "train.csv").write_text(""), "", r"holds files \(train\.csv\); wanted are"),
    "an archive": (lambda f: (f / "pictures.zip").write_text(""), "", r"pictures\.zip has to be unpacked first\."),
    "arrays": (lambda f: (f / "x.NPZ").write_text(""), "", r"; --data .*x\.NPZ reads that file\."),
    "MNIST below": (lambda f: idx(f / "MNIST" / "raw"), "", r": --data-dir .*/MNIST/raw holds the former\."),
    "MNIST above": (lambda f: (idx(f), (f / "processed").mkdir()), "processed", r": --data-dir .* holds the former\."),
}  # fmt: skip


def idx(folder: Path, *beginnings: str, test: str = "t10k", high: int = 10) -> None:
    """Files of MNIST's format: 8 images each, the last of class `high` - 1."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in beginnings or ("",):
        for part in ("train", test):
            head = bytes([0, 0, 8, 3]) + struct.pack(">3I", 8, 8, 8)
            (folder / f"{name}{part}-images-idx3-ubyte").write_bytes(head + bytes(512))
            labels = bytes([0, 0, 8, 1]) + struct.pack(">I", 8) + bytes([*range(7), high - 1])
            (folder / f"{name}{part}-labels-idx1-ubyte").write_bytes(labels)


@pytest.mark.parametrize(("make", "inner", "sentence"), FOLDERS.values(), ids=FOLDERS)
def test_folders_that_are_no_data_set_say_what_is_wanted(
    tmp_path: Path, make: Callable, inner: str, sentence: str
) -> None:
    make(tmp_path)
    with pytest.raises(DataError, match=sentence) as caught:
        load(Options(data_dir=str(tmp_path / inner)))
    assert str(caught.value).endswith(".")
    assert "MNIST" not in str(caught.value) or "wanted are" in str(caught.value)


def test_names_of_emnist(tmp_path: Path) -> None:
    idx(tmp_path, "emnist-letters-", test="test", high=27)
    (tmp_path / "emnist-letters-mapping.txt").write_text("1 65 97\n26 90 122\n")
    data = load(Options(data_dir=str(tmp_path)))
    assert (data.name, data.classes, data.names[1], data.names[26]) == ("emnist-letters", 27, "A", "Z")
    idx(tmp_path, "emnist-digits-", test="test")
    with pytest.raises(
        DataError, match=r"several data sets \(emnist-digits, emnist-letters\); --data-dir .*digits chooses"
    ):
        load(Options(data_dir=str(tmp_path)))
    assert load(Options(data_dir=str(tmp_path / "emnist-digits"))).classes == 10


def arrays(path: Path, **changes: np.ndarray) -> None:
    images, labels = np.zeros((9, 8, 8), np.uint8), np.arange(9)
    whole = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    with path.open("wb") as file:
        np.savez(file, allow_pickle=True, **(whole | changes))


def npy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


FILES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "text": ("x.npz", lambda p: p.write_text("label\n"), 'is no readable .npz file, but text that begins with "label"'),
    "array as npz": ("x.npz", npy, r"but one NumPy array \(\.npy\)"),
    "cut off": ("x.npz", lambda p: (arrays(p), p.write_bytes(p.read_bytes()[:999])), "and may have been cut off"),
    "no image": ("x.npz", lambda p: arrays(p, x_train=np.zeros((0, 8, 8), np.uint8)), "none of which is 0, is wanted"),
    "array": ("x.npy", npy, r"is one NumPy array \(\.npy\), so that labels or images are missing; wanted is a \.npz"),
    "table": ("x.csv", lambda p: p.write_text("label,pixel0\n"), r'is text that begins with "label,pixel0"; wanted is'),
    "absent": ("x.csv", nothing, r"cannot be read \(No such file"),
    "absent, any ending": ("x.data", nothing, r"cannot be read \(No such file"),
    "one of MNIST's": ("a-ubyte", lambda p: p.write_bytes(bytes([0, 0, 8, 1])), "takes the folder of all four files"),
    "channels first": ("x.npz", lambda p: arrays(p, x_train=np.zeros((9, 3, 8, 8), np.uint8)), "x_train, 1, -1. moves"),
    "rows with a one": ("x.npz", lambda p: arrays(p, y_train=np.eye(9, dtype=int)), r"np\.argmax\(\.\.\., -1\)"),
    "objects": ("x.npz", lambda p: arrays(p, x_train=np.array([None])), "`x_train` holds Python objects, but numbers"),
    "other names": ("x.npz", lambda p: np.savez(p, arr_0=np.zeros(2)), "holds no array `x_train`, but `arr_0`; wanted"),
    "too many classes": ("x.npz", lambda p: arrays(p, y_test=np.arange(9) + 4), "--classes 13 takes them all"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "write", "sentence"), FILES.values(), ids=FILES)
def test_files_that_are_no_data_set_say_what_they_are(
    tmp_path: Path, name: str, write: Callable, sentence: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(DataError, match=sentence) as caught:
        load(Options(data=str(tmp_path / name)))
    assert "allow_pickle" not in str(caught.value)


def test_npz_of_any_ending_and_of_medmnist(tmp_path: Path) -> None:
    arrays(tmp_path / "x.NPZ")
    (tmp_path / "x.dat").write_bytes((tmp_path / "x.NPZ").read_bytes())
    assert [counts(load(Options(data=str(tmp_path / name)))) for name in ("x.NPZ", "x.dat")] == [(9, 9)] * 2
    images, labels = np.zeros((4, 8, 8), np.uint8), np.zeros((4, 1), np.uint8)
    parts = {f"{part}_{kind}": array for part in ("train", "val", "test")
             for kind, array in (("images", images), ("labels", labels))}  # fmt: skip
    np.savez(tmp_path / "med.npz", allow_pickle=False, **parts)
    assert counts(load(Options(data=str(tmp_path / "med.npz")))) == (4, 4, 4)


def test_held_out_images_are_a_share_of_every_class(bars: Data, tmp_path: Path) -> None:
    data = held_out(bars, 0.2)
    assert data.validation is not None
    assert counts(data) == (40, 10, 20)
    np.testing.assert_array_equal(np.bincount(data.validation.labels), np.ones(10))
    classes(tmp_path, 10)
    lazy = load(Options(data_dir=str(tmp_path)))
    part = held_out(lazy, 0.25).validation
    assert part is not None
    np.testing.assert_array_equal(
        part.images.read(np.arange(4))[0], lazy.train.images.read(np.array([3, 7, 11, 15]))[0]
    )
    with pytest.raises(InputError, match=r"`validation` \(=0\.01\) holds out none of the 50 training images"):
        held_out(bars, 0.01)
    with pytest.raises(InputError, match=r"`validation` \(=0\.2\) is not needed: bars has a validation part"):
        held_out(data, 0.2)


@pytest.mark.parametrize("locked", ["b", "b/inside", ".", "other"])
def test_a_folder_that_may_not_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locked: str) -> None:
    """It is named, unless nobody asked for it."""
    home = tmp_path / "home"
    classes(home)
    names = sorted(path.name for path in home.iterdir())
    (home / names[1] / "inside").mkdir()
    where = {"b": home / names[1], "b/inside": home / names[1] / "inside", ".": home, "other": tmp_path}[locked]

    def refusing(function: Callable) -> Callable:
        def call(path: object = ".") -> object:
            if Path(str(path)) == where:
                raise PermissionError(13, "Permission denied", str(where))
            return function(path)

        return call

    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))
    if locked == "other":
        assert counts(load(Options(data_dir=str(home)))) == (10, 2)
        return
    with pytest.raises(DataError, match=re.escape(f"{where}: cannot be read (Permission denied)")):
        load(Options(data_dir=str(home)))


def test_names_that_are_no_text(tmp_path: Path) -> None:
    classes(tmp_path)
    first = sorted(tmp_path.iterdir())[0]
    first.rename(first.with_name("\udcff\udcfe"))
    assert load(Options(data_dir=str(tmp_path))).train.images.fingerprint()


def test_a_path_is_no_name_of_a_data_set() -> None:
    with pytest.raises(DataError, match=r"nowhere: cannot be read \(No such file"):
        load(Options(data="./nowhere"))
