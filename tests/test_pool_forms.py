"""The forms of a pool agree: axis by axis, by one reduction, by lax; sent by phases, by index and block by block."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from check import assert_same
from jax import lax
from marks import one_in, slow_but

import jaxcnnbp
from jaxcnnbp import manual_backward
from jaxcnnbp.geometry.parse import window_of
from jaxcnnbp.ops.pool import max as extreme_pool
from jaxcnnbp.ops.pool import window_max as extreme_fold
from jaxcnnbp.ops.pool.max_blocks import send_to_blocks
from jaxcnnbp.ops.pool.window_max import extremes, extremes_and_taps, is_written_out, steps

WINDOWS = {
    "at once": ((6, 7), (2, 3), dict(stride=(2, 4), padding=[(1, 0), (2, 2)])),
    "axis by axis": ((6, 5), (3, 2), dict(padding=[(2, 1), (1, 1)])),
    "dilated": ((8, 7), (2, 3), dict(stride=(2, 1), dilation=(3, 2), padding=[(2, 2), (0, 3)])),
    "one tap along an axis": ((4, 5), (2, 1), dict(stride=(3, 2), dilation=(2, 2), padding=[(1, 1), (0, 0)])),
    "volumes": ((3, 4, 5), (2, 3, 2), dict(padding=[(1, 0), (1, 1), (0, 1)])),
    "ceil": ((7, 6), (3, 3), dict(stride=(2, 2), padding=[(1, 1), (1, 1)], ceil_mode=True)),
    "cropped": ((7, 6), (3, 3), dict(padding=[(-1, 1), (2, -2)])),
    "256 taps": ((9, 9), (16, 16), dict(padding=[(8, 7), (8, 7)])),
    "gaps": ((4, 3), (3, 2), dict(stride=(2, 1), input_dilation=(2, 3), padding=[(1, 1), (0, 2)])),
    "wholly on padding": ((3, 3), (2, 2), dict(padding=[(3, 3), (2, 3)])),
}


@pytest.fixture(params=slow_but(["axis by axis", "ceil"], WINDOWS))  # in two steps, and in one with strides
def window(request):
    spatial, size, options = WINDOWS[request.param]
    return window_of(spatial, size, **options)


def images(window, values):
    """Few different values, so that windows have ties, NaNs and infinities."""
    shape = (2, *window.spatial, 3)
    return jax.device_put(np.random.default_rng(0).choice(np.asarray(values, np.float32), shape))


@pytest.mark.parametrize("kind", slow_but(["max"], ["max", "min"]))
def test_folds_agree(window, kind):
    @jax.jit
    def folds(x):
        (best, taps), (wanted, wanted_taps) = (f(x, window, kind) for f in (extremes_and_taps, extreme_fold.by_joining))
        form = extreme_fold._all_axes_at_once if is_written_out(window) else extreme_fold.by_joining
        on_gpu, on_gpu_taps = form(x, window, kind)
        assert taps.dtype == wanted_taps.dtype == on_gpu_taps.dtype
        places = (extreme_pool.flat_argmax(t, window) for t in (taps, wanted_taps, on_gpu_taps))
        return best, on_gpu, wanted, extremes(x, window, kind), extreme_fold._extremes_by_lax(x, window, kind), *places

    for values in ((0, 1, 2), (0, np.nan), (-np.inf, np.inf, np.nan, 1)):
        best, *others, place, wanted_place, on_gpu_place = folds(images(window, values))
        for other in others:
            assert_same(other, best)
        assert_same(place, wanted_place)
        assert_same(on_gpu_place, wanted_place)


def test_integers_fold_as_floats_do(window):
    x = images(window, (0, 1, 2))
    fold = jax.jit(lambda x: extremes_and_taps(x, window, "max"))
    (best, taps), (wanted, wanted_taps) = fold(x.astype(jnp.int8)), fold(x)
    reached = np.isfinite(wanted)
    assert_same(np.asarray(best)[reached], np.asarray(wanted)[reached].astype(np.int8))
    assert_same(taps, wanted_taps)


def test_scatters_agree(window):
    @jax.jit
    def scatters(x, delta):
        taps = extremes_and_taps(x, window, "max")[1]
        _, transposed = jax.vjp(lambda x: extreme_pool.read_winners(x, taps, window), x)
        by_phases = (extreme_pool._send_by_phases(delta, taps, parts) for parts in ([window], steps(window)))
        others = (form(delta, taps, window) for form in (send_to_blocks, extreme_pool._send_by_index))
        return *by_phases, *others, transposed(delta)[0]

    x = images(window, (0, 1, 2))
    shape = (2, *window.output, 3)
    delta = np.random.default_rng(1).integers(-4, 5, shape).astype(np.float32)
    *others, by_index, transposed = scatters(x, delta)
    for sent in (*others, transposed):
        assert_same(sent, by_index)


def test_windows_go_both_ways():
    ways = [len(steps(window_of(spatial, size, **options))) for spatial, size, options in WINDOWS.values()]
    assert set(ways) == {1, 2, 3}
    assert not is_written_out(window_of((100,), (65,)))


def test_every_order_of_nans_is_the_last():
    """Of the NaNs of one window the last is recorded, wherever it stands."""
    local = window_of((2, 2), (2, 2))
    fold = jax.jit(lambda x: extremes_and_taps(x, local, "max")[1])
    for marks in itertools.product((0.0, np.nan), repeat=4):
        x = jnp.asarray(marks, jnp.float32).reshape(1, 2, 2, 1)
        last = max((i for i, mark in enumerate(marks) if np.isnan(mark)), default=0)
        assert int(fold(x).squeeze()) == last


def _gaps(**options):
    def windows(x):
        init, reducer = (np.asarray(0, x.dtype), lax.add) if options else (_least(x), lax.max)
        return jaxcnnbp.reduce_window(x, init, reducer, (2, 1), (2, 1), base_dilation=(1, 2))

    return windows


def _least(x):
    return np.asarray(extreme_fold.identity(x.dtype, "max"), x.dtype)


def _cropped(x):
    return jaxcnnbp.reduce_window(x, _least(x), lax.max, (1, 1), (1, 1), ((-1, 0), (0, -1)))


def _cropped_before(x):
    cropped = lax.pad(x, np.zeros((), x.dtype), ((-1, 0, 0), (0, 0, 0)))
    return jaxcnnbp.reduce_window(cropped, np.zeros((), x.dtype), lax.add, (2, 1), (1, 1), ((1, 0), (0, 0)))


def _spread(x, fill):
    return np.full((x.shape[0] // 2, 2 * x.shape[1] - 1), fill, x.dtype)


def _maxima_with_gaps(x):
    spread = _spread(x, _least(x))
    spread[:, ::2] = np.maximum(x[::2], x[1::2])
    return spread


def _sums_with_gaps(x):
    spread = _spread(x, 0)
    spread[:, ::2] = x[::2] + x[1::2]
    return spread


def _pairs(x):
    return np.concatenate([x[1:2], x[1:-1] + x[2:]])


# Where XLA is wrong on CPUs, with large inputs or under jit: openxla/xla 48714, 48719 and 48715.
BY_NUMPY = {
    "maxima with gaps": (_gaps(), _maxima_with_gaps),
    "sums with gaps": (_gaps(sum=True), _sums_with_gaps),
    "cropped": (_cropped, lambda x: x[1:, :-1]),
    "cropped before": (_cropped_before, _pairs),
}


@pytest.mark.parametrize("dtype", slow_but(["float32"], ["float32", "int32"]))
@pytest.mark.parametrize("name", BY_NUMPY)
def test_windows_right_where_lax_is_not(name, dtype):
    fun, by_numpy = BY_NUMPY[name]
    x = np.arange(96 * 160).reshape(96, 160).astype(dtype)
    expected = by_numpy(x)
    assert_same(fun(jnp.asarray(x)), expected)
    batched = jax.jit(jax.vmap(fun))(jnp.asarray(x)[None])[0]
    assert_same(batched, expected)
    assert_same(jax.jit(manual_backward(fun))(x), expected)
    if dtype == "float32":
        assert_same(jax.jit(lambda x: jax.vjp(fun, x)[0])(x), expected)


PLANE = (1, 24, 90, 2)
ALONE = {
    "max_pool": lambda x: jaxcnnbp.max_pool(x, (3, 2), (2, 1), padding=1),
    "max_pool of a long row": lambda x: jaxcnnbp.max_pool(x, (1, 70), padding=((0, 0), (3, 3))),
    "min_pool": lambda x: jaxcnnbp.min_pool(x, (2, 3), window_dilation=2),
    "max_pool of all ties": lambda x: jaxcnnbp.max_pool(x, (2, 2), ties="all"),
    "avg_pool": lambda x: jaxcnnbp.avg_pool(x, (3, 3), (2, 2), "SAME", False),
    "avg_pool of a long row": lambda x: jaxcnnbp.avg_pool(x, (1, 70), padding=((0, 0), (3, 3))),
    "max_pool_with_argmax": lambda x: jaxcnnbp.max_pool_with_argmax(x, (3, 3), (2, 2))[0],
    "max_unpool": lambda x: jaxcnnbp.max_unpool(x, jnp.zeros(x.shape, jnp.int32), (2, 2)),
    "upsample": lambda x: jaxcnnbp.upsample(x, (3, 2), (2, 2)),
    "lp_pool": lambda x: jaxcnnbp.lp_pool(x, 3, (2, 2)),
    "adaptive_avg_pool": lambda x: jaxcnnbp.adaptive_avg_pool(x, (5, 7)),
    "adaptive_max_pool": lambda x: jaxcnnbp.adaptive_max_pool(x, (5, 7)),
    "reduce_window": lambda x: jaxcnnbp.reduce_window(x, 1.0, lax.mul, (1, 2, 3, 1), (1, 2, 1, 1)),
}


@pytest.mark.parametrize("name", one_in(3, ALONE))
def test_forward_alone_and_under_differentiation(name):
    fun = ALONE[name]
    x = jax.device_put(np.random.default_rng(0).normal(size=PLANE).astype(jnp.float32))

    @jax.jit
    def both(x):
        return fun(x), jax.vjp(fun, x)[0], jax.vmap(fun)(x[None])[0], manual_backward(fun)(x)

    alone, *others = both(x)
    for other in (*others, fun(x)):
        # Compiled together or apart, sums of a few dozen terms round differently.
        np.testing.assert_allclose(other, alone, rtol=1e-5, atol=1e-6)


def test_a_reducer_may_close_over_an_array():
    x, scale = jnp.arange(1.0, 7).reshape(2, 3), jnp.asarray([1.0, 1.0])
    fun = lambda x: jaxcnnbp.reduce_window(x, 0.0, lambda a, b: a + b * scale.sum(), (1, 2))  # noqa: E731
    for call in (fun, jax.jit(fun)):
        assert_same(call(x), jnp.asarray([[6.0, 10.0], [18.0, 22.0]]))
        assert_same(jax.grad(lambda x, call=call: call(x).sum())(x), jnp.asarray([[2.0, 4.0, 2.0]] * 2))
    whole = lambda x: jaxcnnbp.reduce_window(x, 0, lambda a, b: a + b * scale.astype(int).sum(), (1, 2))  # noqa: E731
    assert_same(whole(x.astype(int)), fun(x).astype(int))
