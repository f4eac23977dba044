"""The gradient that nobody asked for costs nothing: it is not in the program that runs."""

import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnnbp

SHAPES = (2, 6, 6, 16), (3, 3, 16, 8)


def arrays():
    generator = np.random.default_rng(0)
    return [jax.device_put(generator.normal(size=shape).astype(jnp.float32)) for shape in SHAPES]


def loss(x, kernel):
    return jnp.sum(jaxcnnbp.correlate(x, kernel) ** 2)


def dense_loss(x, kernel):
    return jnp.sum(jaxcnnbp.dense(x, kernel[0, 0]) ** 2)


def flops(fun, *operands):
    """With lax's convolutions, each pass of which is as many products."""
    with jaxcnnbp.implementation("xla"):
        return jax.jit(fun).lower(*operands).compile().cost_analysis()["flops"]


@pytest.mark.parametrize("fun", [loss, dense_loss])
@pytest.mark.parametrize("argument", [0, 1], ids=["kernel frozen", "input fixed"])
def test_only_what_is_asked_for(fun, argument):
    x, kernel = arrays()
    forward = flops(fun, x, kernel)
    one, both = flops(jax.grad(fun, argument), x, kernel), flops(jax.grad(fun, (0, 1)), x, kernel)
    # Forward and one gradient, or forward and two; each is as many products as the forward.
    assert one < 2.6 * forward
    assert both > 2.6 * forward


def test_stopped_input():
    x, kernel = arrays()
    stopped = flops(jax.grad(lambda k: loss(jax.lax.stop_gradient(x), k)), kernel)
    assert stopped < 2.6 * flops(loss, x, kernel)


def test_an_output_that_is_not_used():
    """The delta of an unused output is zero, and so is the gradient."""
    x, kernel = arrays()

    def first_of_two(kernel):
        unused = jaxcnnbp.correlate(x, kernel)
        del unused
        return jnp.sum(kernel**2)

    assert flops(jax.grad(first_of_two), kernel) < flops(loss, x, kernel) / 10
    np.testing.assert_array_equal(jax.grad(first_of_two)(kernel), 2 * kernel)


def test_winners_are_not_recorded_for_nothing():
    """Without a gradient max pooling computes no index."""
    x = arrays()[0]
    pool = jax.jit(lambda x: jaxcnnbp.max_pool(x, (2, 2), (2, 2)))
    assert not re.search(r"\b[us](?:8|16|32)\[", pool.lower(x).compile().as_text().split("ENTRY")[1])


def test_gradient_by_one_operand_alone():
    x, kernel = arrays()
    both = jax.grad(loss, (0, 1))(x, kernel)
    for operand in (0, 1):
        np.testing.assert_allclose(jax.grad(loss, operand)(x, kernel), both[operand], 1e-5, 1e-5)


@pytest.mark.parametrize("operand", [0, 1])
def test_outside_of_jit_too(operand, caplog):
    """Each gradient is a program of its own there, and the one that nobody asked for is not run."""
    x, kernel = arrays()
    x, kernel = x[..., :5], kernel[:, :, :5, :7]  # shapes that nothing was compiled for
    with caplog.at_level(logging.WARNING, "jax"), jax.log_compiles(True):
        gradient = jax.grad(loss, operand)(x, kernel)
    assert gradient.shape == (x, kernel)[operand].shape
    compiled = [record.getMessage() for record in caplog.records]
    delta = jax.eval_shape(jaxcnnbp.correlate, x, kernel)
    # A gradient is the program that takes delta and the other operand.
    of_each = [any(all(_type(a) in text for a in (delta, other)) for text in compiled) for other in (kernel, x)]
    assert of_each == [operand == 0, operand == 1]


def _type(array):
    return f"float32[{','.join(map(str, array.shape))}]"
