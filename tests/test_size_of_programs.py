"""What is traced does not grow with an axis, a window or a stride: equations are counted, nothing is compiled."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.extend.core import jaxprs_in_params

import jaxcnnbp

# A form that writes taps out has up to 128 of them, each with a few equations, in the forward and in the gradients.
MOST = 2500


def equations(jaxpr) -> int:
    return sum(1 + sum(map(equations, jaxprs_in_params(eqn.params))) for eqn in jaxpr.eqns)


def row(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


LONG, IMAGE = row(1, 16000, 2), row(1, 150, 150, 2)
CASES = {
    **{f"adaptive max to {m}": (lambda x, m=m: jaxcnnbp.adaptive_max_pool(x, (m,)), LONG) for m in (1, 7, 20000)},
    "adaptive mean to 7": (lambda x: jaxcnnbp.adaptive_avg_pool(x, (7,)), LONG),
    "adaptive max of images": (lambda x: jaxcnnbp.adaptive_max_pool(x, (7, 1)), IMAGE),
    **{
        f"max of {k} by {s}, ties {ties}": (lambda x, k=k, s=s, t=ties: jaxcnnbp.max_pool(x, (k,), (s,), ties=t), LONG)
        for k, s in ((240, 1), (4000, 4000), (3, 4000))
        for ties in ("first", "all", "split")
    },
    "max of 20 x 20, all": (lambda x: jaxcnnbp.max_pool(x, (20, 20), ties="all"), IMAGE),
    "max of 100 x 100": (lambda x: jaxcnnbp.max_pool(x, (100, 100), (50, 50)), IMAGE),
    "dilated max": (lambda x: jaxcnnbp.max_pool(x, (1000,), window_dilation=(3,)), LONG),
    "winners": (lambda x: jaxcnnbp.max_pool_with_argmax(x, (1000,))[0], LONG),
    "mean": (lambda x: jaxcnnbp.avg_pool(x, (4000,), (7,)), LONG),
    "mean by a long stride": (lambda x: jaxcnnbp.avg_pool(x, (3,), (4000,)), LONG),
    "mean of cells": (lambda x: jaxcnnbp.avg_pool(x, (4000,), (1,), "SAME", count_include_pad=False), LONG),
    "norm": (lambda x: jaxcnnbp.lp_pool(x, 2, (1000,), (3,)), LONG),
    **{
        f"product of {k} by {s}": (
            lambda x, w=(1, k, 1), s=(1, s, 1): jaxcnnbp.reduce_window(x, 1.0, lax.mul, w, s),
            LONG,
        )
        for k, s in ((240, 1), (1000, 1000), (3, 4000))
    },
    "upsample": (lambda x: jaxcnnbp.upsample(x, (1000,), (300,)), row(1, 16, 2)),
    "upsample by a long stride": (lambda x: jaxcnnbp.upsample(x, (3,), (4000,)), row(1, 4, 2)),
    "unpool": (lambda x: jaxcnnbp.max_unpool(x, jnp.zeros(x.shape, int), (16000,)), row(1, 4000, 2)),
    **{
        f"{k} taps by {s}, {i} to {o} in {g}": (
            lambda x, kernel, s=s, g=g: jaxcnnbp.correlate(x, kernel, stride=s, groups=g),
            row(1, 16000, i),
            row(k, i // g, o),
        )
        for k, s in ((1000, 300), (3, 4000))
        for i, o, g in ((2, 2, 1), (4, 4, 4), (1, 4, 1), (4, 4, 2))
    },
    "transposed by a long stride": (
        lambda x, kernel: jaxcnnbp.conv_transpose(x, kernel, (4000,), "VALID"), row(1, 8, 4), row(3, 4, 4),
    ),
    "31 x 31 taps": (jaxcnnbp.correlate, IMAGE, row(31, 31, 2, 2)),
    "31 x 31 depthwise": (lambda x, kernel: jaxcnnbp.correlate(x, kernel, groups=2), IMAGE, row(31, 31, 1, 2)),
}  # fmt: skip


# What is taken side by side, one slice an axis or a block, whatever the number of taps.
SIDE_BY_SIDE = {
    "dense patches of 7 x 7 by 2": (
        jaxcnnbp.manual_backward(lambda x: lax.conv_general_dilated_patches(x, (7, 7), (2, 2), "VALID")),
        row(1, 3, 32, 32),
    ),
    "tiles of 8 x 8": (lambda x, kernel: jaxcnnbp.correlate(x, kernel, stride=8), row(1, 32, 32, 3), row(8, 8, 3, 192)),
    "128 taps by 32, 1 to 130": (
        lambda x, kernel: jaxcnnbp.correlate(x, kernel, stride=32), row(1, 1024, 1), row(128, 1, 130),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_programs_stay_small(case):
    function, *operands = CASES[case]
    every = tuple(range(len(operands)))
    gradient = jax.grad(lambda *args: (function(*args) ** 2).sum(), every)
    assert equations(jax.make_jaxpr(gradient)(*operands).jaxpr) < MOST


@pytest.mark.parametrize("case", SIDE_BY_SIDE)
def test_taps_side_by_side(case):
    function, *operands = SIDE_BY_SIDE[case]
    gradient = jax.grad(lambda *args: (function(*args) ** 2).sum())
    assert equations(jax.make_jaxpr(gradient)(*operands).jaxpr) < 1100
