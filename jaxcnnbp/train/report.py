"""The gradients of a trained model, by the hand-written rules, by autodiff and in float64."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxcnnbp.train.loop import Result

__all__ = ["gradient_report"]


def gradient_report(result: Result, batch: int = 64) -> Any:
    """Compare the gradients of the trained model on its first test images.

    Args:
        result: a finished run.
        batch: number of test images.

    Returns:
        The `GradientReport` of `jaxcnnbp.audit.compare_gradients`, one row a parameter and one for the
        images.

    Example:
        `print(gradient_report(train(Options(epochs=1))))`
    """
    from jaxcnnbp.audit import compare_gradients

    program, split = result.program, result.data.test
    pixels = jnp.asarray(split.images[:batch], jnp.float32) / program.white
    images = (pixels - program.mean) / program.deviation
    targets = jax.nn.one_hot(jnp.asarray(split.labels[:batch]), program.classes, dtype=jnp.float32)

    def loss(params: Any, images: jax.Array) -> jax.Array:
        return program.loss(program.model.apply(params, images), targets.astype(images.dtype))

    return compare_gradients(loss, result.params, images)
