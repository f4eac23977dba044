"""From options and data to the program of a run: model, loss, augmentation, optimizer."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp

from jaxcnnbp import nn
from jaxcnnbp.errors import InputError
from jaxcnnbp.nn.models import MODELS, ModelSpec
from jaxcnnbp.train.augment import Augment
from jaxcnnbp.train.data.split import Data, pixel_statistics
from jaxcnnbp.train.optimizer import make_optimizer
from jaxcnnbp.train.options import Options
from jaxcnnbp.train.step import Program

__all__ = ["LOSSES", "build_program", "choose_model", "steps_per_epoch"]

LOSSES = {"squared_error": nn.squared_error, "cross_entropy": nn.softmax_cross_entropy}
_MODEL_FOR_SIZE: dict[tuple[int, ...], str] = {(8, 8, 1): "digits"}


def choose_model(options: Options, image_shape: tuple[int, ...]) -> tuple[str, ModelSpec]:
    """The shipped model that is named, or the one for images of this size.

    Args:
        options: `model` is read.
        image_shape: `(height, width, channels)`.

    Returns:
        The model's name and specification.

    Raises:
        InputError: no model has the name.

    Example:
        >>> choose_model(Options(), (28, 28, 1))[0]
        'lenet5'
    """
    name = options.model or _MODEL_FOR_SIZE.get(image_shape, "lenet5")
    if name not in MODELS:
        raise InputError(f"`model` (={name}) must be one of {', '.join(MODELS)}.")
    return name, MODELS[name]


def build_program(options: Options, data: Data) -> Program:
    """All that stays the same during the run.

    Args:
        options: the options of the run.
        data: the data set; its sizes, scaling and, for `standardize`, its pixels are read.

    Returns:
        The program.

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
    """Number of batches in one pass, the last and smaller one included.

    Args:
        options: `batch` is read.
        data: its training images are counted.

    Returns:
        The training images over the batch size, rounded up.
    """
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
    except ValueError as error:
        first = image_shape[0] in (1, 3, 4) and image_shape[-1] not in (1, 3, 4)
        size += ", channels first (np.moveaxis(images, 1, -1) puts them last)," if first else ""
        fault = f"`model` (={name}) does not take the {size} images of {data.name}"
        raise InputError(f"{fault}; choose another --model or other data.") from error
    if outputs != (1, data.classes):
        fault = f"`model` (={name}) tells {outputs[-1]} classes apart"
        raise InputError(f"{fault}, but {data.name} has {data.classes}.")
