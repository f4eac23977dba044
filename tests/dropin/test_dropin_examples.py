"""The recipes for libraries: each runs as a reader runs it and finds equal gradients before and after."""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest
from running import ROOT, environment, python

# name: the library it needs, how many rules it must swap
RECIPES = {
    "10_flax_linen_resnet": ("flax", "6 conv, 1 max_pool, 1 sum_pool swapped, 0 left"),
    "11_flax_nnx_unet": ("flax", "7 conv, 2 max_pool swapped, 0 left"),
    "12_equinox_mobilenet": ("equinox", "7 conv, 1 max_pool, 1 sum_pool swapped, 0 left"),
    "13_haiku_wavenet": ("haiku", "18 conv swapped, 0 left"),
    "14_plain_jax_volumes": ("jax", "2 conv, 1 max_pool swapped, 0 left"),
    "15_keras_on_jax": ("keras", "4 conv, 1 max_pool, 1 sum_pool swapped, 0 left"),
}


def test_every_recipe_is_tested():
    assert sorted(path.stem for path in (ROOT / "examples").glob("1[0-5]_*.py")) == sorted(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_gradients_are_equal_before_and_after(name: str):
    library, swapped = RECIPES[name]
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    done = python(str(ROOT / "examples" / f"{name}.py"), env=environment(quick=True), timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert swapped in done.stdout
    found = re.search(r"largest relative difference of \d+ gradients: (\S+)", done.stdout)
    # float64, a few thousand terms a sum.
    assert found is not None, done.stdout
    assert float(found.group(1)) < 1e-10, done.stdout
