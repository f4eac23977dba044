"""The look at an accelerator, on the small shapes that any machine can do, so that it cannot rot; and that it fails."""

import json

import numpy as np
import pytest
from check import planted
from running import ROOT, environment, python

from jaxcnnbp.ops.conv import forms as conv_forms
from jaxcnnbp.ops.conv import geometry as conv_geometry
from tests.gpu import right
from tests.gpu.problems import CONVOLUTIONS, narrow, small
from tests.gpu.record import Record

pytestmark = pytest.mark.usefixtures("quick")

STEPS = ("right", "deterministic", "fast", "forms", "trained")


def look(*options, **more):
    return python("-m", "tests.gpu", *options, env=environment(**more), cwd=ROOT)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_dry(tmp_path):
    """Every step, in one process."""
    done = look("--dry", "--minutes", "15", "--out", str(tmp_path), quick=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.stem for path in tmp_path.glob("*.json")} >= set(STEPS)
    for step in STEPS:
        rows = json.loads((tmp_path / f"{step}.json").read_text())["rows"]
        assert rows
        assert [row for row in rows if not row.get("ok", True) or "left_out" in row] == []


@pytest.mark.slow
def test_only_dry_without_an_accelerator():
    done = look(JAX_PLATFORMS="cpu")
    assert done.returncode == 2
    assert "--dry" in done.stderr


def looked_at(folder):
    """What is found of one small layer, in `folder` too."""
    (dense,) = (case for case in CONVOLUTIONS if case.name == "dense")
    record = Record(folder, "right", {})
    right.check_layer(narrow(small(dense, 1, 5), 2), right.EXACT, record)
    assert json.loads(record.path.read_text())["rows"] == record.rows
    return record


def test_a_layer_is_right(tmp_path):
    record = looked_at(tmp_path)
    assert {"dense, forward, the rule", "dense, input grad, the rule", "dense, kernel grad, the rule"} <= {
        row["name"] for row in record.rows
    }
    assert record.failures == []


PLANTED = {
    "unflipped kernel": (conv_geometry, "flip", lambda kernel, rank: kernel),
    "dropped corner": (
        conv_forms,
        "transposed_kernel",
        lambda kernel, geometry: conv_geometry.transposed_kernel(kernel, geometry).at[..., 0, 0].set(0),
    ),
}


@pytest.mark.parametrize(("module", "name", "mistake"), PLANTED.values(), ids=PLANTED)
def test_mistakes_are_found(module, name, mistake, tmp_path, monkeypatch):
    monkeypatch.setattr(module, name, mistake)
    with planted(name):
        wrong = looked_at(tmp_path).failures
    assert any("input grad" in row["name"] for row in wrong)
    assert not any("forward, the rule" in row["name"] for row in wrong)
    assert np.isfinite([row["of_what_is_allowed"] for row in wrong]).all()
