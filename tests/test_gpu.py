"""The look at an accelerator, on the small shapes that any machine can do, so that it cannot rot; and that it fails."""

import json

import numpy as np
import pytest
from running import ROOT, environment, python

STEPS = ("right", "deterministic", "fast", "forms", "trained")


def look(folder, *options, **more):
    return python("-m", "tests.gpu", "--dry", "--out", str(folder), *options, env=environment(**more), cwd=ROOT)


@pytest.mark.parametrize("step", STEPS)
def test_dry(step, tmp_path):
    done = look(tmp_path, "--steps", step)
    assert done.returncode == 0, done.stdout + done.stderr
    stored = json.loads((tmp_path / f"{step}.json").read_text())
    assert stored["rows"]
    assert [row for row in stored["rows"] if not row.get("ok", True) or "left_out" in row] == []


def test_only_dry_without_an_accelerator():
    done = python("-m", "tests.gpu", env=environment(JAX_PLATFORMS="cpu"), cwd=ROOT)
    assert done.returncode == 2
    assert "--dry" in done.stderr


PLANTED = {
    "unflipped kernel": ("conv_forms", "flip", "lambda kernel, rank: kernel"),
    "dropped corner": ("conv_forms", "transposed_kernel", "lambda k, g: actual(k, g).at[..., 0, 0].set(0)"),
}


@pytest.mark.parametrize(("module", "name", "mistake"), PLANTED.values(), ids=PLANTED)
def test_mistakes_are_found(module, name, mistake, tmp_path):
    """The same command with a mistake planted into a rule before it starts."""
    program = (
        f"import runpy, sys; from jaxcnnbp.ops import {module} as rule; actual = rule.{name}; rule.{name} = {mistake}\n"
        f"sys.argv = ['tests.gpu', '--dry', '--steps', 'right', '--out', {str(tmp_path)!r}]\n"
        "runpy.run_module('tests.gpu', run_name='__main__')"
    )
    done = python("-c", program, env=environment(), cwd=ROOT)
    assert done.returncode == 1, done.stdout + done.stderr
    rows = json.loads((tmp_path / "right.json").read_text())["rows"]
    wrong = [row for row in rows if not row.get("ok", True)]
    assert any("input grad" in row["name"] for row in wrong)
    assert not any("forward, the rule" in row["name"] for row in wrong)
    assert np.isfinite([row["of_what_is_allowed"] for row in wrong if "of_what_is_allowed" in row]).all()
