"""Fractional and stochastic pooling: PyTorch's numbers, the oracle, and what chance does."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from check import assert_rule, assert_same, planted, value_and_pullback

import jaxcnnbp
from jaxcnnbp import mode
from jaxcnnbp.ops.pool import fractional as fractional_pool
from jaxcnnbp.ops.pool import stochastic as stochastic_pool

pytestmark = pytest.mark.usefixtures("quick", "x64")


def drawn(*shape, seed=0):
    """Numbers with ties among them."""
    return np.round(np.random.default_rng(seed).normal(size=shape), 1)


def uniform(*shape):
    return np.random.default_rng(1).random(shape)


def fractional(x, r, **options):
    return jaxcnnbp.fractional_max_pool(x, (3, 2), samples=r, **options)


STRIDED = dict(window_shape=(3, 2), strides=(2, 2), padding=((1, 1), (1, 0)))


def sampled(x, r):
    return jaxcnnbp.stochastic_pool(x, **STRIDED, samples=r)


def dilated(x, r):
    return jaxcnnbp.stochastic_pool(x, (2,), window_dilation=2, strides=3, ceil_mode=True, samples=r)


def mean(x):
    return jaxcnnbp.stochastic_pool(x, **STRIDED)


RULES = {
    "fractional": (lambda x, r: fractional(x, r, output_shape=(3, 4)), (drawn(2, 6, 5, 2), uniform(2, 2, 2))),
    "stochastic": (sampled, (drawn(2, 6, 5, 2), uniform(2, 3, 3, 2))),
    "stochastic dilated": (dilated, (drawn(2, 6, 1), uniform(2, 2, 1))),
    "weighted mean": (mean, (drawn(2, 6, 5, 2),)),
}


@pytest.mark.parametrize("name", RULES)
def test_value_and_gradients(name):
    assert_rule(*RULES[name])


def test_second_order():
    """Of all rules in one program: compiling is what takes time here."""
    rules = [RULES[name] for name in ("fractional", "stochastic", "weighted mean")]

    def slope(x):
        def loss(x):
            return sum(jnp.sum(jnp.sin(fun(x, *samples))) for fun, (_, *samples) in rules)

        return jnp.vdot(jax.grad(loss)(x), x)

    x = jax.device_put(np.random.default_rng(2).normal(size=(2, 6, 5, 2)))  # a tie has no second derivative
    with mode("autodiff"):
        wanted = jax.jit(jax.value_and_grad(slope))(x)
    assert_same(jax.jit(jax.value_and_grad(slope))(x), wanted, 1e-9)


def test_fractional_as_pytorch():
    # F.fractional_max_pool2d(x, 2, output_size=(3, 2), _random_samples=[[[0.2, 0.7]]]) in PyTorch 2.14.
    rows = [[3, 1, 4, 1, 5], [9, 2, 6, 5, 3], [5, 8, 9, 7, 9], [3, 2, 3, 8, 4], [6, 2, 6, 4, 3]]
    x, r = jnp.asarray(rows, jnp.float32)[None, :, :, None], jnp.asarray([[[0.2, 0.7]]], jnp.float32)

    def pool(x):
        return jaxcnnbp.fractional_max_pool(x, (2, 2), (3, 2), samples=r, return_argmax=True)

    y, argmax = pool(x)
    assert (np.ravel(y).tolist(), np.ravel(argmax).tolist()) == ([9, 5, 9, 9, 6, 8], [5, 4, 5, 14, 20, 18])
    delta = jnp.arange(1.0, 7, dtype=jnp.float32).reshape(y.shape)
    (dx,) = value_and_pullback(lambda x: pool(x)[0], [x], delta)[1]
    assert {n: d for n, d in enumerate(np.ravel(dx).tolist()) if d} == {4: 2, 5: 1 + 3, 14: 4, 18: 6, 20: 5}


def test_fractional_volumes_as_pytorch():
    # F.fractional_max_pool3d(x, (2, 1, 2), output_ratio=(.5, .6, .5), _random_samples=[[[0.9, 0.1, 0.6]]]).
    x = jax.device_put((np.arange(80) * 7 % 23).astype(jnp.float32)).reshape(1, 4, 5, 4, 1)
    r = jnp.asarray([[[0.9, 0.1, 0.6]]], jnp.float32)
    y, argmax = jaxcnnbp.fractional_max_pool(x, (2, 1, 2), output_ratio=(0.5, 0.6, 0.5), samples=r, return_argmax=True)
    assert np.ravel(y).tolist() == [9, 21, 19, 10, 22, 20, 13, 20, 21, 14, 10, 22]
    assert np.ravel(argmax).tolist() == [21, 3, 29, 31, 36, 39, 61, 62, 49, 71, 77, 59]


def test_fractional_of_nan_and_integers():
    x, r = jnp.asarray([1.0, jnp.nan, 3.0, jnp.nan, 2.0]).reshape(1, 5, 1), jnp.zeros((1, 1, 1))
    both = jaxcnnbp.fractional_max_pool(x, (3,), (2,), samples=r, return_argmax=True)
    assert np.ravel(both[1]).tolist() == [1, 3]
    assert np.isnan(both[0]).all()
    ints = jaxcnnbp.fractional_max_pool(jnp.arange(5).reshape(1, 5, 1), (2,), (2,), key=jax.random.key(0))
    assert ints.ravel()[-1] == 4


@pytest.mark.parametrize("x", [drawn(4, 3), drawn(2, 3, 4, 3)], ids=["no batch", "two batches"])
def test_batches_and_a_key(x):
    key = jax.random.key(3)

    def drawn_from(x, key):
        return jaxcnnbp.fractional_max_pool(x, (2,), (2,), key=key), jaxcnnbp.stochastic_pool(x, (2,), key=key)

    with mode("oracle"):
        wanted = drawn_from(x, key)
    assert_same(jax.jit(drawn_from)(x, key), wanted)


def test_of_no_image():
    x, key = jnp.zeros((0, 4, 2)), jax.random.key(0)
    for pool in (lambda x: jaxcnnbp.fractional_max_pool(x, (2,), 2, key=key), mean_of_none, taken_of_none):
        assert jax.jit(jax.grad(lambda x, pool=pool: pool(x).sum()))(x).shape == x.shape


def mean_of_none(x):
    return jaxcnnbp.stochastic_pool(x, (2,))


def taken_of_none(x):
    return jaxcnnbp.stochastic_pool(x, (2,), key=jax.random.key(0))


def test_channels_first():
    x, r = drawn(2, 6, 5, 2), uniform(2, 3, 3, 2)
    first = [jnp.moveaxis(a, -1, 1) for a in (x, r)]
    found = jaxcnnbp.stochastic_pool(first[0], **STRIDED, samples=first[1], layout="NCHW")
    assert_same(found, jnp.moveaxis(sampled(x, r), -1, 1))
    # Samples of the fractional pool have channels, but no positions: they are the same in every layout.
    r = uniform(2, 2, 2)
    assert_same(
        fractional(first[0], r, output_shape=3, layout="NCHW"), jnp.moveaxis(fractional(x, r, output_shape=3), -1, 1)
    )


def test_chances_are_shares():
    """Of 1, 3 and 6, each is taken as often as it is of 10; 3 standard deviations of 4000 draws are 0.024."""
    x = jnp.tile(jnp.asarray([1.0, -5.0, 3.0, 6.0]), 4000).reshape(1, 16000, 1)
    y = jaxcnnbp.stochastic_pool(x, (4,), (4,), key=jax.random.key(0))
    assert [float((y == a).mean()) for a in (1, 3, 6)] == pytest.approx([0.1, 0.3, 0.6], abs=0.024)
    assert jaxcnnbp.stochastic_pool(x[:, :4], (4,)).item() == pytest.approx(4.6)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("window", "wanted"),
    [
        ([0, -1, 0], 0),  # no cell has a chance
        ([1, np.inf, 2], np.inf),
        ([1, np.nan, 2], np.nan),
        ([0, 1e-30, -np.inf], 1e-30),  # its square is none
        ([1e30, 0, 0], 1e30),
    ],
)
def test_extremes(window, wanted, training):
    x = jnp.asarray(window, jnp.float32).reshape(1, 3, 1)
    samples = jnp.full((1, 1, 1), 1 - 2**-24, jnp.float32) if training else None
    y, pullback = jax.vjp(lambda x: jaxcnnbp.stochastic_pool(x, (3,), samples=samples), x)
    np.testing.assert_allclose(y.ravel(), [wanted], rtol=1e-6)
    (dx,) = pullback(jnp.ones_like(y))
    if wanted == 0:
        assert not dx.any()
    elif training:
        assert np.ravel(dx).tolist() == [
            float(np.array_equal(v, y.item(), equal_nan=True)) for v in np.ravel(x).tolist()
        ]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (fractional, ValueError, "`output_shape` (=None) or `output_ratio` (=None)"),
        (lambda x, r: fractional(x, r, output_shape=2, output_ratio=0.5), ValueError, "`output_ratio` (=0.5)"),
        (lambda x, r: fractional(x, r, output_ratio=1.5), ValueError, "`output_ratio` (=1.5)"),
        (lambda x, r: fractional(x, r, output_shape=(5, 2)), ValueError, "needs 7 positions on spatial axis 0"),
        (lambda x, r: fractional(x, r[0], output_shape=2), ValueError, "`samples` (shape=(2, 2)) must be of shape"),
        (lambda x, r: fractional(x, r > 0, output_shape=2), TypeError, "`samples` (dtype=bool)"),
        (lambda x, r: fractional(x, None, output_shape=2), ValueError, "`samples` or `key` (=None) must be given"),
        (lambda x, r: fractional(x, r + np.nan, output_shape=2), ValueError, "`samples` (one is nan)"),
        (lambda x, r: fractional(x, r + 2.0, output_shape=2), ValueError, "`samples` (one is 2."),
        (lambda x, r: jaxcnnbp.stochastic_pool(x, (2, 2), key=3), TypeError, "`key` (=3) must be one key"),
        (lambda x, r: jaxcnnbp.stochastic_pool(x, (2, 2), samples=r), ValueError, "`samples` (shape=(2, 2, 2))"),
        (lambda x, r: jaxcnnbp.stochastic_pool(x.astype(int), (2, 2)), TypeError, "`inputs` (dtype=int64)"),
        (lambda x, r: jaxcnnbp.stochastic_pool(x.astype(complex), (2, 2)), TypeError, "`inputs` (dtype=complex128)"),
    ],
)
def test_sentences(call, error, words):
    with pytest.raises(error, match=re.escape(words)) as caught:
        call(drawn(2, 6, 5, 2), uniform(2, 2, 2))
    assert str(caught.value).endswith(".") or ":" in str(caught.value)


def _cell_beside(patch):
    right = fractional_pool.add_to_cells
    patch.setattr(
        fractional_pool, "add_to_cells", lambda d, cells, spatial: right(d, jnp.maximum(cells - 1, 0), spatial)
    )


def _largest_taken(patch):
    patch.setattr(stochastic_pool, "send_to_winners", lambda d, t, window: stochastic_pool.spread_windows(d, window))


def _mean_not_taken_off(patch):
    right = stochastic_pool.spread_windows
    patch.setattr(stochastic_pool, "spread_windows", lambda d, window: right(jnp.abs(d), window))


@pytest.mark.parametrize(
    ("plant", "name"),
    [(_cell_beside, "fractional"), (_largest_taken, "stochastic dilated"), (_mean_not_taken_off, "weighted mean")],
)
def test_planted_mistake_is_caught(monkeypatch, plant, name):
    with monkeypatch.context() as patch, planted(plant.__name__):
        plant(patch)
        with pytest.raises(AssertionError, match="Not equal to tolerance"):
            assert_rule(*RULES[name])
