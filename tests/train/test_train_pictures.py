"""Pictures and the confusion summary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jaxcnnbp.errors import check_output
from jaxcnnbp.train import InputError
from jaxcnnbp.train.plots import check_picture, plot_curves, plot_kernels
from jaxcnnbp.train.watch.confusion import confusion_summary, worst_confusions
from jaxcnnbp.train.watch.events import Epoch

PNG = b"\x89PNG"


def history(errors: list[float]) -> list[Epoch]:
    return [Epoch(i + 1, i, e, e, e, e, 1e-3, 1.0, 1.0) for i, e in enumerate(errors)]


@pytest.mark.parametrize("errors", [[0.5, 0.1, 0.01], [0.2, 0.0], [0.0], [0.3]])
def test_curves(tmp_path: Path, errors: list[float]) -> None:
    plot_curves(tmp_path / "curves.png", history(errors), "a model")
    assert (tmp_path / "curves.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize("maps", [(1, 6), (3, 4), (1, 1)])
def test_kernels(tmp_path: Path, maps: tuple[int, int]) -> None:
    params = {"conv1": {"kernel": np.random.default_rng(0).normal(size=(5, 5, *maps))}}
    plot_kernels(tmp_path / "kernels.png", params, "a model")
    assert (tmp_path / "kernels.png").read_bytes().startswith(PNG)


def test_kernels_of_a_model_without_any(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the model has none"):
        plot_kernels(tmp_path / "kernels.png", {"dense1": {"kernel": np.zeros((2, 2))}}, "a model")


def test_outputs_are_checked_beforehand(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`save` \(=.*\) is a folder"):
        check_output("save", tmp_path)
    with pytest.raises(InputError, match="lies in no folder that exists"):
        check_output("save", tmp_path / "absent" / "params.npz")
    with pytest.raises(InputError, match="must end like a picture"):
        check_picture("curves", tmp_path / "curves.doc")
    check_picture("curves", tmp_path / "curves.PNG")


def test_confusion_summary_of_a_hand_worked_matrix() -> None:
    confusion = np.array([[8, 2, 0], [0, 5, 0], [1, 3, 1]])
    assert worst_confusions(confusion, 2) == [(2, 1), (0, 1)]
    assert confusion_summary(confusion, worst=2).splitlines() == [
        "true \\ given   0   1   2   error",
        "           0   8   2   .  20.0 %",
        "           1   .   5   .   0.0 %",
        "           2   1   3   1  80.0 %",
        "2 taken for 1: 3 of 5 (60.0 %)",
        "0 taken for 1: 2 of 10 (20.0 %)",
        "error rate: 6 of 20 images, 30.00 %",
    ]


def test_confusion_table_has_the_names_of_the_classes() -> None:
    confusion = np.array([[8, 2], [1, 5]])
    assert confusion_summary(confusion, names=("cat", "dog")).splitlines() == [
        "true \\ given cat dog   error",
        "         cat   8   2  20.0 %",
        "         dog   1   5  16.7 %",
        "cat taken for dog: 2 of 10 (20.0 %)",
        "dog taken for cat: 1 of 6 (16.7 %)",
        "error rate: 3 of 16 images, 18.75 %",
    ]
    heading, first, *_ = confusion_summary(confusion, names=("sea lion", "cat")).splitlines()
    assert (heading, first) == ("true \\ given   0   1   error", "  0 sea lion   8   2  20.0 %")
    assert "1,000 classes: too many" in confusion_summary(np.eye(1000, dtype=int))


def test_confusion_of_a_perfect_model_and_of_an_absent_class() -> None:
    summary = confusion_summary(np.diag([3, 0, 2]))
    assert "taken for" not in summary
    assert summary.endswith("error rate: 0 of 5 images, 0.00 %")
