"""Adaptive and Lp pools: what they refuse, and where a gradient is 0 or a window an int."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnnbp import adaptive_avg_pool, adaptive_max_pool, lp_pool

X = np.random.default_rng(4).normal(size=(2, 5, 6, 2)).astype(np.float32)


def test_lp_pool_has_no_gradient_where_the_norm_is_zero():
    x = jnp.zeros((1, 4, 1)).at[0, 2].set(3.0)
    np.testing.assert_array_equal(jax.grad(lambda x: lp_pool(x, 2, (2,)).sum())(x).ravel(), [0, 0, 1, 0])


@pytest.mark.parametrize("norm", [0, -1, float("inf"), float("nan"), True, "2"])
def test_lp_pool_refuses_what_is_no_norm(norm):
    with pytest.raises(ValueError, match="`norm_type`"):
        lp_pool(jnp.ones((1, 4, 1)), norm, (2,))


def test_adaptive_pool_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"`inputs` \(shape=\(4, 1\)\) must be"):
        adaptive_avg_pool(jnp.ones((4, 1)), (2, 2))
    with pytest.raises(ValueError, match="`output_shape`"):
        adaptive_max_pool(jnp.ones((1, 4, 1)), (-1,))
    with pytest.raises(TypeError, match=r"`inputs` \(dtype=complex64\) must be real numbers"):
        adaptive_max_pool(jnp.ones((1, 4, 1), jnp.complex64), (2,))
    for wrong in (None, 2.5, "2"):
        with pytest.raises(TypeError, match="`output_shape`"):
            adaptive_avg_pool(jnp.ones((1, 4, 1)), wrong)


def test_adaptive_pools_of_integers():
    x = jnp.array([3, 1, 4, 1, 5]).reshape(1, 5, 1)
    values, argmax = adaptive_max_pool(x, np.int64(2), return_argmax=True)
    assert (np.ravel(values).tolist(), np.ravel(argmax).tolist()) == ([4, 5], [2, 4])
    np.testing.assert_allclose(np.ravel(adaptive_avg_pool(x, 2)), [8 / 3, 10 / 3], rtol=1e-6)


@pytest.mark.parametrize("pool", [lambda x: lp_pool(x, 3, (2,)), lambda x: adaptive_avg_pool(x, (3,))])
def test_bfloat16_stays_bfloat16(pool):
    y, pull = jax.vjp(pool, jnp.ones((1, 5, 2), jnp.bfloat16))
    assert (y.dtype, pull(y)[0].dtype) == (jnp.bfloat16, jnp.bfloat16)


def test_an_int_is_for_all_spatial_axes():
    for pool in (adaptive_avg_pool, adaptive_max_pool):
        np.testing.assert_array_equal(pool(X, 3), pool(X, (3, 3)))
    np.testing.assert_array_equal(lp_pool(X, 2, 2), lp_pool(X, 2, (2, 2)))
