"""`padding_mode`: borders that repeat the input, in PyTorch's meaning (`F.pad`), and their transposes."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import Case
from check import assert_rule, assert_same, planted

import jaxcnnbp
from jaxcnnbp import mode
from jaxcnnbp.geometry import window_of
from jaxcnnbp.ops import block, pad
from jaxcnnbp.ops.pad import border_of

pytestmark = pytest.mark.usefixtures("quick", "x64")


def case(op, name, x, kernel, **options):
    shapes = (x, kernel, kernel[-1:]) if op == "conv_block" else (x, kernel)
    return Case(name, op, shapes, options)


CASES = (
    case("correlate", "asymmetric", (2, 5, 2), (3, 2, 2), padding=[(2, 3)], padding_mode="circular"),
    case("convolve", "SAME strided", (1, 5, 6, 2), (3, 4, 2, 2), padding="SAME", stride=(2, 1), padding_mode="reflect"),
    case(
        "correlate", "wider than the input", (1, 2, 3, 1), (5, 4, 1, 2), padding=[3, (4, 1)], padding_mode="replicate"
    ),
    case("correlate", "cropped", (1, 6, 5, 2), (2, 2, 2, 1), padding=[(-1, 3), (2, -1)], padding_mode="circular"),
    case("convolve", "cropped", (1, 6, 5, 2), (2, 2, 2, 1), padding=[(-1, 5), (2, -1)], padding_mode="reflect"),
    case("correlate", "3d grouped", (1, 3, 4, 3, 2), (2, 3, 2, 1, 2), padding=1, groups=2, padding_mode="reflect"),
    case("convolve", "FULL dilated", (1, 4, 5, 1), (2, 3, 1, 2), padding="FULL", dilation=2, padding_mode="circular"),
    case("conv_block", "max", (2, 6, 5, 2), (3, 3, 2, 3), padding=1, pool=2, pool_strides=2, padding_mode="circular"),
    case("conv_block", "no pool", (1, 6, 2), (3, 2, 3), padding=2, activation="tanh", padding_mode="reflect"),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_value_and_gradients(case):
    assert_rule(case, case.arrays())


# torch.nn.functional.pad(torch.arange(5.), pairs, mode) in PyTorch 2.14.
FROM_PYTORCH = [
    ("circular", (2, 3), [3, 4, 0, 1, 2, 3, 4, 0, 1, 2]),
    ("circular", (5, 0), [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]),
    ("circular", (-1, 4), [1, 2, 3, 4, 1, 2, 3, 4]),
    ("circular", (2, -1), [2, 3, 0, 1, 2, 3]),
    ("reflect", (2, 3), [2, 1, 0, 1, 2, 3, 4, 3, 2, 1]),
    ("reflect", (4, 0), [4, 3, 2, 1, 0, 1, 2, 3, 4]),
    ("reflect", (-1, 4), [1, 2, 3, 4, 3, 2, 1, 0]),
    ("replicate", (2, 6), [0, 0, 0, 1, 2, 3, 4, 4, 4, 4, 4, 4, 4]),
    ("replicate", (-2, 3), [2, 3, 4, 4, 4, 4]),
]


@pytest.mark.parametrize(("padding_mode", "pair", "wanted"), FROM_PYTORCH)
def test_as_pytorch(padding_mode, pair, wanted):
    x = jnp.arange(5.0).reshape(1, 5, 1)
    border, _ = border_of(window_of((5,), (1,), padding=(pair,)), padding_mode)
    y, pullback = jax.vjp(lambda x: pad.pad_op(x, border), x)
    delta = np.arange(1.0, len(wanted) + 1)
    assert np.ravel(y).tolist() == wanted
    # Each copy adds its delta to the cell that it shows.
    dx = [sum(d for d, cell in zip(delta, wanted, strict=True) if cell == n) for n in range(5)]
    assert np.ravel(pullback(jnp.asarray(delta).reshape(y.shape))[0]).tolist() == dx


def test_narrow_floats_are_summed_wide():
    x = jnp.ones((1, 2, 1), jnp.bfloat16)
    kernel = jnp.ones((1, 1, 1), jnp.bfloat16)
    dx = jax.grad(lambda x: jaxcnnbp.correlate(x, kernel, padding=511, padding_mode="replicate").sum())(x)
    assert (dx.dtype, np.ravel(dx).tolist()) == (jnp.bfloat16, [512, 512])


def test_what_lies_off_the_border_does_not_spread():
    """A NaN reaches the outputs whose windows hold a copy of it, and no other."""
    x = jnp.ones((1, 8, 1)).at[0, 1].set(jnp.nan)
    y = jaxcnnbp.correlate(x, jnp.ones((2, 1, 1)), padding=[(2, 0)], padding_mode="reflect")
    assert np.flatnonzero(np.isnan(y.ravel())).tolist() == [0, 1, 2, 3]


def test_to_third_order():
    modes = ("circular", "reflect", "replicate")
    each = [case("correlate", "", (1, 4, 1), (2, 1, 1), padding=[(2, 1)], padding_mode=name) for name in modes]
    x, kernel = each[0].arrays()

    def along(t):
        return sum(jnp.sum(jnp.sin(one(x * (1 + t), kernel * (1 + t)))) for one in each)

    third = jax.grad(jax.grad(jax.grad(along)))
    with mode("autodiff"):
        wanted = jax.jit(third)(0.5)
    assert_same(jax.jit(third)(0.5), wanted, 1e-9)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            dict(padding=4, padding_mode="reflect"),
            "`padding` (=((4, 4),)) adds 4 positions at a side of spatial axis 0,",
        ),
        (dict(padding=5, padding_mode="circular"), "`padding_mode` (='circular') has at most 4 to repeat there"),
        (dict(padding="SAME", dilation=5, padding_mode="reflect"), "(='reflect') has at most 3 to repeat"),
        (dict(padding_mode="wrap"), "`padding_mode` (='wrap') is unknown; use one of 'zeros', 'circular', 'reflect',"),
        (dict(padding_mode=None), "`padding_mode` (=None) is unknown"),
    ],
)
def test_sentences(options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        jaxcnnbp.correlate(jnp.ones((1, 4, 1)), jnp.ones((3, 1, 1)), **options)


def test_nothing_to_repeat():
    with pytest.raises(ValueError, match="has at most 0 to repeat"):
        jaxcnnbp.correlate(jnp.ones((1, 0, 1)), jnp.ones((1, 1, 1)), padding=1, padding_mode="replicate")


def _mirrored_too_far(patch):
    patch.setattr(pad, "strips", lambda mode, n, low, high: ((0, low), (n - high, n)))


def _not_turned_back(patch):
    right = pad._lay
    patch.setattr(pad, "_lay", lambda d, axis, strip, n, mode: right(jnp.flip(d, axis), axis, strip, n, mode))


def _border_dropped(patch):
    patch.setattr(pad, "_lay", lambda d, axis, strip, n, mode: 0.0)


def _border_dropped_in_the_block(patch):
    def cut(d, border):
        rows = zip(border.pairs, border.spatial, strict=True)
        return d[:, *(slice(low, low + n) for (low, _), n in rows)]

    patch.setattr(block, "pad_input_grad", cut)


@pytest.mark.parametrize(
    ("plant", "case"),
    [
        (_mirrored_too_far, CASES[1]),
        (_not_turned_back, CASES[1]),
        (_border_dropped, CASES[0]),
        (_border_dropped_in_the_block, CASES[-1]),
    ],
    ids=lambda value: "" if isinstance(value, Case) else value.__name__.strip("_"),
)
def test_planted_mistake_is_caught(monkeypatch, plant, case):
    with monkeypatch.context() as patch, planted(plant.__name__):
        plant(patch)
        with pytest.raises(AssertionError, match="Not equal to tolerance"):
            assert_rule(case, case.arrays())
