"""Every public operation of the package, judged: hand-written rule against the NumPy oracle."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnnbp as bp
from jaxcnnbp.audit import compare_gradients
from jaxcnnbp.audit.usage import usages

IMAGE, LINE, VOLUME = (2, 5, 6, 4), (2, 7, 4), (2, 4, 3, 4, 2)
SQUARE = (3, 2, 4, 6)
TABLE = np.asarray([[1, 0, 1, 1, 0, 1]] * 2 + [[0, 1, 1, 0, 1, 0]] * 2, bool)

CASES = {
    "convolve": (lambda x, kernel: bp.convolve(x, kernel, padding="SAME"), IMAGE, SQUARE),
    "convolve full": (lambda x, kernel: bp.convolve(x, kernel, padding="FULL", dilation=2), IMAGE, SQUARE),
    "convolve table": (lambda x, kernel: bp.convolve(x, kernel, connections=TABLE), IMAGE, SQUARE),
    "correlate": (lambda x, k: bp.correlate(x, k, stride=(2, 1), padding=((2, 0), (-1, 3))), IMAGE, SQUARE),
    "correlate lower": (lambda x, k: bp.correlate(x, k, stride=2, padding="SAME_LOWER"), IMAGE, SQUARE),
    "correlate groups": (lambda x, k: bp.correlate(x, k, groups=2, padding=1), IMAGE, (3, 2, 2, 6)),
    "correlate 1-D": (lambda x, k: bp.correlate(x, k, stride=3, padding=2), LINE, (4, 4, 3)),
    "correlate 3-D": (lambda x, k: bp.correlate(x, k, padding="SAME"), VOLUME, (2, 3, 1, 2, 3)),
    "max_pool": (lambda x: bp.max_pool(x, (3, 2), (2, 1), "SAME"), IMAGE),
    "max_pool ceil": (lambda x: bp.max_pool(x, (2, 4), (2, 4), ceil_mode=True), IMAGE),
    "max_pool dilated": (lambda x: bp.max_pool(x, (2, 2), window_dilation=(2, 3)), IMAGE),
    "min_pool": (lambda x: bp.min_pool(x, (2, 3), (1, 2), ((1, 0), (0, 2))), IMAGE),
    "max_pool argmax": (lambda x: bp.max_pool_with_argmax(x, (2, 2), (2, 2))[0], IMAGE),
    "avg_pool": (lambda x: bp.avg_pool(x, (3, 2), (2, 1), "SAME"), IMAGE),
    "avg_pool real cells": (lambda x: bp.avg_pool(x, (3, 3), (2, 2), "SAME", False), IMAGE),
    "avg_pool ceil": (lambda x: bp.avg_pool(x, (2, 4), (2, 4), ((1, 0), (0, 0)), ceil_mode=True), IMAGE),
    "upsample": (lambda x: bp.upsample(x, (2, 3)), IMAGE),
    "upsample overlapping": (lambda x: bp.upsample(x, (3, 2), (2, 1)), IMAGE),
    "subsample": (lambda x, beta, bias: bp.subsample(x, beta, bias, (5, 2)), IMAGE, (4,), (4,)),
    "subsample ceil": (lambda x, b, c: bp.subsample(x, b, c, (2, 4), ceil_mode=True), IMAGE, (4,), (4,)),
    "combine_maps": (bp.combine_maps, IMAGE, SQUARE, (4, 6), (6,)),
    "combination_entropy": (bp.combination_entropy, (4, 6)),
    "dense": (bp.dense, IMAGE, (4, 3), (3,)),
    "conv": (lambda x, k: bp.conv(x, k, (1, 2), "SAME"), (2, 4, 5, 6), (3, 4, 2, 2)),
    "conv_transpose": (lambda x, k: bp.conv_transpose(x, k, (2, 3), "SAME"), IMAGE, SQUARE),
}
ACTIVATIONS = "identity logistic tanh scaled_tanh relu leaky_relu gelu silu".split()


def judged(fun, *shapes, dtype="float32", values=None):
    generator = np.random.default_rng(0)
    args = [jnp.asarray(generator.normal(size=shape), dtype) for shape in shapes]
    return compare_gradients(fun, *(values or args), timing=False, finite_differences=False)


@pytest.mark.parametrize("name", CASES)
def test_operation(name):
    fun, *shapes = CASES[name]
    judged(fun, *shapes).assert_close()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name):
    judged(getattr(bp, name), (3, 4)).assert_close()


def test_lax_parameters():
    options = dict(lhs_dilation=(2, 1), rhs_dilation=(1, 2), batch_group_count=2)
    options |= dict(dimension_numbers=("CHWN", "HWIO", "NHWC"), padding=((1, 2), (0, 3)))

    def fun(x, kernel):
        return bp.conv_general_dilated(x, kernel, (2, 1), **options)

    judged(fun, (3, 4, 5, 2), (2, 2, 3, 4)).assert_close()


@pytest.mark.parametrize("ties", ["first", "all", "split"])
def test_ties(ties):
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, IMAGE), jnp.float32)
    report = judged(lambda x: bp.max_pool(x, (2, 3), (1, 2), ties=ties), values=[x])
    report.assert_close()
    assert report.ties["max_pool: windows with a tie"] > 10


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_sums_are_held_wide(dtype):
    judged(lambda x: bp.avg_pool(x, (32, 32)), (1, 32, 32, 1), dtype=dtype).assert_close()


def test_complex_convolution():
    judged(lambda x, k: bp.correlate(x, k, padding="SAME"), IMAGE, SQUARE, dtype="complex64").assert_close()


def test_padding_is_told_from_the_rest():
    def fun(x, kernel):
        return bp.correlate(x, kernel, padding=((1, 0), (0, 0)))

    report = judged(fun, IMAGE, SQUARE)
    assert {row.name: row.axes for row in report.rows} == {"x": (1, 2), "kernel": (0, 1)}
    with bp.mode("oracle"):
        found = usages(jax.make_jaxpr(fun)(jnp.ones(IMAGE), jnp.ones(SQUARE)), 2)
    assert found[0].meets_padding(IMAGE)[0, :, 0, 0].tolist() == [True, True, False, False, False]
    assert found[1].meets_padding(SQUARE)[:, 0, 0, 0].tolist() == [True, False, False]
