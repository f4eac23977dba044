"""Value and vjp of every rule on every geometry, against a NumPy float64 oracle that shares no code with the rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import (
    ACTIVATIONS,
    ALL,
    BLOCKS,
    CONVOLUTIONS,
    LAX_CONVOLUTIONS,
    LAYERS,
    MAX_POOLS,
    MEAN_POOLS,
    POOLS,
    TIE_POOLS,
    Case,
    ids,
    named,
)
from check import assert_rule
from jax import lax
from marks import one_in, slow_but

pytestmark = pytest.mark.usefixtures("quick", "x64")


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=ids(CONVOLUTIONS))
def test_convolution(case: Case):
    assert_rule(case, case.arrays())


@pytest.mark.parametrize("case", LAX_CONVOLUTIONS, ids=ids(LAX_CONVOLUTIONS))
def test_lax_convolution(case: Case):
    assert_rule(case, case.arrays())


@pytest.mark.parametrize("case", one_in(3, POOLS))
def test_pool(case: Case):
    assert_rule(case, case.arrays())


@pytest.mark.parametrize("case", ACTIVATIONS + LAYERS, ids=ids(ACTIVATIONS + LAYERS))
def test_layer(case: Case):
    assert_rule(case, case.arrays())


@pytest.mark.parametrize("case", slow_but(BLOCKS[::3], BLOCKS))
def test_block(case: Case):
    assert_rule(case, case.arrays())


def _reduced(name: str, shape: tuple[int, ...], start: float, by, size, strides, **more) -> Case:
    options = dict(init_value=start, computation=by, window_dimensions=size, window_strides=strides)
    return Case(name, "reduce_window", (shape,), options | dict(padding="VALID") | more)


def _filter(name: str, x: tuple[int, ...], kernel: tuple[int, ...], **options) -> Case:
    return Case(name, "correlate", (x, kernel), dict(padding="SAME") | options)


_TWO = dict(window_shape=(2, 2), strides=(2, 2))
# Functions that the table of all lacks, and sizes at which other forms serve, of lax too.
MORE = (
    Case("", "lp_pool", ((1, 6, 2),), dict(norm_type=3, window_shape=(2,))),
    Case("", "adaptive_avg_pool", ((1, 7, 2),), dict(output_shape=(3,))),
    Case("", "adaptive_max_pool", ((1, 7, 2),), dict(output_shape=(3,))),
    Case(
        "",
        "fractional_max_pool",
        ((1, 7, 2),),
        dict(window_shape=(2,), output_shape=(3,), samples=np.full((1, 2, 1), 0.3)),
    ),
    Case("", "stochastic_pool", ((1, 6, 6, 1),), _TWO | dict(samples=np.full((1, 3, 3, 1), 0.5))),
    Case("means", "stochastic_pool", ((1, 6, 6, 1),), _TWO),
    Case(
        "", "conv_input_grad", ((2, 3, 5), (3, 2, 2)), dict(input_shape=(2, 2, 6), window_strides=(1,), padding="VALID")
    ),
    Case(
        "",
        "conv_kernel_grad",
        ((2, 2, 6), (2, 3, 5)),
        dict(kernel_shape=(3, 2, 2), window_strides=(1,), padding="VALID"),
    ),
    _reduced("of maxima over gaps", (96, 160), -np.inf, lax.max, (2, 1), (2, 1), base_dilation=(1, 2)),
    _reduced("of sums over gaps", (96, 160), 0.0, lax.add, (2, 3), (2, 1), base_dilation=(2, 2)),
    _reduced("of products", (9, 32), 1.0, lax.mul, (1, 5), (1, 2)),
    _reduced("of logaddexp", (9, 32), -np.inf, jnp.logaddexp, (1, 3), (1, 2), padding="SAME"),
    _filter("3x3 of many", (2, 16, 16, 32), (3, 3, 32, 32)),
    _filter("strided of many", (2, 17, 16, 16), (3, 3, 16, 32), stride=2),
    _filter("depthwise of many", (2, 16, 16, 32), (3, 3, 1, 32), groups=32),
    _filter("groups of many", (2, 16, 16, 16), (3, 3, 4, 32), groups=4),
    _filter("long rows", (2, 1000, 1), (64, 1, 8), stride=4),
    _filter("circular", (1, 8, 8, 3), (3, 3, 3, 2), padding_mode="circular"),
    Case("long", "max_pool", ((1, 40, 40, 2),), dict(window_shape=(17, 17)), "rounded"),
)


TWICE = (
    *{case.op: case for case in reversed(ALL)}.values(),
    *CONVOLUTIONS,
    *named(LAX_CONVOLUTIONS, "odd", "input dilation", "all dil", "batch groups", "no spatial axis, groups", "pairs"),
    *named(MAX_POOLS + MEAN_POOLS, "ceil mode", "dilated", "windows of", "many phases", "two batch", "empty"),
    *named(TIE_POOLS, "overlapping", "5x7"),
    *MORE,
)


@pytest.mark.parametrize("case", slow_but({case.op: case for case in TWICE}.values(), TWICE))
def test_one_forward(case: Case):
    """The forward alone and the forward that keeps something for a gradient give the same bits."""

    def kept(*arrays):
        value, pullback = jax.vjp(case, *arrays)
        return value, jax.tree.leaves(pullback)  # or what is kept would be dead code

    arrays = case.arrays("float32")
    alone, with_kept = jax.jit(case)(*arrays), jax.jit(kept)(*arrays)[0]
    assert np.asarray(alone).tobytes() == np.asarray(with_kept).tobytes()
