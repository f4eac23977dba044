"""Mistakes planted in the rules are caught by `assert_rule`, the check that `test_vjp` relies on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import BLOCKS, Case
from check import assert_rule, planted

from jaxcnnbp import taps
from jaxcnnbp.ops import block
from jaxcnnbp.ops.conv import rule as conv
from jaxcnnbp.ops.conv.geometry import flip
from jaxcnnbp.ops.dense import sum_to_channels
from jaxcnnbp.ops.pool import max as extreme_pool
from jaxcnnbp.ops.pool import mean as mean_pool

pytestmark = pytest.mark.usefixtures("quick", "x64")

PADDED = Case("padded", "convolve", ((1, 5, 6, 2), (3, 3, 2, 2)), dict(padding=1))
STRIDED = Case("strided", "correlate", ((1, 6, 7, 2), (3, 3, 2, 2)), dict(stride=2, padding=1))
MAXIMA = Case("overlapping", "max_pool", ((1, 6, 5, 2),), dict(window_shape=(2, 2)), "rounded")
SHARED = Case("shared", "max_pool", ((1, 6, 5, 1),), dict(window_shape=(2, 2), ties="split"), "rounded")
MEANS = Case("partial", "avg_pool", ((1, 5, 7, 2),), dict(window_shape=(2, 2), strides=2, ceil_mode=True))
BIAS = Case("", "add_bias", ((2, 3, 4), (4,)))
BLOCK = {case.name: case for case in BLOCKS}
GAIN = Case("", "subsample", ((2, 4, 3), (3,), (3,)), dict(window_shape=(2,)))


def _window(**changes):
    return lambda geometry: dataclasses.replace(geometry, window=dataclasses.replace(geometry.window, **changes))


def _unflipped_input_grad(patch):
    right = conv.input_grad
    patch.setattr(conv, "input_grad", lambda d, k, g: right(d, flip(k, g.window.rank), g))


def _unflipped_kernel_grad(patch):
    right = conv.kernel_grad
    patch.setattr(conv, "kernel_grad", lambda x, d, g: flip(right(x, d, g), g.window.rank))


def _shifted_padding(patch):
    right, shift = conv.input_grad, _window(padding=((0, 2), (1, 1)))
    patch.setattr(conv, "input_grad", lambda d, k, g: right(d, k, shift(g)))


def _missing_stride(patch):
    right, unit = conv.kernel_grad, _window(stride=(1, 1), padding=((0, 0), (0, 0)))

    def wrong(x, d, g):
        spread = unit(g)
        size = spread.window.output
        return right(x, jax.image.resize(d, (d.shape[0], *size, d.shape[-1]), "nearest"), spread)

    patch.setattr(conv, "kernel_grad", wrong)


def _dropped_corner(patch):
    right = conv.input_grad
    patch.setattr(conv, "input_grad", lambda d, k, g: right(d, k, g).at[:, -1, -1].set(0))


def _a_thousandth_too_much(patch):
    right = conv.kernel_grad
    patch.setattr(conv, "kernel_grad", lambda x, d, g: right(x, d, g) * 1.001)


def _swapped_channels(patch):
    right = conv.kernel_grad
    patch.setattr(conv, "kernel_grad", lambda x, d, g: right(x[..., ::-1], d, g))


def _last_winner(patch):
    right = extreme_pool.winners

    def wrong(x, window, kind):
        mirrored = right(x[:, ::-1, ::-1], window, kind)
        best, taps = (a[:, ::-1, ::-1] for a in mirrored)
        return best, (window.taps - 1 - taps).astype(taps.dtype)

    patch.setattr(extreme_pool, "winners", wrong)


def _tie_counted_twice(patch):
    right = extreme_pool.send_to_ties
    patch.setattr(extreme_pool, "send_to_ties", lambda d, words, window, split: right(d, words, window, False))


def _value_copied_into_the_block(patch):
    right = mean_pool.mean_input_grad
    patch.setattr(mean_pool, "mean_input_grad", lambda d, window, padding: right(d, window, padding) * window.taps)


def _partial_windows_divided_by_the_whole(patch):
    patch.setattr(mean_pool, "cells", lambda window, padding: np.full(window.output, window.taps))


def _bias_of_one_image(patch):
    from jaxcnnbp.ops import dense

    patch.setattr(dense, "sum_to_channels", lambda d: sum_to_channels(d[:1]))


def _gain_forgotten(patch):
    from jaxcnnbp.ops import bouvrie

    right = bouvrie.spread_windows
    patch.setattr(bouvrie, "spread_windows", lambda d, window: right(jnp.ones_like(d), window))


def _scatter_one_off(patch):
    right = taps.scatter
    for module in (mean_pool, extreme_pool):
        patch.setattr(module, "scatter", lambda *args: jnp.roll(right(*args), 1, 1))


def _slope_forgotten(patch):
    patch.setattr(block, "through_activation", lambda delta, kept, plan: delta)


def _slope_of_the_input(patch):
    right = block.through_activation
    patch.setattr(block, "through_activation", lambda delta, kept, plan: right(delta, jnp.arctanh(kept), plan))


def _bias_of_every_cell(patch):
    right = block.sum_to_channels
    patch.setattr(block, "sum_to_channels", lambda d: right(d) * 4)


def _delta_copied_into_the_window(patch):
    patch.setattr(block, "send_to_winners", lambda d, taps, window: block.mean_input_grad(d, window, True))


def _pooled_before_what_falls(patch):
    patch.setattr(block, "_activate_and_pool", block._pool_and_activate)


def _bits_reversed(patch):
    patch.setattr(block, "_pack_signs", lambda u: jnp.packbits(u > 0, axis=1, bitorder="little"))


def _input_of_the_first_tap(patch):
    right = block.read_winners
    patch.setattr(block, "read_winners", lambda u, taps, window: right(u, taps * 0, window))


def _delta_averaged_after_the_activation(patch):
    right = block.mean_input_grad
    patch.setattr(block, "mean_input_grad", lambda d, window, padding: right(d, window, padding) * window.taps)


def _padding_activated(patch):
    patch.setattr(block, "where_cells", lambda window, y, otherwise: y)


@pytest.mark.parametrize(
    ("plant", "case"),
    [
        (_unflipped_input_grad, PADDED),
        (_unflipped_kernel_grad, PADDED),
        (_shifted_padding, PADDED),
        (_missing_stride, STRIDED),
        (_dropped_corner, PADDED),
        (_a_thousandth_too_much, STRIDED),
        (_swapped_channels, STRIDED),
        (_last_winner, MAXIMA),
        (_tie_counted_twice, SHARED),
        (_scatter_one_off, MAXIMA),
        (_value_copied_into_the_block, MEANS),
        (_partial_windows_divided_by_the_whole, MEANS),
        (_bias_of_one_image, BIAS),
        (_gain_forgotten, GAIN),
        (_slope_forgotten, BLOCK["max"]),
        (_slope_of_the_input, BLOCK["tanh"]),
        (_bias_of_every_cell, BLOCK["max"]),
        (_delta_copied_into_the_window, BLOCK["linear max"]),
        (_pooled_before_what_falls, BLOCK["falling max"]),
        (_bits_reversed, BLOCK["mean"]),
        (_input_of_the_first_tap, BLOCK["gelu max"]),
        (_delta_averaged_after_the_activation, BLOCK["mean"]),
        (_padding_activated, BLOCK["windows of padding alone"]),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) and not isinstance(value, Case) else str(value),
)
def test_planted_mistake_is_caught(monkeypatch, plant, case):
    with monkeypatch.context() as patch, planted(plant.__name__):
        plant(patch)
        with pytest.raises(AssertionError, match="Not equal to tolerance"):
            assert_rule(case, case.arrays())


@pytest.mark.parametrize("case", [PADDED, STRIDED, MAXIMA, SHARED, MEANS, BIAS, GAIN], ids=str)
def test_without_a_mistake_nothing_is_caught(case):
    assert_rule(case, case.arrays())
