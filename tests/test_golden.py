"""Answers worked out by hand; the sums stand beside the numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnnbp
from jaxcnnbp import nn


def line(*values: float) -> jax.Array:
    """One image of one channel and one spatial axis."""
    return jax.device_put(np.array(values, np.float32).reshape(1, -1, 1))


def plane(rows: list[list[float]]) -> jax.Array:
    """One image of one channel and two spatial axes."""
    return jax.device_put(np.array(rows, np.float32)[None, :, :, None])


def taps(*values: float) -> jax.Array:
    """A kernel from one map to one map."""
    return jax.device_put(np.array(values, np.float32).reshape(-1, 1, 1))


def backwards(fun, delta, *arrays):
    """Value and gradients, without the axes of size 1."""
    value, pullback = jax.vjp(fun, *arrays)
    delta = np.reshape(np.asarray(delta, value.dtype), value.shape)
    return jax.tree.map(lambda a: np.squeeze(np.asarray(a)).tolist(), (value, *pullback(delta)))


def test_correlation():
    # y[u] = x[u] k[0] + x[u + 1] k[1]:          1 + 20, 2 + 30
    # dx[n] = d[n] k[0] + d[n - 1] k[1]:         1, 2 + 10, 20
    # dk[t] = d[0] x[t] + d[1] x[t + 1]:         1 + 2 * 2, 2 + 2 * 3
    found = backwards(jaxcnnbp.correlate, [1, 2], line(1, 2, 3), taps(1, 10))
    assert found == ([21, 32], [1, 12, 20], [5, 8])


def test_true_convolution():
    # y[u] = x[u + 1] k[0] + x[u] k[1]:          2 + 10, 3 + 20
    # dx[n] = d[n - 1] k[0] + d[n] k[1]:         10, 1 + 20, 2
    # dk[t] = d[0] x[1 - t] + d[1] x[2 - t]:     2 + 2 * 3, 1 + 2 * 2
    found = backwards(jaxcnnbp.convolve, [1, 2], line(1, 2, 3), taps(1, 10))
    assert found == ([12, 23], [10, 21, 2], [8, 5])


def test_correlation_of_a_plane():
    # y[0, 0] = 1*1 + 2*2 + 4*3 + 5*4; the others one cell to the right or below.
    # dx = k laid at (0, 0), plus 2 k laid at (1, 1).
    # dk[t] = x[t] + 2 x[t + (1, 1)].
    x, kernel = plane([[1, 2, 3], [4, 5, 6], [7, 8, 9]]), np.float32([[1, 2], [3, 4]])[..., None, None]
    y, dx, dk = backwards(jaxcnnbp.correlate, [[1, 0], [0, 2]], x, kernel)
    assert y == [[37, 47], [67, 77]]
    assert dx == [[1, 2, 0], [3, 4 + 2, 4], [0, 6, 8]]
    assert dk == [[1 + 10, 2 + 12], [4 + 16, 5 + 18]]


def test_true_convolution_of_a_plane():
    # The kernel is [[4, 3], [2, 1]] after the flip: y[0, 0] = 1*4 + 2*3 + 4*2 + 5*1.
    # dx = the flipped kernel at (0, 0), plus twice at (1, 1); dk is the correlation's, flipped.
    x, kernel = plane([[1, 2, 3], [4, 5, 6], [7, 8, 9]]), np.float32([[1, 2], [3, 4]])[..., None, None]
    y, dx, dk = backwards(jaxcnnbp.convolve, [[1, 0], [0, 2]], x, kernel)
    assert y == [[23, 33], [53, 63]]
    assert dx == [[4, 3, 0], [2, 1 + 8, 6], [0, 4, 2]]
    assert dk == [[23, 20], [14, 11]]


@pytest.mark.parametrize(
    ("options", "y", "dx", "dk"),
    [
        # 0 1 | 2 3 | 4 5 with the padding in front; k[0] meets 0, 2, 4 and k[1] meets 1, 3, 5.
        (dict(stride=2, padding=[(1, 0)]), [10, 32, 54], [10, 1, 10, 1, 10], [6, 9]),
        # x[u] + 10 x[u + 2]; cell 2 is read by both taps.
        (dict(dilation=2), [31, 42, 53], [1, 1, 11, 10, 10], [6, 12]),
        # Cells 1 to 3 are left: 2 + 30, 3 + 40.
        (dict(padding=-1), [32, 43], [0, 1, 11, 10, 0], [5, 7]),
        # One cell behind the input (the larger half): x[u] + 10 x[u + 1], the last without x[5].
        (dict(padding="SAME"), [21, 32, 43, 54, 5], [1, 11, 11, 11, 11], [15, 14]),
        # The same cell before the input.
        (dict(padding="SAME_LOWER"), [10, 21, 32, 43, 54], [11, 11, 11, 11, 10], [10 + 0, 15]),
        # Every overlap: one cell on both sides.
        (dict(padding="FULL"), [10, 21, 32, 43, 54, 5], [11, 11, 11, 11, 11], [15, 15]),
        # Windows at 0 and 3: 1 + 20, 4 + 50; cell 2 is read by none.
        (dict(stride=3), [21, 54], [1, 10, 0, 1, 10], [5, 7]),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_geometry(options, y, dx, dk):
    def fun(x, kernel):
        return jaxcnnbp.correlate(x, kernel, **options)

    assert backwards(fun, [1] * len(y), line(1, 2, 3, 4, 5), taps(1, 10)) == (y, dx, dk)


def test_full_convolution_is_the_product_of_polynomials():
    # (1 + 2 z)(1 + 10 z) = 1 + 12 z + 20 z^2
    assert np.ravel(jaxcnnbp.convolve(line(1, 2), taps(1, 10), padding="FULL")).tolist() == [1, 12, 20]


def test_connection_table():
    # Map 0 feeds output 0 alone: y0 = 1 * 1 + 10 * 1, y1 = 10 * 1; its gradient to the other is zero.
    x, kernel = np.float32([[[1, 10]]]), np.ones((1, 2, 2), np.float32)
    table = np.array([[True, False], [True, True]])
    found = backwards(lambda x, k: jaxcnnbp.correlate(x, k, connections=table), [1, 2], x, kernel)
    assert found == ([11, 10], [1, 3], [[1, 0], [10, 20]])


def test_groups():
    # Two groups of one map: y0 = 1 * 2, y1 = 10 * 3.
    x, kernel = np.float32([[[1, 10]]]), np.float32([[[2, 3]]])
    found = backwards(lambda x, k: jaxcnnbp.correlate(x, k, groups=2), [1, 1], x, kernel)
    assert found == ([2, 30], [2, 3], [1, 10])


MAPS = [[1, 3, 2, 0], [4, 2, 5, 5], [0, 0, 7, 1], [0, 0, 1, 7]]


@pytest.mark.parametrize(
    ("ties", "dx"),
    [
        # The first 5, the first 0, the first 7 of its block.
        ("first", [[0, 0, 0, 0], [1, 0, 2, 0], [3, 0, 4, 0], [0, 0, 0, 0]]),
        # Every one of them.
        ("all", [[0, 0, 0, 0], [1, 0, 2, 2], [3, 3, 4, 0], [3, 3, 0, 4]]),
        # Halves of 2 and 4, quarters of 3.
        ("split", [[0, 0, 0, 0], [1, 0, 1, 1], [0.75, 0.75, 2, 0], [0.75, 0.75, 0, 2]]),
    ],
)
def test_max_pool(ties, dx):
    found = backwards(lambda x: jaxcnnbp.max_pool(x, (2, 2), (2, 2), ties=ties), [[1, 2], [3, 4]], plane(MAPS))
    assert found == ([[4, 5], [0, 7]], dx)


def test_argmax_and_unpool():
    # Row-major in the 4x4 image: 4 at (1, 0), 5 at (1, 2), 0 at (2, 0), 7 at (2, 2).
    values, argmax = jaxcnnbp.max_pool_with_argmax(plane(MAPS), (2, 2), (2, 2))
    assert np.ravel(argmax).tolist() == [4, 6, 8, 10]
    unpooled = jaxcnnbp.max_unpool(values, argmax, (4, 4))
    assert np.squeeze(np.asarray(unpooled)).tolist() == [[0, 0, 0, 0], [4, 0, 5, 0], [0, 0, 7, 0], [0, 0, 0, 0]]


def test_overlapping_max_pool():
    # Windows (1 3), (3 2), (2 5): cell 1 wins twice and takes 1 + 10.
    found = backwards(lambda x: jaxcnnbp.max_pool(x, (2,)), [1, 10, 100], line(1, 3, 2, 5))
    assert found == ([3, 3, 5], [0, 11, 0, 100])


def test_min_pool():
    found = backwards(lambda x: jaxcnnbp.min_pool(x, (2,), (2,)), [1, 10], line(3, 1, 2, 2))
    assert found == ([1, 2], [0, 1, 10, 0])


def test_mean_pool_with_a_partial_window():
    # ceil(5 / 2) windows, the last of one cell: m = 2, 2, 1.
    found = backwards(lambda x: jaxcnnbp.avg_pool(x, (2,), (2,), ceil_mode=True), [2, 4, 3], line(1, 3, 5, 7, 9))
    assert found == ([2, 6, 9], [1, 1, 2, 2, 3])


@pytest.mark.parametrize(("count_include_pad", "y", "first"), [(True, [0.5, 2, 4], 1.0), (False, [1, 2, 4], 1.5)])
def test_mean_pool_counts(count_include_pad, y, first):
    # Windows (pad 1), (1 3), (3 5): m = 2 or 1 in the first; dx[0] = 1 / m + 1 / 2.
    found = backwards(lambda x: jaxcnnbp.avg_pool(x, (2,), None, [(1, 0)], count_include_pad), [1, 1, 1], line(1, 3, 5))
    assert found == (y, [first, 1, 0.5])


def test_upsample():
    # Blocks of 3, two apart: the middle cell is in both.
    found = backwards(lambda d: jaxcnnbp.upsample(d, (3,), (2,)), [1, 2, 3, 4, 5], line(1, 2))
    assert found == ([1, 1, 3, 2, 2], [6, 12])


def test_subsample():
    # u = 2 (1 + 2) + 1, 2 (3 + 4) + 1; dbeta = 1 * 3 + 10 * 7, db = 1 + 10, dx = 2 delta in each block.
    found = backwards(
        lambda x, beta, b: jaxcnnbp.subsample(x, beta, b, (2,)),
        [1, 10],
        line(1, 2, 3, 4),
        np.float32([2]),
        np.float32([1]),
    )
    assert found == ([7, 15], [2, 2, 20, 20], 73, 11)


def test_combination():
    # alpha = 1/2, 1/2. u = (1 * 1 + 3 * 1) / 2; dK = (1, 3), so dk = alpha dK and dalpha = dK;
    # dc = alpha (dalpha - sum alpha dalpha) = (1 - 2) / 2, (3 - 2) / 2.
    x, kernel = np.float32([[[1, 3]]]), np.ones((1, 2, 1), np.float32)
    logits, bias = np.zeros((2, 1), np.float32), np.zeros(1, np.float32)
    assert backwards(jaxcnnbp.combine_maps, 1, x, kernel, logits, bias) == (2, [0.5, 0.5], [0.5, 1.5], [-0.5, 0.5], 1)


def test_penalties_of_the_combination():
    # Entropy of (1/2, 1/2) is log 2, where it is largest; the L1 norm of alpha is 1 whatever the logits.
    value, slope = jax.jit(jax.value_and_grad(jaxcnnbp.combination_entropy))(np.zeros((2, 1), np.float32))
    assert float(value) == pytest.approx(np.log(2))
    assert np.ravel(slope).tolist() == [0, 0]
    l1 = jax.jit(jax.grad(lambda c: jnp.abs(jax.nn.softmax(c, axis=0)).sum()))(np.float32([[1], [-2], [0.5]]))
    np.testing.assert_allclose(l1, 0, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "at", "value", "slope"),
    [
        ("identity", 3.0, 3.0, 1.0),
        ("logistic", 0.0, 0.5, 0.25),
        ("tanh", 0.0, 0.0, 1.0),
        ("scaled_tanh", 0.0, 0.0, 1.7159 * 2 / 3),
        ("relu", 2.0, 2.0, 1.0),
        ("relu", 0.0, 0.0, 0.0),
        ("relu", -1.0, 0.0, 0.0),
        ("leaky_relu", -2.0, -0.02, 0.01),
        ("leaky_relu", 0.0, 0.0, 0.01),
        ("gelu", 0.0, 0.0, 0.5),
        ("silu", 0.0, 0.0, 0.5),
    ],
)
def test_activation(name, at, value, slope):
    found = jax.value_and_grad(getattr(jaxcnnbp, name))(jnp.float32(at))
    assert list(map(float, found)) == pytest.approx([value, slope])


def test_dense():
    # y = (1 * 1 + 2 * 0, 1 * 0 + 2 * 3) + (0, 1); dx = W d, dW = x^T d.
    x, weights, bias = np.float32([[1, 2]]), np.float32([[1, 0], [0, 3]]), np.float32([0, 1])
    found = backwards(jaxcnnbp.dense, [1, 10], x, weights, bias)
    assert found == ([1, 7], [1, 30], [[1, 10], [2, 20]], [1, 10])


def test_losses():
    # E = ((1 - 0)^2 + (0 - 1)^2) / 2 of one image of two, 0 of the other; delta = (y - t) / 2.
    outputs, labels = jnp.array([[1.0, 0.0], [1.0, 0.0]]), jnp.array([1, 0])
    loss, delta = jax.value_and_grad(nn.squared_error)(outputs, labels)
    assert (float(loss), delta.tolist()) == (0.5, [[0.5, -0.5], [0, 0]])
    # softmax = 1/2, 1/2: E = log 2, delta = softmax - t.
    loss, delta = jax.value_and_grad(nn.softmax_cross_entropy)(jnp.zeros((1, 2)), jnp.array([1]))
    assert (float(loss), delta.tolist()) == (pytest.approx(np.log(2)), [[0.5, -0.5]])


def test_gradients_as_functions():
    # The numbers of `test_correlation`, in lax's layout, and delta summed over the batch and two positions.
    delta = jnp.array([[[1.0, 2.0]]])
    x, kernel = jnp.array([[[1.0, 2.0, 3.0]]]), jnp.array([[[1.0, 10.0]]])
    assert np.ravel(jaxcnnbp.conv_input_grad(delta, kernel, x.shape)).tolist() == [1, 12, 20]
    assert np.ravel(jaxcnnbp.conv_kernel_grad(x, delta, kernel.shape)).tolist() == [5, 8]
    assert jaxcnnbp.conv_bias_grad(delta, feature_axis=1).tolist() == [3]


def test_transposed_convolution():
    # Each cell lays the kernel, two positions apart, not flipped back: 10 1 | 20 2.
    y = jaxcnnbp.conv_transpose(line(1, 2), taps(1, 10), (2,), "VALID")
    assert np.ravel(y).tolist() == [10, 1, 20, 2]
