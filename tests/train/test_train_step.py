"""One step against arithmetic by hand, the running average, the scaling of pixels and targets."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnnbp import nn
from jaxcnnbp.train import Data, Program, initial_state, make_step, take_batch, train_step
from jaxcnnbp.train.evaluate import evaluate, make_score
from jaxcnnbp.train.feed import in_order

LINEAR = nn.Sequential((nn.Flatten(), nn.Dense(10)))
SHAPE = (5, 8, 8, 1)


def program(**changes: object) -> Program:
    """A linear model with squared error and plain gradient descent at rate 0.5."""
    settings = {"model": LINEAR, "loss": nn.squared_error, "optimizer": optax.sgd(0.5), "classes": 10}
    return Program(**{**settings, **changes})  # pyright: ignore[reportArgumentType]


def hand_step(weights: np.ndarray, bias: np.ndarray, inputs: np.ndarray, targets: np.ndarray) -> tuple:
    """y = x W + b, E = 1/2 sum (y - t)^2 / batch: dW = x^T (y - t) / batch, db = sum (y - t) / batch."""
    delta = (inputs @ weights + bias - targets) / len(inputs)
    return weights - 0.5 * inputs.T @ delta, bias - 0.5 * delta.sum(axis=0)


@pytest.mark.parametrize(
    ("changes", "scale", "smooth"),
    [
        ({}, lambda pixels: pixels / 255, 0.0),
        ({"mean": 0.25, "deviation": 0.5, "white": 200}, lambda pixels: (pixels / 200 - 0.25) / 0.5, 0.0),
        ({"smoothing": 0.1}, lambda pixels: pixels / 255, 0.1),
    ],
)
def test_step_is_gradient_descent_by_hand(bars: Data, changes: dict, scale, smooth: float) -> None:
    chosen, indices = program(**changes), np.array([3, 11, 12, 40, 7], np.int32)
    state = initial_state(chosen, seed=0, input_shape=SHAPE)
    ((layer, leaves),) = state.params.items()
    inputs = scale(np.asarray(bars.train.images[indices], np.float64).reshape(5, -1))
    targets = np.eye(10)[bars.train.labels[indices]] * (1 - smooth) + smooth / 10
    kernel, bias = hand_step(np.asarray(leaves["kernel"], np.float64), np.zeros(10), inputs, targets)

    after, _ = make_step(chosen)(state, take_batch(bars.train, indices))

    np.testing.assert_allclose(after.params[layer]["kernel"], kernel, rtol=2e-5, atol=2e-6)  # float32
    np.testing.assert_allclose(after.params[layer]["bias"], bias, rtol=2e-5, atol=2e-6)
    assert int(after.step) == 1


def test_step_reports_loss_and_errors_before_the_update(bars: Data) -> None:
    chosen = program()
    state = initial_state(chosen, seed=0, input_shape=SHAPE)
    outputs = chosen.forward(state.params, jnp.asarray(bars.train.images[:5], jnp.float32) / 255)
    _, figures = train_step(chosen, state, take_batch(bars.train, np.arange(5)))
    targets = np.eye(10)[bars.train.labels[:5]]
    np.testing.assert_allclose(figures.loss, 0.5 * ((outputs - targets) ** 2).sum() / 5, rtol=1e-6)
    assert int(figures.wrong) == int((np.argmax(outputs, axis=1) != bars.train.labels[:5]).sum())


def test_running_average(bars: Data) -> None:
    chosen, batch = program(decay=0.15), take_batch(bars.train, np.arange(5))
    state = initial_state(chosen, seed=0, input_shape=SHAPE)
    step, expected = make_step(chosen), np.asarray(next(iter(state.params.values()))["kernel"])
    for done in range(3):
        state, _ = step(state, batch)
        keep = min(0.15, (1 + done) / (10 + done))
        expected = keep * expected + (1 - keep) * np.asarray(next(iter(state.params.values()))["kernel"])
    np.testing.assert_allclose(next(iter(state.weights.values()))["kernel"], expected, rtol=1e-5, atol=1e-7)


def test_evaluation_counts_every_image_once(bars: Data) -> None:
    chosen = program()
    params = initial_state(chosen, seed=0, input_shape=SHAPE).params
    score = make_score(chosen)
    whole, parts = (
        evaluate(score, params, [take_batch(bars.test, indices) for indices in in_order(20, batch)])
        for batch in (20, 7)
    )
    np.testing.assert_array_equal(whole.confusion, parts.confusion)
    np.testing.assert_allclose(whole.loss, parts.loss, rtol=1e-6)
    np.testing.assert_array_equal(whole.confusion.sum(axis=1), np.bincount(bars.test.labels, minlength=10))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_types_keep_wide_weights(bars: Data, dtype) -> None:
    chosen = program(dtype=dtype)
    state = initial_state(chosen, seed=0, input_shape=SHAPE)
    after, figures = train_step(chosen, state, take_batch(bars.train, np.arange(5)))
    assert {leaf.dtype for leaf in jax.tree.leaves(after.params)} == {jnp.dtype(jnp.float32)}
    assert figures.loss.dtype == jnp.float32
