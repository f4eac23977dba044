"""The forms of a pool agree: axis by axis, by one reduction, by lax; scattered by phases and by index."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from check import assert_same

from jaxcnnbp.geometry.parse import window_of
from jaxcnnbp.ops import extreme_fold, extreme_pool
from jaxcnnbp.ops.extreme_fold import extremes, extremes_and_taps, is_written_out, steps

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


@pytest.fixture(params=WINDOWS)
def window(request):
    spatial, size, options = WINDOWS[request.param]
    return window_of(spatial, size, **options)


def images(window, values):
    """Few different values, so that windows have ties, NaNs and infinities."""
    shape = (2, *window.spatial, 3)
    return jnp.asarray(np.random.default_rng(0).choice(np.asarray(values, np.float32), shape))


@pytest.mark.parametrize("kind", ["max", "min"])
def test_folds_agree(window, kind):
    @jax.jit
    def folds(x):
        (best, taps), (wanted, wanted_taps) = (f(x, window, kind) for f in (extremes_and_taps, extreme_fold.by_joining))
        assert taps.dtype == wanted_taps.dtype
        places = (extreme_pool.flat_argmax(t, window) for t in (taps, wanted_taps))
        return best, wanted, extremes(x, window, kind), extreme_fold._extremes_by_lax(x, window, kind), *places

    for values in ((0, 1, 2), (0, np.nan), (-np.inf, np.inf, np.nan, 1)):
        best, *others, place, wanted_place = folds(images(window, values))
        for other in others:
            assert_same(other, best)
        assert_same(place, wanted_place)


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
        sent = (f(delta, taps, window) for f in (extreme_pool._send_by_phases, extreme_pool._send_by_index))
        return *sent, transposed(delta)[0]

    x = images(window, (0, 1, 2))
    shape = (2, *window.output, 3)
    by_phases, by_index, transposed = scatters(x, np.random.default_rng(1).integers(-4, 5, shape).astype(np.float32))
    assert_same(by_phases, by_index)
    assert_same(transposed, by_index)


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
