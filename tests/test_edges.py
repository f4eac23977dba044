"""What happens at the edge of the definition: NaN, infinities, padding alone, many taps, nothing at all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from marks import slow_but

import jaxcnnbp
from jaxcnnbp import mode, nn
from jaxcnnbp.ops.pool.window_max import tap_dtype

NAN, INF = np.nan, np.inf


def line(*values: float) -> jax.Array:
    return jax.device_put(np.array(values, np.float32).reshape(1, -1, 1))


def pulled_back(fun, x, delta=None):
    """Value and gradient as one program; the value is its own delta where there is none."""

    @jax.jit
    def both(x):
        value, pullback = jax.vjp(fun, x)
        sent = value if delta is None else np.reshape(np.asarray(delta, value.dtype), value.shape)
        return value, pullback(sent)[0]

    return both(x)


def backwards(fun, delta, x):
    return tuple(np.ravel(np.asarray(array)).tolist() for array in pulled_back(fun, x, delta))


def ones_but(value: float, shape: tuple[int, ...], place: tuple) -> jax.Array:
    array = np.ones(shape, np.float32)
    array[place] = value
    return jax.device_put(array)


def pool(**options):
    return lambda x: jaxcnnbp.max_pool(x, **options)


@pytest.mark.parametrize(
    ("values", "options", "argmax"),
    [
        # A NaN is the maximum; of several the last is recorded, as PyTorch does.
        ([1, NAN, 3, 2], dict(window_shape=(2,), strides=2), [1, 2]),
        ([NAN, 1, NAN, 2], dict(window_shape=(4,)), [2]),
        ([INF, NAN], dict(window_shape=(2,)), [1]),
        # Infinities are numbers; nothing but -inf has the first of them as its winner, not the padding before it.
        ([-INF, -INF, 1, INF], dict(window_shape=(2,), strides=2), [0, 3]),
        ([-INF, -INF], dict(window_shape=(3,), padding=1), [0, 0]),
        ([INF, INF], dict(window_shape=(2,)), [0]),
        # -0 and 0 are equal: the first.
        ([-0.0, 0.0], dict(window_shape=(2,)), [0]),
        ([0.0, -0.0], dict(window_shape=(2,)), [0]),
        # Padding never wins, not over the smallest number there is.
        ([-3e38, -3e38], dict(window_shape=(2,), padding=1), [0, 0, 1]),
    ],
)
def test_winner(values, options, argmax):
    ones = np.ones(len(argmax))

    @jax.jit
    def found(x):
        # The minimum of the mirrored numbers is in the same place.
        of_minimum = pulled_back(lambda x: jaxcnnbp.min_pool(x, **options), -x, ones)[1]
        return jaxcnnbp.max_pool_with_argmax(x, **options)[1], pulled_back(pool(**options), x, ones)[1], of_minimum

    places, *gradients = found(line(*values))
    assert np.ravel(places).tolist() == argmax
    for dx in gradients:
        np.testing.assert_array_equal(np.ravel(dx), np.bincount(argmax, minlength=len(values)))


@pytest.mark.parametrize(("ties", "dx"), [("first", [0, 0, 1]), ("all", [1, 0, 1]), ("split", [0.5, 0, 0.5])])
def test_ties_of_nan(ties, dx):
    assert backwards(pool(window_shape=(3,), ties=ties), [1], line(NAN, 1, NAN))[1] == dx


@pytest.mark.parametrize("ties", ["first", "all", "split"])
def test_maximum_over_padding_alone(ties):
    y, dx = backwards(pool(window_shape=(2,), padding=[(3, 2)], ties=ties), [1, 2, 4, 8, 16, 32], line(3, 1))
    assert y == [-INF, -INF, 3, 3, 1, -INF]
    assert dx == [4 + 8, 16]


def test_index_of_padding_alone():
    values, argmax = jaxcnnbp.max_pool_with_argmax(line(3, 1), (2,), padding=[(3, 2)])
    assert np.ravel(argmax).tolist() == [-1, -1, 0, 0, 1, -1]
    assert np.ravel(jaxcnnbp.max_unpool(values, argmax, (2,))).tolist() == [3, 1]


@pytest.mark.parametrize("count_include_pad", [True, False])
def test_mean_over_padding_alone(count_include_pad):
    y, dx = backwards(lambda x: jaxcnnbp.avg_pool(x, (2,), None, [(3, 2)], count_include_pad), [1] * 6, line(4, 2))
    assert y == ([0, 0, 2, 3, 1, 0] if count_include_pad else [0, 0, 4, 3, 2, 0])
    assert dx == ([1, 1] if count_include_pad else [1.5, 1.5])


def test_mean_of_an_infinity():
    """Cells that a window does not read do not reach it, whatever they hold."""
    y, _ = backwards(lambda x: jaxcnnbp.avg_pool(x, (2,), (2,)), [1, 1], line(INF, 1, 2, 4))
    assert y == [INF, 3]


@pytest.mark.parametrize(
    ("spatial", "window", "dtype"),
    [
        ((256,), (256,), "uint8"),
        ((258,), (257,), "uint16"),
        ((257, 258), (257, 256), "uint32"),
        # One tap after the other takes seconds to compile.
        pytest.param((40, 9), (37, 7), "uint16", marks=pytest.mark.slow),
    ],
)
def test_many_taps(spatial, window, dtype):
    """The recorded tap widens with the window; the very last tap is found."""
    assert tap_dtype(int(np.prod(window))) == jnp.dtype(dtype)
    x = np.zeros((1, *spatial, 1), np.float32)
    x[(0, *(k - 1 for k in window), 0)] = 1

    @jax.jit
    def found(x):
        y, pullback = jax.vjp(lambda x: jaxcnnbp.max_pool(x, window), x)
        first = jnp.zeros_like(y).at[(0,) * y.ndim].set(5)
        return y, pullback(first)[0], jaxcnnbp.max_pool_with_argmax(x, window)[1]

    y, dx, argmax = found(x)
    assert y.ravel()[0] == 1
    np.testing.assert_array_equal(dx, 5 * x)
    assert argmax.ravel()[0] == x.argmax()


@pytest.mark.parametrize("ties", slow_but(["split"], ["all", "split"]))
def test_ties_of_more_taps_than_a_word_has_bits(ties):
    _, dx = backwards(pool(window_shape=(70,), ties=ties), [70], line(*[1] * 70))
    assert dx == ([70] * 70 if ties == "all" else [1] * 70)


@pytest.mark.parametrize(
    ("options", "extents"),
    [
        # ceil(7 / 3); no window that begins behind the input; a window larger than the input by less than a stride.
        (dict(window_shape=(3,), strides=3), 3),
        (dict(window_shape=(1,), strides=4), 2),
        (dict(window_shape=(2,), strides=6), 2),
        (dict(window_shape=(8,), strides=2), 1),
        (dict(window_shape=(2,), strides=7, padding=1), 2),
        # A whole window in the padding counts, in ceil mode too.
        (dict(window_shape=(1,), strides=2, padding=2), 6),
    ],
)
def test_ceil_mode_extents(options, extents):
    x = line(*range(7))
    assert jaxcnnbp.max_pool(x, ceil_mode=True, **options).size == extents


def test_ceil_mode_counts_asked_padding_only():
    # Windows (pad 1 2), (3 4 pad): 3 cells each; then (4 pad) of a third that hangs over, 2 with the padding.
    x = line(1, 2, 3, 4)
    mean = jaxcnnbp.avg_pool(x, (3,), (2,), 1, ceil_mode=True)
    np.testing.assert_allclose(mean.ravel(), [1, 3, 2])
    np.testing.assert_allclose(jaxcnnbp.avg_pool(x, (3,), (2,), 1, False, ceil_mode=True).ravel(), [1.5, 3, 4])


NOTHING = {
    "convolution": (lambda x: jaxcnnbp.correlate(x, jnp.ones((3, 3, 2, 4))), (0, 5, 4, 2), (0, 3, 2, 4)),
    "grouped": (lambda x: jaxcnnbp.convolve(x, jnp.ones((3, 3, 1, 2)), groups=2), (0, 5, 4, 2), (0, 3, 2, 2)),
    "batch groups": (
        lambda x: jaxcnnbp.conv_general_dilated(x, jnp.ones((4, 2, 2)), (1,), "VALID", batch_group_count=2),
        (0, 2, 5),
        (0, 4, 4),
    ),
    "maximum": (lambda x: jaxcnnbp.max_pool(x, (2, 2), (2, 2)), (0, 4, 4, 2), (0, 2, 2, 2)),
    "maximum by index": (lambda x: jaxcnnbp.max_pool(x, (6, 5), (5, 4)), (0, 11, 9, 2), (0, 2, 2, 2)),
    "maximum by blocks": (lambda x: jaxcnnbp.max_pool(x, (5, 4), (5, 4)), (0, 10, 8, 2), (0, 2, 2, 2)),
    "maximum of many taps": (lambda x: jaxcnnbp.max_pool(x, (9, 9)), (0, 10, 9, 2), (0, 2, 1, 2)),
    "shared maximum": (lambda x: jaxcnnbp.max_pool(x, (2, 2), ties="split"), (0, 4, 4, 2), (0, 3, 3, 2)),
    "mean": (lambda x: jaxcnnbp.avg_pool(x, (2, 2), (2, 2)), (0, 4, 4, 2), (0, 2, 2, 2)),
    "block copy": (lambda x: jaxcnnbp.upsample(x, (2, 2)), (0, 4, 4, 2), (0, 8, 8, 2)),
    "unpooling": (lambda x: jaxcnnbp.max_unpool(x, jnp.zeros(x.shape, jnp.int32), (4,)), (0, 2, 3), (0, 4, 3)),
    "no rows copied": (lambda x: jaxcnnbp.upsample(x, (3, 2), (2, 2)), (2, 0, 4, 2), (2, 0, 8, 2)),
    "unpooled to no rows": (
        lambda x: jaxcnnbp.max_unpool(x, jnp.zeros(x.shape, jnp.int32), (0,)),
        (2, 2, 3),
        (2, 0, 3),
    ),
    "adaptive maximum of no rows": (lambda x: jaxcnnbp.adaptive_max_pool(x, (0, 2)), (2, 0, 4, 2), (2, 0, 2, 2)),
    "adaptive maximum to no rows": (lambda x: jaxcnnbp.adaptive_max_pool(x, (0, 2)), (2, 3, 4, 2), (2, 0, 2, 2)),
    "adaptive mean to no rows": (lambda x: jaxcnnbp.adaptive_avg_pool(x, (0, 2)), (2, 3, 4, 2), (2, 0, 2, 2)),
    "product": (lambda x: jaxcnnbp.reduce_window(x, 1.0, lax.mul, (1, 2)), (0, 4), (0, 3)),
    "product of no columns": (lambda x: jaxcnnbp.reduce_window(x, 1.0, lax.mul, (1, 2)), (0, 0), (0, 0)),
    "maximum of no channel from 1": (lambda x: jaxcnnbp.reduce_window(x, 1.0, lax.max, (2, 1)), (4, 0), (3, 0)),
    "norm": (lambda x: jaxcnnbp.lp_pool(x, 1.5, (2,)), (0, 4, 2), (0, 2, 2)),
    "dense": (lambda x: jaxcnnbp.dense(x, jnp.ones((3, 2)), jnp.ones(2)), (0, 3), (0, 2)),
    "sub-sampling": (lambda x: jaxcnnbp.subsample(x, jnp.ones(2), jnp.ones(2), (2,)), (0, 4, 2), (0, 2, 2)),
    "relu": (jaxcnnbp.relu, (0, 3), (0, 3)),
    "no channel": (lambda x: jaxcnnbp.max_pool(x, (2,)), (1, 4, 0), (1, 3, 0)),
    "no input channel": (lambda x: jaxcnnbp.correlate(x, jnp.ones((2, 0, 3))), (1, 4, 0), (1, 3, 3)),
    "no output channel": (lambda x: jaxcnnbp.correlate(x, jnp.ones((2, 3, 0))), (1, 4, 3), (1, 3, 0)),
}


@pytest.mark.parametrize("name", NOTHING)
def test_empty(name):
    fun, shape, output = NOTHING[name]
    y, dx = pulled_back(fun, np.zeros(shape, np.float32))
    assert y.shape == output
    assert not np.asarray(y).any()
    assert dx.shape == shape


@pytest.mark.parametrize("loss", [nn.squared_error, nn.softmax_cross_entropy])
def test_loss_of_nothing(loss):
    value, delta = jax.value_and_grad(loss)(jnp.zeros((0, 3)), jnp.zeros(0, jnp.int32))
    assert (float(value), delta.shape) == (0, (0, 3))


# Channels last; extents, kernel and options of lax convolutions that read padding alone, or nothing.
NOTHING_READ = (
    ((2, 0, 4, 2), (1, 1, 2, 4), dict(padding=((1, 0), (0, 1)), lhs_dilation=(2, 1))),
    ((2, 0, 0, 2), (1, 1, 2, 4), dict(padding=((4, 5), (3, 2)), lhs_dilation=(1, 2), rhs_dilation=(2, 1))),
    ((2, 0, 4, 2), (1, 1, 2, 4), dict(padding=((-2, 3), (3, -1)), lhs_dilation=(3, 2))),
    ((2, 0, 4, 2), (3, 2, 1, 4), dict(padding="SAME", window_strides=(2, 1), feature_group_count=2)),
    ((0, 3, 4, 2), (3, 2, 2, 4), dict(padding=((1, 0), (0, 1)), lhs_dilation=(2, 1), rhs_dilation=(2, 1))),
    ((0, 3, 4, 2), (1, 1, 2, 4), dict(padding=((-1, 4), (5, -1)), batch_group_count=2)),
    ((2, 3, 4, 0), (3, 2, 0, 4), dict(padding="SAME", window_strides=(2, 1))),
    ((2, 3, 4, 2), (3, 2, 2, 0), dict(padding="SAME")),
    ((2, 1, 2, 2), (3, 3, 2, 4), dict(padding="VALID")),
    ((2, 3, 4, 2), (1, 1, 2, 4), dict(padding=((-9, 7), (0, 0)))),
)


@pytest.mark.parametrize(("x_shape", "kernel_shape", "options"), NOTHING_READ)
def test_convolution_of_nothing_is_that_of_lax(x_shape, kernel_shape, options):
    options = dict(window_strides=(1, 1), dimension_numbers=("NHWC", "HWIO", "NHWC")) | options
    x, kernel = np.ones(x_shape, np.float32), np.ones(kernel_shape, np.float32)
    wanted = jax.eval_shape(lambda x, k: lax.conv_general_dilated(x, k, **options), x, kernel)
    delta = np.ones(wanted.shape, np.float32)

    @jax.jit
    def found(x, kernel, delta):
        y, pullback = jax.vjp(lambda x, k: jaxcnnbp.conv_general_dilated(x, k, **options), x, kernel)
        dx = jaxcnnbp.conv_input_grad(delta, kernel, x_shape, **options)
        return y, *pullback(delta), dx, jaxcnnbp.conv_kernel_grad(x, delta, kernel_shape, **options)

    arrays = found(x, kernel, delta)
    assert [a.shape for a in arrays] == [wanted.shape, *[x_shape, kernel_shape] * 2]
    assert not any(np.asarray(a).any() for a in arrays)


def test_kernel_gradient_of_nothing_is_zero():
    gradient = jax.grad(lambda k: jaxcnnbp.correlate(jnp.zeros((0, 5, 1)), k).sum())(jnp.ones((2, 1, 3)))
    np.testing.assert_array_equal(gradient, jnp.zeros((2, 1, 3)))


@pytest.mark.parametrize("name", ["logistic", "tanh", "scaled_tanh", "relu", "leaky_relu", "gelu", "silu"])
def test_activation_far_out(name):
    """Far from zero neither value nor derivative is NaN."""
    x = jnp.asarray([-1e30, -1e4, -100, 100, 1e4, 1e30], jnp.float32)
    slopes = jax.vmap(jax.grad(getattr(jaxcnnbp, name)))(x)
    assert np.isfinite(getattr(jaxcnnbp, name)(x)).all()
    assert np.isfinite(slopes).all()


@pytest.mark.parametrize("name", ["relu", "leaky_relu"])
def test_activation_of_nan(name):
    assert np.isnan(getattr(jaxcnnbp, name)(jnp.float32(NAN)))


def test_entropy_of_a_certain_choice():
    value, slope = jax.value_and_grad(jaxcnnbp.combination_entropy)(jnp.asarray([[0.0], [-1e4]]))
    assert (float(value), np.ravel(slope).tolist()) == (0, [0, 0])


def test_unpooling_where_windows_share_a_winner():
    """Overlapping windows with one winner hold the same value: it is laid down once."""
    values, argmax = jaxcnnbp.max_pool_with_argmax(line(1, 3, 2), (2,))
    assert np.ravel(jaxcnnbp.max_unpool(values, argmax, (3,))).tolist() == [0, 3, 0]
    through = lambda x: jaxcnnbp.max_unpool(*jaxcnnbp.max_pool_with_argmax(x, (2,)), (3,))  # noqa: E731
    assert backwards(through, [1, 1, 1], line(1, 3, 2))[1] == [0, 1, 0]


@pytest.mark.parametrize("name", ["manual", "autodiff", "oracle"])
def test_the_last_of_values_for_one_cell_stays(name):
    places = jnp.asarray([1, 1, 0, 9], jnp.uint8).reshape(1, 4, 1)
    with mode(name):
        found = backwards(lambda v: jaxcnnbp.max_unpool(v, places, (3,)), [10, 20, 30], line(1, 3, 2, 5))
    assert found == ([2, 3, 0], [0, 20, 10, 0])


@pytest.mark.parametrize("name", slow_but(["manual"], ["manual", "autodiff"]))
@pytest.mark.parametrize(
    ("norm", "values", "slopes", "curvatures"),
    [
        # y = (sqrt(a) + sqrt(b))^2: dy/da = y^(1/2) a^(-1/2), d2y/da2 = -sqrt(b / a^3) / 2, d2y/dadb = 1 / (2 sqrt(ab))
        (0.5, [0, 0, 1, 4], [0, 0, 3, 1.5], [0, 0, -1 + 0.25, 0.25 - 1 / 16]),
        (1, [0, 0, 0, 3], [0, 0, 1, 1], [0, 0, 0, 0]),
        # y = |v|: dy/dv = v / y, its derivative along the ones is (1 - v (v . 1) / y^2) / y
        (2, [0, 0, 3, 4], [0, 0, 0.6, 0.8], [0, 0, 0.032, -0.024]),
        (3, [0, 0, 0, 2], [0, 0, 0, 1], [0, 0, 0, 0]),
    ],
)
def test_norm_of_zeros(name, norm, values, slopes, curvatures):
    """Of a window of zeros every derivative is zero, of one with a zero in it what calculus says."""
    with mode(name):
        slope = jax.grad(lambda x: jaxcnnbp.lp_pool(x, norm, (2,)).sum())
        curve = jax.grad(lambda x: slope(x).sum())
        third = jax.grad(lambda x: curve(x).sum())
        found = jax.jit(lambda x: (slope(x), curve(x), third(x)[:, :2]))(line(*values))
    # A few roundings of float32.
    np.testing.assert_allclose(found[0].ravel(), slopes, rtol=1e-5)
    np.testing.assert_allclose(found[1].ravel(), curvatures, rtol=1e-5, atol=1e-6)
    assert not np.any(found[2])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("u", [9.0, -9.0])
def test_a_saturated_slope_is_not_negative(u, dtype):
    assert jax.grad(jaxcnnbp.scaled_tanh)(jnp.asarray(u, dtype)).item() >= 0


# Of few input channels, so that neighbouring outputs are computed together.
@pytest.mark.parametrize("value", [NAN, INF])
def test_a_value_reaches_what_its_windows_touch(value):
    """One in a row of 40 with 5 taps reaches five outputs, and one in their delta five inputs."""
    x, kernel = ones_but(value, (1, 40, 8), (0, 20, 3)), jnp.ones((5, 8, 4))
    y, pullback = jax.vjp(lambda x: jaxcnnbp.correlate(x, kernel, padding="SAME"), x)
    np.testing.assert_array_equal(np.flatnonzero(~np.isfinite(y).all(-1)), np.arange(18, 23))
    (dx,) = pullback(ones_but(value, y.shape, (0, 20, 2)))
    np.testing.assert_array_equal(np.flatnonzero(~np.isfinite(dx).all(-1)), np.arange(18, 23))


def test_a_value_under_vmap():
    """The choice between the form for finite numbers and the other is one for all images, and both are not computed."""
    x, kernel = ones_but(NAN, (3, 1, 40, 8), (1, 0, 20, 3)), jnp.ones((5, 8, 4))
    mapped = jax.vmap(lambda x: jaxcnnbp.correlate(x, kernel))
    assert "select_n" not in str(jax.make_jaxpr(mapped)(x))
    np.testing.assert_array_equal(np.argwhere(np.isnan(mapped(x)).all(-1))[:, 2], np.arange(16, 21))


TABLE = np.array([[True, False], [True, True], [False, True]])


def connected(x, kernel):
    return jaxcnnbp.correlate(x, kernel, connections=TABLE)


def connected_block(x, kernel):
    return jaxcnnbp.conv_block(x, kernel, connections=TABLE, activation=None)


@pytest.mark.parametrize("fun", [pytest.param(connected, marks=pytest.mark.slow), connected_block, jax.jit(connected)])
def test_a_nan_passes_connections_alone(fun):
    x, kernel = ones_but(NAN, (1, 6, 3), (..., 0)), jnp.ones((2, 3, 2))
    y, pullback = jax.vjp(fun, x, kernel)
    np.testing.assert_array_equal(np.isnan(y).all((0, 1)), TABLE[0])
    np.testing.assert_array_equal(np.isfinite(y).all((0, 1)), ~TABLE[0])
    dx, dk = pullback(ones_but(NAN, y.shape, (..., 1)))
    np.testing.assert_array_equal(np.isnan(dx).all((0, 1)), TABLE[:, 1])
    np.testing.assert_array_equal(dk[:, ~TABLE], 0)


def test_a_nan_passes_connections_of_a_layer_alone():
    layer = nn.Conv(2, 2, connections=TABLE)
    params = {"kernel": jnp.ones((2, 3, 2)), "bias": jnp.zeros(2)}
    _, kept = layer.forward(params, jnp.ones((1, 6, 3)))
    gradients = layer.backward(params, kept, ones_but(NAN, (1, 5, 2), (..., 1)))
    np.testing.assert_array_equal(np.isnan(gradients[1]).all((0, 1)), TABLE[:, 1])
