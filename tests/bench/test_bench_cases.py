"""The table of layers: every side computes the same thing, and the least work is counted right."""

import math

import jax
import numpy as np
import pytest
from marks import one_in

from jaxcnnbp.bench import CASES, NETWORKS, PASSES, select
from jaxcnnbp.bench.cases import Case
from jaxcnnbp.bench.jax_side import arrays, autodiff_layer, manual_layer, programs

NAMES = [case.name for case in CASES]
BY_NAME = {case.name: case for case in CASES}

# One of each kind, small enough to run.
SMALL = (
    Case("strided", "conv", (2, 9, 8, 3), (3, 2), 4, stride=2, padding=1),
    Case("dilated groups", "conv", (2, 9, 8, 4), (3, 3), 6, dilation=2, groups=2),
    Case("line", "conv", (2, 9, 3), (3,), 4, padding=1),
    Case("volume", "conv", (1, 4, 5, 3, 2), (2, 2, 2), 3),
    Case("transposed", "conv_transpose", (2, 4, 5, 3), (4, 4), 2, stride=2, padding=1),
    Case("max", "max_pool", (2, 7, 8, 3), (3, 3), stride=2, padding=1),
    Case("dilated max", "max_pool", (2, 7, 8, 3), (2, 2), dilation=2),
    Case("mean", "avg_pool", (2, 7, 8, 3), (3, 3), stride=2, padding=1),
)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_both_sides_have_the_shape_that_the_table_says(case):
    shapes = (case.shape,) if case.is_pool else (case.shape, case.kernel_shape)
    inputs = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    for layer in (manual_layer(case), autodiff_layer(case)):
        assert jax.eval_shape(layer, *inputs).shape == case.output_shape


def test_names_are_unique():
    assert len(set(NAMES)) == len(NAMES)
    assert not set(NAMES) & {network.name for network in NETWORKS}


def results_of(layer, case):
    made = programs(layer, case, arrays(case, "float64"))
    return {step: jax.tree.leaves(made[step].function(*made[step].args)) for step in case.passes}


@pytest.mark.parametrize("case", one_in(3, SMALL, lambda case: case.name))
@pytest.mark.usefixtures("x64")
def test_passes_fit_together_and_both_sides_agree(case):
    ours = results_of(manual_layer(case), case)
    together = [result for step in case.passes[:-1] for result in ours[step]]
    for one, other in zip(ours["together"], together, strict=True):
        np.testing.assert_allclose(one, other, 1e-12, 1e-12)
    if case.name != "dilated max":
        for one, other in zip(ours["together"], results_of(autodiff_layer(case), case)["together"], strict=True):
            np.testing.assert_allclose(one, other, 1e-11, 1e-11)


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
@pytest.mark.usefixtures("x64")
def test_torch_computes_the_same(case):
    pytest.importorskip("torch")
    from jaxcnnbp.bench.torch_side import torch_calls

    operands = arrays(case, "float64")
    ours = results_of(manual_layer(case), case)["together"]
    for call in torch_calls(case, operands, "together").values():
        y, gradients = call()
        for one, other in zip(ours[:2], (y, gradients[0]), strict=True):
            np.testing.assert_allclose(one, np.moveaxis(other.detach().numpy(), 1, -1), 1e-11, 1e-11)
        if not case.is_pool:
            np.testing.assert_allclose(ours[2], kernel_of(gradients[1].numpy(), case), 1e-11, 1e-11)


def kernel_of(gradient, case):
    """PyTorch's `(out, in, *window)`, or `(in, out, *window)` seen from the other end, as `(*window, in, out)`."""
    if case.op == "conv_transpose":
        return np.flip(np.moveaxis(gradient, (0, 1), (-2, -1)), tuple(range(case.rank)))
    return np.moveaxis(gradient, (1, 0), (-2, -1))


def test_dilated_maximum_has_no_gradient_in_jax():
    case = BY_NAME["dilated-max-3x3"].scaled(0)
    with pytest.raises(NotImplementedError, match="dilation"):
        programs(autodiff_layer(case), case, arrays(case, "float32"))


def test_least_work_is_that_worked_out_by_hand():
    case = Case("by hand", "conv", (2, 5, 5, 3), (3, 3), 4)
    multiply_adds = 2 * 3 * 3 * 4 * (3 * 3 * 3)  # images, outputs, features, taps and channels
    assert case.work("forward", 4) == (2 * multiply_adds, 4 * (150 + 108 + 72))
    assert case.work("kernel grad", 4) == (2 * multiply_adds, 4 * (150 + 72 + 108))
    assert case.work("together", 4)[0] == 6 * multiply_adds
    pool = Case("by hand", "max_pool", (1, 4, 4, 1), (2, 2), stride=2)
    assert pool.work("input grad", 4) == (16, 4 * (4 + 16))
    up = Case("by hand", "conv_transpose", (1, 2, 2, 3), (2, 2), 5, stride=2)
    assert up.work("forward", 1)[0] == 2 * 4 * 4 * 3 * 5


def test_scaled_keeps_at_least_one_image():
    assert CASES[0].scaled(0.5).shape == (32, 32, 32, 1)
    assert CASES[0].scaled(1e-9).shape[0] == 1
    assert CASES[0].scaled(2).layer.startswith("128x")


def test_arrays_are_random_and_of_the_dtype():
    x, kernel, delta = arrays(CASES[0].scaled(0), "bfloat16")
    assert {a.dtype.name for a in (x, kernel, delta)} == {"bfloat16"}
    assert (x.shape, delta.shape) == (CASES[0].scaled(0).shape, CASES[0].scaled(0).output_shape)
    assert math.isclose(float(x.astype(np.float32).std()), 1, abs_tol=0.1)


@pytest.mark.parametrize(
    ("pattern", "first"),
    [
        ("vgg-c2", ["vgg-c2"]),
        ("vgg", [n for n in NAMES if n.startswith("vgg-")]),
        ("*-1d-*,lenet-c1", ["lenet-c1"]),
    ],
)
def test_select(pattern, first):
    assert select(pattern, NAMES)[: max(1, len(first))] == first


def test_pattern_without_a_match_is_refused():
    for pattern, named in (("lenet,vvg", "vvg"), ("", ""), (",", ",")):
        with pytest.raises(ValueError, match=rf"`steps` \(='{named}'\) matches none"):
            select(pattern, NAMES, "steps")
    assert select("input grad", PASSES) == ["input grad"]
