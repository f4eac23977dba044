"""Whole training steps: a Flax model by autodiff and through `manual_backward`, the same in PyTorch and in `nn`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxcnnbp
from jaxcnnbp.bench.networks import Network
from jaxcnnbp.bench.own_models import own_model
from jaxcnnbp.bench.program_facts import Compiled, compile_cold, residual_bytes
from jaxcnnbp.errors import require
from jaxcnnbp.timing import Call, waited_for

# Next to nothing: a network that knows its images by heart has gradients of denormal numbers, one that diverges has
# NaN, and both take another time than training does.
RATE = 1e-6

Loss = Callable[..., tuple[jax.Array, Any]]  # (params, statistics, images, labels) -> (loss, statistics)


@dataclass(frozen=True)
class TrainingStep:
    """One or several training steps in JAX, compiled."""

    call: Call
    compiled: Compiled
    residual_bytes: int  # what waits for the backward pass


def jax_steps(network: Network, dtype: str, count: int = 1) -> Iterator[tuple[str, TrainingStep]]:
    """`count` steps by each side: "jaxcnnbp" and "autodiff" of the Flax model, "nn" of our own if there is one.

    Raises:
      jaxcnnbp.train.InputError: Flax is not installed.
    """
    model = require("jaxcnnbp.bench.flax_models", "Flax", "bench").FlaxModel(network.layers, jnp.dtype(dtype))
    images = jnp.asarray(np.random.default_rng(0).standard_normal(network.shape, np.float32), jnp.dtype(dtype))
    variables = dict(jax.jit(model.init)(jax.random.key(0), images))
    params, statistics = variables["params"], variables.get("batch_stats", {})
    labels = _labels(jax.eval_shape(lambda v: model.apply(v, images, mutable=["batch_stats"])[0], variables).shape)
    optimizer = optax.adam(RATE) if network.optimizer == "adam" else optax.sgd(RATE, momentum=0.9)
    loss = _flax_loss(model)
    yield "jaxcnnbp", _step(jaxcnnbp.manual_backward(loss), params, statistics, images, labels, optimizer, count)
    yield "autodiff", _step(loss, params, statistics, images, labels, optimizer, count)
    own = own_model(network)
    if own is not None:
        params = own.init(jax.random.key(0), network.shape, images.dtype)
        yield "nn", _step(_own_loss(own), params, {}, images, labels, optimizer, count)


def _labels(logits: tuple[int, ...]) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).integers(0, logits[-1], logits[:-1], np.int32))


def _flax_loss(model: Any) -> Loss:
    def loss(params: Any, statistics: Any, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, Any]:
        variables = {"params": params, "batch_stats": statistics}
        logits, updates = model.apply(variables, images, mutable=["batch_stats"])
        return _cross_entropy(logits, labels), updates.get("batch_stats", {})

    return loss


def _own_loss(model: Any) -> Loss:
    def loss(params: Any, statistics: Any, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, Any]:
        return _cross_entropy(model.apply(params, images), labels), statistics

    return loss


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _step(
    loss: Loss, params: Any, statistics: Any, images: jax.Array, labels: jax.Array, optimizer: Any, count: int
) -> TrainingStep:
    def step(state: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, jax.Array]:
        params, statistics, moments = state
        gradients = jax.value_and_grad(loss, has_aux=True)
        (value, statistics), slopes = gradients(params, statistics, images, labels)
        updates, moments = optimizer.update(slopes, moments, params)
        return (optax.apply_updates(params, updates), statistics, moments), value

    def loop(state: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, jax.Array]:
        return jax.lax.scan(lambda state, _: step(state, images, labels), state, length=count)

    # The step takes its state over, as in any training loop: each side needs arrays of its own.
    state = jax.tree.map(jnp.copy, (params, statistics, optimizer.init(params)))
    kept = residual_bytes(lambda p: loss(p, statistics, images, labels), params, has_aux=True)
    compiled = compile_cold(jax.jit(step if count == 1 else loop, donate_argnums=0), state, images, labels)
    return TrainingStep(_training(compiled.function, state, images, labels), compiled, kept)


def _training(step: Callable[..., Any], state: Any, images: jax.Array, labels: jax.Array) -> Call:
    def train() -> Any:
        nonlocal state
        state, value = step(state, images, labels)
        return state, value

    return waited_for(train)
