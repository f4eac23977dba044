"""The examples run as a reader runs them, and print what they promise."""

import re
from importlib.util import find_spec

import pytest
from marks import slow_but
from running import ROOT, STRICT, environment, python

EXAMPLES = ROOT / "examples"

# Lines that each example must print, without a warning, as regular expressions.
PRINTED = {
    "01_convolution_by_hand": [
        r"dk, the gradient of the kernel\n\[\[1 5\]\n \[9 3\]\]\nlargest difference from plain Python: 0",
        r"dx again.*\n\[\[ 1 -1  2 -2\]\n \[ 2 -1  5  0\]\n \[ 1 -3  1 -1\]\n \[ 2  0  2  0\]\]\n.*: 0",
    ],
    "02_pooling": [
        r"max_unpool\(delta, winners\): True",
        r"first  \[6\. 0\. 3\. 0\. 0\.\]",
        r"all    \[6\. 6\. 3\. 3\. 3\.\]",
        r"split  \[3\. 3\. 1\. 1\. 1\.\]",
        r"\[0\. 2\. 0\. 1\.\]",
        r"delta \[1\. 1\. 1\. 1\. 2\.\]",
    ],
    "03_slips_of_the_document": [
        r"forward correlate(.*\n)  sum_i.*right\n  d \* flip\(w\).*wrong\n  jaxcnnbp.*right",
        r"forward convolve(.*\n)  sum_i.*wrong\n  d \* flip\(w\).*right\n  jaxcnnbp.*right",
        r"value copied .*wrong\n  value / m .*right",
        r"f'\(u o up\(delta\)\) .*wrong\n  f'\(u\) o up\(delta\) .*right",
    ],
    "04_bouvrie_layers": [
        r"dbeta +\[23\.\]",
        r"dc, the rule of the package +(\[.*\])\n  dc, the formula above +\1\n  dc, JAX's autodiff +\1",
        r"gradient of sum \|alpha\| +\[ *0\. +0\. +0\. *\]",
        r"step 60: alpha +\[0\.00\d+ 0\.99\d+ 0\.00\d+\]",
    ],
    "05_every_delta": [
        r"conv1      \(5, 8, 8, 4\)",
        r"input      \(5, 10, 10, 1\)",
        r"largest difference from jax\.grad of the same model: (0e\+00|\de-(0[89]|1\d))",
    ],
    "06_judge_your_own_rule": [
        r"^right: right; .* passes it$",
        r"^unflipped: wrong; .*\n  `x`: .* elements are wrong",
        r"^corner_lost: wrong; .*\n  `x`: 6 of 384 elements are wrong \(6 corner\)",
        r"^slightly_large: wrong; .* passes it\n  `kernel`: .*It looks like 1\.001 times the right gradient",
        r"2 of 2 right",
    ],
    "07_train_digits": [r"epoch 8 .*test error  [0-5]\.\d\d %"],
    "08_where_jax_is_wrong": [
        r"jaxcnnbp  \[0\. 1\. 1\. 0\. 1\.\]",
        r"32x32 ones in bfloat16\n.*\n    jaxcnnbp  \[1\.\]",
        r"jaxcnnbp  \[0\. 1\. 0\.\]: the cell that won",
        r"jaxcnnbp  \[0\. +1\.5\]",
        r"gradient of max pooling .*: JAX [\d.]+ ms, jaxcnnbp [\d.]+ ms",
    ],
    "09_flax_drop_in": [
        r"loss: by hand (\d\.\d{5})\d, by autodiff \1",
        r"params\.Conv_0\.kernel +largest relative difference (0e\+00|\de-0[5-9])",
    ],
    "16_resume_after_a_kill": [
        r"start 1: Stopped at step 19 of 48 and saved; the same command with --resume goes on\.",
        r"start 3: finished; the same bits: True",
        r"best model, of epoch \d, kept: True",
        r"after kill -9: the same bits: True",
    ],
    "17_many_devices": [
        r"one device +1 x 1  a step exchanges nothing",
        r"images over eight +8 x 1  a step exchanges 1 all-reduce\n +farthest from one device: \de-0[4-9]",
        r"and parameters +8 x 1  a step exchanges 1 all-gather, 1 all-reduce, 1 reduce-scatter",
        r"bands of rows over two +4 x 2  a step exchanges .*collective-permute",
    ],
    "21_look_at_a_layer": [
        r"^dk\[0,2\] = .* = ",
        r"^dx\[2,2\] = ",
        r"^y\[1,1\] = max\(2, 0, 4, 3\) = 4",
        r"\d+ kB: .*html",
    ],
    "22_a_report_to_hand_on": [r"x +48 of 384 elements wrong", r"kernel +right", r"\d+ kB: "],
}

# The recipes for libraries: the library that each needs, how many rules it must swap.
RECIPES = {
    "10_flax_linen_resnet": ("flax", "6 conv, 1 max_pool, 1 sum_pool swapped, 0 left"),
    "11_flax_nnx_unet": ("flax", "7 conv, 2 max_pool swapped, 0 left"),
    "12_equinox_mobilenet": ("equinox", "7 conv, 1 max_pool, 1 sum_pool swapped, 0 left"),
    "13_haiku_wavenet": ("haiku", "18 conv swapped, 0 left"),
    "14_plain_jax_volumes": ("jax", "2 conv, 1 max_pool swapped, 0 left"),
    "15_keras_on_jax": ("keras", "4 conv, 1 max_pool, 1 sum_pool swapped, 0 left"),
}

# One of each kind; the others are slow.
QUICK = {"01_convolution_by_hand", "14_plain_jax_volumes"}


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("[0-9]*.py")} == PRINTED.keys() | RECIPES.keys()


@pytest.mark.parametrize("name", slow_but(QUICK, PRINTED))
def test_example_prints(name: str) -> None:
    done = python(*STRICT, str(EXAMPLES / f"{name}.py"), env=environment(quick=True))
    assert done.returncode == 0, done.stderr
    for pattern in PRINTED[name]:
        assert re.search(pattern, done.stdout, re.MULTILINE), f"{pattern!r} is not in:\n{done.stdout}"


@pytest.mark.parametrize("name", slow_but(QUICK, RECIPES))
def test_gradients_are_equal_before_and_after(name: str) -> None:
    library, swapped = RECIPES[name]
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    done = python(str(EXAMPLES / f"{name}.py"), env=environment(quick=True), timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert swapped in done.stdout
    found = re.search(r"largest relative difference of \d+ gradients: (\S+)", done.stdout)
    # float64, a few thousand terms a sum.
    assert found is not None, done.stdout
    assert float(found.group(1)) < 1e-10, done.stdout
