"""Operations of the package, judged: what of them the judge has to know; that all are right, `test_vjp.py` sees to."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but

import jaxcnnbp as bp
from jaxcnnbp.audit import compare_gradients
from jaxcnnbp.audit.usage import usages

IMAGE, SQUARE = (2, 5, 6, 4), (3, 2, 4, 6)


def judged(fun, *shapes, dtype="float32", values=None):
    generator = np.random.default_rng(0)
    args = [jnp.asarray(generator.normal(size=shape), dtype) for shape in shapes]
    return compare_gradients(fun, *(values or args), timing=False, finite_differences=False)


def test_argmax():
    judged(lambda x: bp.max_pool_with_argmax(x, (2, 2), (2, 2))[0], IMAGE).assert_close()


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


@pytest.mark.parametrize("dtype", slow_but(["bfloat16"], ["bfloat16", "float16"]))
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
