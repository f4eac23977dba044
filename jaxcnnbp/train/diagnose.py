"""Where the first NaN of a run appeared: the step is run again from the last good state, then taken apart.

Forward, layer by layer, the output of each; then the loss; then backward, of each layer the gradients of its
parameters and the delta of its input. The first of them that is not finite is named with the rule that made it.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnnbp.train.data.split import Batch, Split, read_images
from jaxcnnbp.train.prepare import Job
from jaxcnnbp.train.program import Program, one_hot_targets, scaled_images
from jaxcnnbp.train.run_state import RunState
from jaxcnnbp.train.step import TrainState, mean_loss

# The rules of each kind of layer: what makes its output, the gradient of each parameter, and the delta of its input.
_RULES = {
    "Conv": {"output": "conv.forward", "kernel": "conv.kernel_grad", "input": "conv.input_grad"},
    "Dense": {"output": "dense.dense_forward", "kernel": "dense.dense_weight_grad", "input": "dense.dense_input_grad"},
    "MaxPool": {"output": "extreme_pool.winners", "input": "extreme_pool.extreme_pool_bwd"},
    "MeanPool": {"output": "mean_pool.mean_forward", "input": "mean_pool.mean_input_grad"},
    "Subsample": {"output": "bouvrie.subsample_fwd", "beta": "bouvrie.subsample_bwd", "input": "bouvrie.subsample_bwd"},
    "CombineMaps": {
        "output": "bouvrie.combine_fwd",
        "kernel": "bouvrie.combine_bwd",
        "logits": "bouvrie.combine_bwd",
        "input": "bouvrie.combine_bwd",
    },
}
_ANY = {
    "output": "activation.ActivationRule.fwd",
    "input": "activation.ActivationRule.bwd",
    "bias": "dense.sum_to_channels",
}


class Anchor:
    """A good state to go back to, copied, as the next step takes its memory; and where the run stood there."""

    def __init__(self, run_state: RunState, state: TrainState) -> None:
        self.run_state, self.state = copy.deepcopy(run_state), _copied(state)


def explain(job: Job, anchor: Anchor) -> str:
    """Sentences on where the first value that is not finite appeared after `anchor`."""
    state, run_state = _copied(anchor.state), anchor.run_state
    with contextlib.closing(job.fed(run_state, lambda: False)) as fed:
        for number, batch in enumerate(fed, start=run_state.step + 1):
            before = _copied(state)
            state, figures = job.step(state, batch)
            if bool(jnp.isfinite(figures.loss)) and is_finite(state.params):
                continue
            place = first_fault(job.program, before, batch) or "nowhere that a second look could find"
            return f" The first value that is not finite appeared at step {number:,} in {place}."
    return " No value was NaN or infinite up to there."


def first_fault(program: Program, state: TrainState, batch: Batch) -> str | None:
    """What of one step is not finite first."""
    return next((place for place, value in _values(program, state, batch) if not is_finite(value)), None)


def _values(program: Program, state: TrainState, batch: Batch) -> Iterator[tuple[str, Any]]:
    """Every value of a step in the order in which they come about, with its place in words."""
    images = program.augment(jax.random.fold_in(state.key, state.step), scaled_images(program, batch.images))
    yield "the images, as augmented", images
    x, params = program.narrowed(state.params, images)
    yield "the weights before the step", params
    if not hasattr(program.model, "named_layers"):
        return
    kept = []
    for name, layer in program.model.named_layers():
        x, residuals = layer.forward(params.get(name, {}), x)
        kept.append((name, layer, residuals))
        yield _place(name, layer, "output"), x
    targets = one_hot_targets(program, batch.labels)
    loss, delta = jax.value_and_grad(
        lambda outputs: mean_loss(program.loss, outputs.astype(program.master_dtype), targets, batch.weights)
    )(x)
    yield "the loss", loss
    yield "the delta of the loss", delta
    yield from _backward(params, kept, delta)
    yield "the weights, by the update of the optimizer from finite gradients", jnp.float32(jnp.nan)


def _backward(params: Any, kept: list[tuple[str, Any, Any]], delta: jax.Array) -> Iterator[tuple[str, Any]]:
    for name, layer, residuals in reversed(kept):
        gradients, delta = layer.backward(params.get(name, {}), residuals, delta)
        for parameter, gradient in gradients.items():
            yield _place(name, layer, parameter), gradient
        yield _place(name, layer, "input"), delta


def _place(name: str, layer: Any, part: str) -> str:
    rules = _RULES.get(type(layer).__name__, {})
    rule = rules.get(part) or _ANY.get(part, "activation.ActivationRule.bwd")
    words = {"output": "its output", "input": "the delta of its input"}
    return f"layer {name}: {words.get(part, f'the gradient of its {part}')}, by the rule {rule}"


@jax.jit
def _copied(state: Any) -> Any:
    return jax.tree.map(jnp.copy, state)


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def is_finite(tree: Any) -> bool:
    """Whether every value of a tree of arrays is."""
    return bool(_all_finite(tree))


def gradient_report(program: Program, params: Any, split: Split, batch: int = 64) -> Any:
    """The `GradientReport` of `jaxcnnbp.audit.compare_gradients` on the first images of a split, a row a parameter.

    Weights, images and gradients have the type of the run.
    """
    from jaxcnnbp.audit import compare_gradients

    first = np.arange(min(batch, len(split.labels)))
    pixels, weights = read_images(split.images, first)
    read = first if weights is None else np.flatnonzero(weights)
    with jax.enable_x64(program.dtype == jnp.float64):
        images, params = program.narrowed(params, scaled_images(program, jnp.asarray(pixels[read])))
        targets = jax.nn.one_hot(np.asarray(split.labels)[read], program.classes, dtype=images.dtype)

        def loss(params: Any, images: jax.Array) -> jax.Array:
            return program.loss(program.model.apply(params, images), targets.astype(images.dtype))

        return compare_gradients(loss, params, images)
