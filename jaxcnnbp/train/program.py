"""All that stays the same during training: model, loss, optimizer, and what becomes of stored pixels and labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxcnnbp import nn
from jaxcnnbp.errors import InputError
from jaxcnnbp.nn.models import MODELS, ModelSpec
from jaxcnnbp.train.augment import Augment
from jaxcnnbp.train.data.split import Data, pixel_statistics
from jaxcnnbp.train.optimizer import make_optimizer
from jaxcnnbp.train.options import Options

_UNCHANGED = Augment()


@dataclasses.dataclass(frozen=True)
class Program:
    """All that stays the same during training.

    Args:
        model: a `Sequential`, or anything with `init` and `apply`.
        loss: function of outputs and one-hot targets, a mean over the batch.
        optimizer: Optax transformation.
        classes: number of classes.
        augment: random change of the images.
        white: the stored pixel value that means 1.0.
        mean: subtracted from the pixels, after scaling by `white`.
        deviation: divides the pixels last.
        smoothing: share of every target that is spread over all classes.
        decay: decay of the running average of the weights; 0 keeps none.
        dtype: type of activations and deltas.
    """

    model: Any
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    optimizer: optax.GradientTransformation
    classes: int
    augment: Augment = _UNCHANGED
    white: int = 255
    mean: float = 0.0
    deviation: float = 1.0
    smoothing: float = 0.0
    decay: float = 0.0
    dtype: Any = jnp.float32

    @property
    def master_dtype(self) -> Any:
        """Type of the stored weights: float32, or float64 where that is the type of the run."""
        return jnp.dtype(jnp.float64 if self.dtype == jnp.float64 else jnp.float32)

    def forward(self, params: Any, images: jax.Array) -> jax.Array:
        """Outputs in the type of the stored weights, computed in `dtype`; images scaled as in training."""
        inputs, narrow = self.narrowed(params, images)
        return _applied(self.model, narrow, inputs).astype(self.master_dtype)

    def narrowed(self, params: Any, images: jax.Array) -> tuple[jax.Array, Any]:
        """Images, with mean 0 and deviation 1 where that is asked for, and parameters, both in `dtype`."""
        narrow = jax.tree.map(lambda leaf: leaf.astype(self.dtype), params)
        return ((images - self.mean) / self.deviation).astype(self.dtype), narrow


def _applied(model: Any, params: Any, x: jax.Array) -> jax.Array:
    """`model.apply`, with every layer under its name in traces and compiled programs."""
    if not hasattr(model, "named_layers"):
        return model.apply(params, x)
    for name, layer in model.named_layers():
        with jax.named_scope(name):
            x = layer.apply(params.get(name, {}), x)
    return x


def scaled_images(program: Program, images: jax.Array) -> jax.Array:
    """Stored pixels scaled to 0 .. 1, in the type of the stored weights."""
    return images.astype(program.master_dtype) / program.white


def one_hot_targets(program: Program, labels: jax.Array) -> jax.Array:
    """One-hot rows, with a share of the mass spread evenly (Szegedy et al., 2016)."""
    hot = jax.nn.one_hot(labels, program.classes, dtype=program.master_dtype)
    return optax.smooth_labels(hot, program.smoothing)


def predicted_class(outputs: jax.Array) -> jax.Array:
    """The class with the largest output, the first of equals; int32 also where 64-bit types are on.

    Example:
        >>> predicted_class(jnp.array([[0.1, 0.7, 0.2]]))
        Array([1], dtype=int32)
    """
    return jax.lax.argmax(outputs, 1, jnp.int32)


LOSSES = {"squared_error": nn.squared_error, "cross_entropy": nn.softmax_cross_entropy}


def choose_model(options: Options, image_shape: tuple[int, ...]) -> tuple[str, ModelSpec]:
    """The shipped model that is named, or the one for images of this size.

    Raises:
        InputError: no model has the name.

    Example:
        >>> choose_model(Options(), (28, 28, 1))[0]
        'lenet5'
    """
    name = options.model or ("digits" if image_shape == (8, 8, 1) else "lenet5")
    if name not in MODELS:
        raise InputError(f"`model` (={name}) must be one of {', '.join(MODELS)}.")
    return name, MODELS[name]


def build_program(options: Options, data: Data) -> Program:
    """All that stays the same during the run.

    Raises:
        InputError: the model is unknown, or does not take these images or these classes.
    """
    image_shape = data.train.images.shape[1:]
    name, spec = choose_model(options, image_shape)
    model = _with_classes(spec.build(), data.classes)
    _check_fit(name, model, image_shape, data)
    mean, deviation = pixel_statistics(data) if options.standardize else (0.0, 1.0)
    ranges = {part: getattr(options, part) for part in ("shift", "rotate", "scale", "shear")}
    return Program(
        model=model,
        loss=LOSSES[options.loss] if options.loss else spec.loss,
        optimizer=make_optimizer(options, options.epochs * steps_per_epoch(options, data)),
        classes=data.classes,
        augment=Augment(options.augment, **ranges),
        white=data.white,
        mean=mean,
        deviation=deviation,
        smoothing=options.label_smoothing,
        decay=options.ema,
        dtype=jnp.dtype(options.dtype),
    )


def steps_per_epoch(options: Options, data: Data) -> int:
    """Number of batches in one pass, the last and smaller one included."""
    return -(-len(data.train.labels) // options.batch)


def _with_classes(model: Any, classes: int) -> Any:
    """The network with as many outputs as there are classes: its last dense layer gives them."""
    layers = list(model.layers)
    last = max((n for n, layer in enumerate(layers) if isinstance(layer, nn.Dense)), default=None)
    if last is None or layers[last].features == classes:
        return model
    layers[last] = dataclasses.replace(layers[last], features=classes)
    return nn.Sequential(tuple(layers))


def _check_fit(name: str, model: Any, image_shape: tuple[int, ...], data: Data) -> None:
    size = "x".join(map(str, image_shape))
    try:
        outputs = model.output_shape((1, *image_shape))
    except InputError:  # of a setting, not of the images
        raise
    except ValueError as error:
        first = image_shape[0] in (1, 3, 4) and image_shape[-1] not in (1, 3, 4)
        size += ", channels first (np.moveaxis(images, 1, -1) puts them last)," if first else ""
        fault = f"`model` (={name}) does not take the {size} images of {data.name}"
        raise InputError(f"{fault}; choose another --model or other data.") from error
    if outputs != (1, data.classes):
        fault = f"`model` (={name}) tells {outputs[-1]} classes apart"
        raise InputError(f"{fault}, but {data.name} has {data.classes}.")
