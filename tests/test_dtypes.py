"""Results keep the dtype of the input, gradients too; sums of narrow floats are held in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import ACTIVATIONS, BLOCKS, CONVOLUTIONS, LAYERS, MAX_POOLS, MEAN_OF_CELLS, MEAN_POOLS, TIE_POOLS, named
from check import assert_same, by_oracle, delta_like, value_and_pullback
from jax import lax
from marks import slow_but

import jaxcnnbp
from jaxcnnbp import mode, nn

SOME = (
    *named(
        CONVOLUTIONS, "stride 2 of 3x3", "depthwise strided", "2 groups", "pointwise strided", "16 channels strided"
    ),
    *named(MAX_POOLS, "overlapping"),
    *named(TIE_POOLS, "overlapping"),
    *named(MEAN_POOLS, "ceil mode overlapping"),
    *named(MEAN_OF_CELLS, "FULL"),
    *ACTIVATIONS,
    *LAYERS,
    *named(BLOCKS, "max", "scaled"),
)


@pytest.mark.parametrize("dtype", slow_but(["bfloat16"], ["float32", "bfloat16", "float16"]))
@pytest.mark.parametrize("case", slow_but({case.op: case for case in SOME}.values(), SOME))
def test_floats(case, dtype):
    arrays = case.arrays(dtype)
    delta = delta_like(case, arrays)
    value, gradients = jax.jit(lambda a, d: value_and_pullback(case, a, d))(arrays, delta)
    assert {leaf.dtype for leaf in (value, *gradients)} == {jnp.dtype(dtype)}
    with jax.enable_x64(True):
        wide = [np.asarray(a, np.float64) for a in arrays]
        wanted = by_oracle(case, wide, np.asarray(delta, np.float64))
    eps = float(jnp.finfo(dtype).eps)
    # Rounded a few times: the result, and in between a product that is an array of its own. A block is three rules in a
    # row, each from the rounded result of the one before.
    bound = (12 if case.op == "conv_block" else 4) * eps
    for found, exact in zip((value, *gradients), (wanted[0], *wanted[1]), strict=True):
        scale = np.abs(exact).max(initial=1)
        np.testing.assert_allclose(np.asarray(found, np.float64), exact, bound, bound * scale)


COMPLEX = named(CONVOLUTIONS, "stride 2", "2 groups", "1d", "depthwise strided")


@pytest.mark.parametrize("case", slow_but(COMPLEX[:2], COMPLEX))
@pytest.mark.parametrize("dtype", slow_but(["complex128"], ["complex64", "complex128"]))
def test_complex_convolutions_are_those_of_lax(case, dtype, x64):
    generator = np.random.default_rng(0)
    parts = [generator.normal(size=(2, *shape)) for shape in case.shapes]
    arrays = [jnp.asarray(a[0] + 1j * a[1], dtype) for a in parts]
    delta = jnp.asarray(1 + 2j, dtype) * delta_like(case, arrays)
    found = jax.jit(lambda a, d: value_and_pullback(case, a, d))(arrays, delta)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(dtype)}
    with mode("autodiff"):
        wanted = jax.jit(lambda a, d: value_and_pullback(case, a, d))(arrays, delta)
    assert_same(found, wanted, 1e-4 if dtype == "complex64" else 1e-11)


@pytest.mark.parametrize("dtype", slow_but(["bfloat16"], ["bfloat16", "float16"]))
class TestWideSums:
    """4096 ones: a narrow sum stops at 256 or 2048, where adding one no longer changes it."""

    def test_mean_pool(self, dtype):
        ones = jnp.ones((1, 32, 32, 1), dtype)
        assert jaxcnnbp.avg_pool(ones, (32, 32)).item() == 1

    def test_mean_pool_gradient(self, dtype):
        # Each cell is in 600 windows or fewer, each of weight 1 / 600.
        gradient = jax.grad(lambda x: jaxcnnbp.avg_pool(x, (600,), padding="SAME").sum())(jnp.ones((1, 1200, 1), dtype))
        assert gradient.max().item() == 1

    def test_convolution(self, dtype):
        assert jaxcnnbp.correlate(jnp.ones((1, 64, 64, 1), dtype), jnp.ones((64, 64, 1, 1), dtype)).item() == 4096

    def test_input_gradient(self, dtype):
        gradient = jax.grad(lambda x: jaxcnnbp.correlate(x, jnp.ones((1, 4, 4096), dtype)).sum())
        assert np.ravel(gradient(jnp.ones((1, 1, 4), dtype))).tolist() == [4096] * 4

    @pytest.mark.parametrize(("groups", "channels"), [(1, 1), (1, 16), (16, 1), (2, 8)])
    def test_kernel_gradient(self, dtype, groups, channels):
        x = jnp.ones((2, 64, 32, groups * channels), dtype)
        kernel = jnp.ones((1, 1, channels, groups * channels), dtype)
        gradient = jax.grad(lambda k: jaxcnnbp.correlate(x, k, groups=groups).sum(dtype=jnp.float32))(kernel)
        assert set(np.ravel(gradient).tolist()) == {4096}

    def test_bias_gradient(self, dtype):
        assert jaxcnnbp.conv_bias_grad(jnp.ones((1, 64, 64, 2), dtype)).tolist() == [4096, 4096]

    def test_dense(self, dtype):
        assert jaxcnnbp.dense(jnp.ones((1, 4096), dtype), jnp.ones((4096, 1), dtype)).item() == 4096

    @pytest.mark.parametrize("ties", ["first", "all", "split"])
    def test_winner_of_several_windows(self, dtype, ties):
        # The middle cell wins thrice, and takes `large` and twice 1, which alone would each be rounded away.
        large = {"bfloat16": 256, "float16": 2048}[dtype]
        x = jnp.asarray([0, 0, 1, 0, 0], dtype).reshape(1, 5, 1)
        delta = jnp.asarray([large, 1, 1], dtype).reshape(1, 3, 1)
        _, pullback = jax.vjp(lambda x: jaxcnnbp.max_pool(x, (3,), ties=ties), x)
        (gradient,) = pullback(delta)
        assert (gradient.dtype, gradient[0, 2, 0].item()) == (jnp.dtype(dtype), large + 2)

    def test_subsample(self, dtype):
        one = jnp.ones(1, dtype)
        assert jaxcnnbp.subsample(jnp.ones((1, 4096, 1), dtype), one, one * 0, (4096,)).item() == 4096

    def test_upsample(self, dtype):
        gradient = jax.grad(lambda d: jaxcnnbp.upsample(d, (4096,)).sum(dtype=jnp.float32))(jnp.ones((1, 1, 1), dtype))
        assert gradient.item() == 4096

    def test_losses(self, dtype):
        outputs = jnp.ones((1, 4096), dtype)
        assert nn.squared_error(outputs, jnp.zeros((1, 4096), dtype)).item() == 2048


def test_preferred_element_type():
    x, kernel = jnp.ones((1, 1, 600), jnp.bfloat16), jnp.ones((1, 1, 300), jnp.bfloat16)

    def fun(x, kernel):
        return jaxcnnbp.conv_general_dilated(x, kernel, (1,), "VALID", preferred_element_type=jnp.float32)

    y, pullback = jax.vjp(fun, x, kernel)
    gradients = pullback(jnp.ones_like(y))
    assert (y.dtype, y.ravel()[0].item()) == (jnp.float32, 300)
    assert [g.dtype for g in gradients] == [jnp.bfloat16] * 2
    assert gradients[0].max().item() == 300


@pytest.mark.parametrize("precision", ["highest", lax.Precision.HIGH, ("default", "highest"), ["highest", "highest"]])
def test_precision(precision):
    x, kernel = jnp.ones((1, 2, 5)), jnp.ones((3, 2, 2))

    def fun(kernel):
        return jaxcnnbp.conv_general_dilated(x, kernel, (1,), "VALID", precision=precision).sum()

    np.testing.assert_array_equal(jax.grad(fun)(kernel), jnp.full((3, 2, 2), 4.0))


@pytest.mark.parametrize("dtype", ["int32", "uint8", "int8"])
def test_integers_have_maxima(dtype):
    x = jnp.asarray([3, 1, 2, 5], dtype).reshape(1, 4, 1)
    assert np.ravel(jaxcnnbp.max_pool(x, (2,), (2,))).tolist() == [3, 5]
    assert np.ravel(jaxcnnbp.min_pool(x, (3,), padding=1)).tolist() == [1, 1, 1, 2]
    values, argmax = jaxcnnbp.max_pool_with_argmax(x, (2,), (2,))
    assert (values.dtype, argmax.dtype, np.ravel(argmax).tolist()) == (jnp.dtype(dtype), jnp.int32, [0, 3])


def test_integer_convolution_is_lax():
    x, kernel = jnp.arange(4, dtype=jnp.int8).reshape(1, 1, 4), jnp.ones((1, 1, 2), jnp.int8)
    y = jaxcnnbp.conv_general_dilated(x, kernel, (1,), "VALID", preferred_element_type=jnp.int32)
    assert (y.dtype, np.ravel(y).tolist()) == (jnp.int32, [1, 3, 5])


def test_x64_input_without_x64_neighbours(x64):
    """The dtype of the input decides, not what the session allows."""
    for case in (*named(CONVOLUTIONS, "2d"), *named(MEAN_POOLS, "overlapping"), *LAYERS):
        assert jax.eval_shape(case, *case.arrays("float32")).dtype == jnp.float32


@pytest.mark.parametrize(
    ("dtype", "wanted"),
    [
        ("bfloat16", "float32"),
        ("int8", "float32"),
        pytest.param("float16", "bfloat16", marks=pytest.mark.slow),
        pytest.param("bfloat16", "float16", marks=pytest.mark.slow),
        pytest.param("float32", "float64", marks=pytest.mark.slow),
        pytest.param("complex64", "complex128", marks=pytest.mark.slow),
    ],
)
def test_the_type_asked_for_is_that_of_lax(dtype, wanted, x64):
    """Also where neither type holds the other; float64 is no output type at all to who compares dtypes with None."""
    x, kernel = jnp.arange(10).reshape(1, 2, 5).astype(dtype), jnp.arange(12).reshape(2, 2, 3).astype(dtype)

    def pulled(convolution):
        y = jax.eval_shape(lambda x, k: convolution(x, k, (2,), "SAME"), x, kernel)
        assert y.dtype == dtype

        @jax.jit
        def found(x, kernel):
            y, pullback = jax.vjp(
                lambda x, k: convolution(x, k, (2,), "SAME", preferred_element_type=wanted), x, kernel
            )
            return y, *pullback(jnp.ones(y.shape, y.dtype))

        return found(x, kernel)

    ours, theirs = pulled(jaxcnnbp.conv_general_dilated), pulled(lax.conv_general_dilated)
    assert [a.dtype for a in ours] == [a.dtype for a in theirs]
    if dtype != "int8":
        assert_same(ours, theirs)
    else:
        np.testing.assert_array_equal(ours[0], theirs[0])


BYTES = np.asarray([60, 120, 180, 240], np.uint8).reshape(1, 2, 2, 1)
OF_INTEGERS = {
    # Flax sums bytes as bytes, 600 as 88, and finds 22.
    "mean": (lambda x: jaxcnnbp.avg_pool(x, (2, 2)), BYTES, "float32", [150]),
    "mean of bools": (lambda x: jaxcnnbp.avg_pool(x, (2, 2)), BYTES > 100, "float32", [0.75]),
    "adaptive mean": (lambda x: jaxcnnbp.adaptive_avg_pool(x, (1, 1)), BYTES, "float32", [150]),
    "norm": (lambda x: jaxcnnbp.lp_pool(x, 1, (2, 2)), BYTES, "float32", [600]),
    "copy": (lambda x: jaxcnnbp.upsample(x, (1, 2)), BYTES, "uint8", [60, 60, 120, 120, 180, 180, 240, 240]),
    "copy of bools": (lambda x: jaxcnnbp.upsample(x, (2, 1), (1, 1)), BYTES > 100, "bool", [0, 1, 1, 1, 1, 1]),
    "maximum": (lambda x: jaxcnnbp.max_pool(x, (2, 1), padding=((1, 0), (0, 0))), BYTES > 100, "bool", [0, 1, 1, 1]),
    "minimum": (lambda x: jaxcnnbp.min_pool(x, (2, 1), padding=((1, 0), (0, 0))), BYTES > 100, "bool", [0, 1, 0, 1]),
    "adaptive maximum": (lambda x: jaxcnnbp.adaptive_max_pool(x, (1, 2)), BYTES > 100, "bool", [1, 1]),
    "places": (lambda x: jaxcnnbp.max_pool_with_argmax(x, (2, 2))[1], BYTES > 100, "int32", [1]),
    "unpooling": (lambda x: jaxcnnbp.max_unpool(x, np.zeros_like(x, np.int32), (1, 1)), BYTES, "uint8", [240]),
}


@pytest.mark.parametrize("name", OF_INTEGERS)
def test_pools_of_integers(name):
    fun, x, dtype, expected = OF_INTEGERS[name]
    y = fun(x)
    assert (y.dtype, np.ravel(y).tolist()) == (dtype, expected)


def test_weak_types():
    """An activation or a pool of a Python number is one still: what it is multiplied by keeps its dtype."""
    half, weak = jnp.ones((1, 3, 1), jnp.bfloat16), jnp.broadcast_to(2.0, (1, 4, 1))
    for name in ("relu", "tanh", "logistic", "silu", "gelu", "leaky_relu", "identity", "scaled_tanh"):
        assert (getattr(jaxcnnbp, name)(0.5) * half).dtype == jnp.bfloat16, name
    for pool in (jaxcnnbp.max_pool, jaxcnnbp.min_pool, jaxcnnbp.avg_pool):
        assert (pool(weak, (2,)) * half).dtype == jnp.bfloat16
        assert not jax.typeof(pool(jnp.ones((1, 4, 1)), (2,))).weak_type
