"""Heights and widths that are symbols of `jax.export`: one program serves every size, as lax's own functions do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

import jaxcnnbp as J

pytestmark = pytest.mark.usefixtures("quick")

RNG = np.random.default_rng(0)
K = RNG.normal(size=(3, 2, 2, 4)).astype(np.float32)
BIAS = RNG.normal(size=4).astype(np.float32)
TABLE = RNG.random((2, 4)) < 0.7

LAST = ("NHWC", "HWIO", "NHWC")


def _largest(a, b):
    """Pairs of a value and what it is weighed by."""
    return tuple(jnp.where(a[1] >= b[1], x, y) for x, y in zip(a, b, strict=True))


POOLS = {
    "valid": lambda x: J.max_pool(x, (2, 3), (2, 1)),
    "same": lambda x: J.min_pool(x, (3, 2), (2, 2), "SAME"),
    "same lower, cells": lambda x: J.avg_pool(x, (2, 2), (1, 2), "SAME_LOWER", count_include_pad=False),
    "pairs that crop": lambda x: J.avg_pool(x, (2, 2), (2, 1), ((-1, 1), (1, -1))),
    "gaps": lambda x: J.max_pool(x, (2, 2), window_dilation=(1, 2)),
    "norm below one": lambda x: J.lp_pool(abs(x), 0.5, (2, 1), (1, 1)),
    "products": lambda x: J.reduce_window(x, 1.0, lax.mul, (1, 2, 2, 1), padding="SAME"),
    "from a value of its own": lambda x: J.reduce_window(x, x.max(), lax.mul, (1, 2, 3, 1), (1, 2, 1, 1)),
    "two at once": lambda x: J.reduce_window((x, abs(x)), (0.0, 0.0), _largest, (1, 2, 2, 1), (1, 1, 2, 1))[0],
    "logaddexp, gaps": lambda x: J.reduce_window(x, -np.inf, jnp.logaddexp, (1, 2, 2, 1), window_dilation=(1, 2, 1, 1)),
    "maxima from a number": lambda x: J.reduce_window(x, 0.2, lax.max, (1, 2, 2, 1), padding="SAME"),
    "sums of lax": J.manual_backward(lambda x: lax.reduce_window(x, 0.5, lax.add, (1, 2, 2, 1), (1, 1, 2, 1), "SAME")),
    "adaptive": lambda x: J.adaptive_avg_pool(x, 1),
    "adaptive, one axis": lambda x: J.adaptive_max_pool(x, (1, None)),
    "channels first": lambda x: J.max_pool(jnp.moveaxis(x, -1, 1), (2, 2), padding="FULL", layout="NCHW"),
    "narrow": lambda x: J.avg_pool(x.astype(jnp.bfloat16), (3, 3)),
}

CONVOLUTIONS = {
    "strides": lambda x, k: J.convolve(x, k, stride=(2, 3)),
    "same": lambda x, k: J.correlate(x, k, padding="SAME", stride=2),
    "gaps": lambda x, k: J.convolve(x, k, padding="SAME_LOWER", dilation=(1, 2)),
    "full, groups": lambda x, k: J.correlate(x, k[:, :, :1], padding="FULL", groups=2),
    "pairs that crop": lambda x, k: J.correlate(x, k, padding=((-1, 1), (2, 0)), connections=TABLE),
    "lax's": J.manual_backward(lambda x, k: lax.conv_general_dilated(x, k, (2, 2), "SAME", dimension_numbers=LAST)),
    "in the place of lax's": lambda x, k: J.conv_general_dilated(x, k, (1, 2), "VALID", dimension_numbers=LAST),
    "transposed": lambda x, k: J.conv_transpose(x, k, (2, 1), "SAME"),
    "block": lambda x, k: J.conv_block(x, k, BIAS, pool=2, pool_strides=2),
    "combination": lambda x, k: J.combine_maps(x, k, k[0, 0], BIAS, padding="SAME"),
}


def _close(found, expected):
    """Sums in another order: float32 over 12 taps and some hundred outputs, and one rounding of bfloat16."""
    narrow = expected.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(found), np.float32(expected), 1e-2 if narrow else 1e-4, 1e-4)


def _all(functions):
    """The outputs of all functions and their gradients: one program, for each is small."""

    def each(copies):
        outputs = {name: function(*copies[name]) for name, function in functions.items()}
        return sum(jnp.sin(y.astype(jnp.float32)).sum() for y in outputs.values()), outputs

    def run(*operands):
        (_, outputs), gradients = jax.value_and_grad(each, has_aux=True)(dict.fromkeys(functions, operands))
        return outputs, gradients

    return run


CASES = [
    pytest.param(POOLS, (), "manual", id="pools"),
    pytest.param(CONVOLUTIONS, (K,), "manual", id="convolutions"),
    pytest.param({name: POOLS[name] for name in ("valid", "adaptive, one axis")}, (), "autodiff", id="pools, autodiff"),
    pytest.param({"same": CONVOLUTIONS["same"]}, (K,), "autodiff", id="convolution, autodiff"),
]


@pytest.mark.parametrize("shape", [(2, 6, 7, 2), pytest.param((3, 5, 4, 2), marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("functions, others, mode", CASES)
def test_one_exported_program_serves_all_sizes(functions, others, mode, shape):
    run = jax.jit(_all(functions))
    types = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in others]
    x = jax.ShapeDtypeStruct((*export.symbolic_shape("b, h, w"), 2), jnp.float32)
    with J.mode(mode):
        exported = export.export(run)(x, *types)
    x = RNG.normal(size=shape).astype(np.float32)
    found, expected = exported.call(x, *others), run(x, *others)
    assert jax.tree.map(_type, found) == jax.tree.map(_type, expected)
    jax.tree.map(_close, found, expected)


def _type(array):
    return array.shape, array.dtype


@pytest.mark.parametrize(
    "function, said",
    [
        (lambda x: J.max_pool(x, (2, 2), ceil_mode=True), "`ceil_mode` (=True)"),
        (lambda x: J.max_pool(x, (2, 2), ties="split"), "`ties` (='split')"),
        (lambda x: J.max_pool_with_argmax(x, (2, 2)), "`max_pool_with_argmax`"),
        (lambda x: J.stochastic_pool(x, (2, 2)), "`stochastic_pool`"),
        (lambda x: J.adaptive_max_pool(x, 1, True), "`return_argmax` (=True)"),
        (lambda x: J.adaptive_avg_pool(x, (2, 1)), "`output_shape` (=(2, 1)) must be 1 or None"),
        (lambda x: J.correlate(x, K, padding=1, padding_mode="reflect"), "`padding_mode` (='reflect')"),
        (lambda x: J.subsample(x, BIAS[:2], BIAS[:2], (2, 2)), "`window_shape` (=(2, 2))"),
    ],
)
def test_what_needs_to_know_the_size_says_so(function, said):
    x = jax.ShapeDtypeStruct((*export.symbolic_shape("b, h, w"), 2), jnp.float32)
    with pytest.raises(ValueError, match="symbol") as refused:
        export.export(jax.jit(function))(x)
    assert said in str(refused.value)


def test_blocks_that_divide_a_symbol_and_windows_that_fit_nowhere():
    def run(x):
        return J.subsample(x, BIAS[:2], BIAS[2:], (2, 1)), J.correlate(x, K)

    exported = export.export(jax.jit(run))(jax.ShapeDtypeStruct((1, *export.symbolic_shape("2*h, w"), 2), jnp.float32))
    x = RNG.normal(size=(1, 2, 3, 2)).astype(np.float32)
    summed, fits_nowhere = exported.call(x)
    np.testing.assert_allclose(summed, J.subsample(x, BIAS[:2], BIAS[2:], (2, 1)), 1e-5)
    assert fits_nowhere.shape == (1, 0, 2, 4)  # as lax has it: an error would have to wait for the call
