"""One image on its way through a trained network and back: activations, deltas, gradients, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnnbp import nn
from jaxcnnbp.explain.numbers import gap
from jaxcnnbp.explain.shown import Shown, Views
from jaxcnnbp.explain.walk_picture import picture_of
from jaxcnnbp.explain.walk_views import page_of, plain_of, rich_of, title_of
from jaxcnnbp.explain.weights import Trained, default_cache, scaled, trained
from jaxcnnbp.modes import mode


@dataclass(frozen=True, eq=False)
class Parameter:
    """One parameter of a layer.

    Attributes:
      value: as it was trained.
      gradient: of the loss of this image, by `nn.backprop`.
      gap: largest distance of the gradient from autodiff's.
    """

    value: np.ndarray
    gradient: np.ndarray
    gap: float


@dataclass(frozen=True, eq=False)
class Step:
    """One layer.

    Attributes:
      name: as the model calls it; "input" for the image.
      activation: its output, `(*spatial, channels)`.
      delta: gradient of the loss by that output, by `nn.backprop`.
      gap: largest distance of `delta` from autodiff's.
      parameters: by name.
    """

    name: str
    activation: np.ndarray
    delta: np.ndarray
    gap: float
    parameters: Mapping[str, Parameter]


@dataclass(frozen=True, eq=False)
class Walk(Shown):
    """What `jaxcnnbp.explain.model` gives: it shows itself in a notebook, and as page, picture and text.

    Attributes:
      name: of the model.
      sample: which test image.
      label: what the image shows.
      scores: the model's outputs, `(classes,)`.
      chances: softmax of the scores; None for a model that is trained by squared error.
      loss: of this image.
      steps: the input and every layer, first to last.
      words: where weights and image are from.
    """

    _views: ClassVar[Views] = Views(title_of, page_of, plain_of, rich_of, picture_of)

    name: str
    sample: int
    label: int
    scores: np.ndarray = field(repr=False)
    chances: np.ndarray | None = field(repr=False)
    loss: float
    steps: tuple[Step, ...] = field(repr=False)
    words: tuple[str, ...]

    @property
    def answer(self) -> int:
        """The class that the model gives."""
        return int(np.argmax(self.scores))

    def __getitem__(self, name: str) -> Step:
        """The step of one layer by name."""
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(f"`name` (={name!r}) must be one of {', '.join(step.name for step in self.steps)}.")


def model(
    name: str = "lenet5",
    sample: int = 7,
    *,
    weights: str | PathLike[str] | None = None,
    data_dir: str | PathLike[str] | None = None,
    standardize: bool = False,
    seed: int = 0,
    cache: str | PathLike[str] | bool | None = True,
    say: Callable[[str], None] = lambda _: None,
) -> Walk:
    """One real digit through a trained network and back, by `nn.backprop`, with autodiff beside it.

    Without `weights` the model is trained first, for seconds: without `data_dir` on scikit-learn's handwritten digits
    (enlarged where the model wants 28x28), with it for one epoch on the files there. The weights are kept for the next
    time.

    Args:
      name: a shipped model, a key of `jaxcnnbp.nn.models.MODELS`.
      sample: number of the test image, from 0.
      weights: parameters that `jaxcnnbp train --save` or `jaxcnnbp.train.save_params` wrote.
      data_dir: folder with the four files of MNIST, plain or gzip.
      standardize: whether the weights want pixels of mean 0 and deviation 1, as the training recipes do.
      seed: of the training.
      cache: folder for trained weights; True is the user's cache, False or None keeps nothing.
      say: told what takes time.

    Returns:
      A `Walk`: `steps` with activations, deltas, gradients and their distances from autodiff.

    Raises:
      InputError: an unknown model, weights of another one, a sample that does not exist, unreadable files.

    Example:
      >>> walk = model("digits", sample=3, cache=None)
      >>> walk["conv1"].activation.shape, walk["conv1"].gap < 1e-6
      ((8, 8, 8), True)

    Source: Bouvrie (2006), sections 2 and 3; `jaxcnnbp.nn.backprop`.
    """
    folder = default_cache() if cache is True else Path(cache) if cache else None
    return _walk(name, sample, trained(name, sample, weights, data_dir, standardize, seed, folder, say))


def _walk(name: str, sample: int, found: Trained) -> Walk:
    network, params = found.spec.build(), found.params
    image = scaled(found.data.test.images[sample][None], found.data, found.mean, found.deviation)
    label = int(found.data.test.labels[sample])
    target = jax.nn.one_hot(jnp.array([label]), found.data.classes)
    back = jax.jit(lambda params, image: nn.backprop(network, params, image, target, found.spec.loss))(params, image)
    outputs = jax.jit(lambda params, image: _outputs(network, params, image, {}))(params, image)
    gradients, deltas = _by_autodiff(network, params, image, target, found.spec.loss)
    steps = tuple(
        _step(layer, outputs[layer], back, deltas[layer], params.get(layer, {}), gradients.get(layer, {}))
        for layer in ("input", *network.names)  # jit gives dicts back in the order of the alphabet
    )
    chances = np.asarray(jax.nn.softmax(back.outputs[0])) if found.spec.loss is nn.softmax_cross_entropy else None
    where = f"Image {sample} of the test images of {found.data.name}."
    scores = np.asarray(back.outputs[0])
    return Walk(name, sample, label, scores, chances, float(back.loss), steps, (where, *found.words))


def _outputs(network: nn.Sequential, params: Any, image: jax.Array, added: Mapping[str, jax.Array]) -> dict[str, Any]:
    """The output of every layer by name, each with what `added` has for it."""
    x = image + added["input"] if added else image
    outputs = {"input": x}
    for name, layer in network.named_layers():
        x = layer.apply(params.get(name, {}), x)
        x = outputs[name] = x + added[name] if added else x
    return outputs


def _by_autodiff(
    network: nn.Sequential, params: Any, image: jax.Array, target: jax.Array, loss: Any
) -> tuple[Any, Any]:
    """Gradients and deltas by JAX: a delta is the slope by something added to the layer's output."""
    shapes = jax.eval_shape(lambda params, image: _outputs(network, params, image, {}), params, image)
    nothing = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes)

    def of(params: Any, added: Any) -> jax.Array:
        return loss(_outputs(network, params, image, added)[network.names[-1]], target)

    with mode("autodiff"):
        return jax.jit(jax.grad(of, (0, 1)))(params, nothing)


def _step(name: str, output: jax.Array, back: nn.Backprop, by_jax: jax.Array, params: Any, gradients: Any) -> Step:
    own = back.gradients.get(name, {})
    parameters = {
        part: Parameter(np.asarray(params[part]), np.asarray(own[part]), gap(own[part], gradients[part]))
        for part in params
    }
    delta = back.deltas[name]
    return Step(name, np.asarray(output[0]), np.asarray(delta[0]), gap(delta, by_jax), parameters)
