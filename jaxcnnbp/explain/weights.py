"""Trained weights for a walk through a network: from a file, from the cache, or trained on the spot."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnnbp.nn.models import MODELS, ModelSpec
from jaxcnnbp.train import Data, InputError, Options, Split, load_params, save_params, train
from jaxcnnbp.train.data import digits, mnist_folder
from jaxcnnbp.train.data.split import pixel_statistics

SEEN = 1000  # test images that the error rate is taken from
BORDER = 4  # pixels around an enlarged digit, as MNIST has them
WHITE = 255


@dataclass(frozen=True)
class Trained:
    """A network that has learned, and its test images."""

    spec: ModelSpec
    params: Any
    data: Data
    mean: float  # what the pixels, in 0 .. 1, are shifted by
    deviation: float  # and divided by
    words: tuple[str, ...]  # sentences on where the weights are from


def trained(
    name: str,
    sample: int,
    weights: str | PathLike[str] | None,
    data_dir: str | PathLike[str] | None,
    standardize: bool,
    seed: int,
    cache: Path | None,
    say: Callable[[str], None],
) -> Trained:
    """The shipped model `name` with weights, and data that hold test image `sample`; see `jaxcnnbp.explain.model`."""
    if name not in MODELS:
        raise InputError(f"`name` (={name!r}) must be one of {', '.join(MODELS)}.")
    spec = MODELS[name]
    data = _data_for(spec, data_dir)
    if not 0 <= sample < len(data.test.labels):  # before seconds go into training
        last = len(data.test.labels) - 1
        raise InputError(f"`sample` (={sample}) must be the number of a test image, 0 .. {last}.")
    mean, deviation = pixel_statistics(data) if standardize else (0.0, 1.0)
    if weights is not None:
        params, words = _fitting(load_params(Path(weights)), spec, weights), f"Weights from {weights}."
    else:
        params, words = _learned(spec, data, _options(name, data_dir, standardize, seed), cache, say)
    error = _error(spec, params, data, mean, deviation)
    seen = min(SEEN, len(data.test.labels))
    found = f"It gets {100 * error:.1f} % of the first {seen:,} test images of {data.name} wrong."
    return Trained(spec, params, data, mean, deviation, (words, found))


def scaled(images: Any, data: Data, mean: float, deviation: float) -> jax.Array:
    """Pixels as the network takes them."""
    return (jnp.asarray(images, jnp.float32) / data.white - mean) / deviation


def default_cache() -> Path:
    """Where weights are kept from one walk to the next."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxcnnbp"


def enlarged(data: Data, size: int) -> Data:
    """Small digits as large as MNIST's: the strokes are enlarged, a border is left around them.

    Example:
      >>> enlarged(digits(), 28).test.images.shape
      (355, 28, 28, 1)
    """

    def larger(split: Split) -> Split:
        images = jnp.asarray(split.images, jnp.float32) / data.white
        inner = size - 2 * BORDER
        strokes = jax.image.resize(images, (len(images), inner, inner, 1), "cubic")
        framed = jnp.pad(jnp.clip(strokes, 0, 1), ((0, 0), (BORDER, BORDER), (BORDER, BORDER), (0, 0)))
        return Split(np.asarray(jnp.round(framed * WHITE)).astype(np.uint8), split.labels)

    return Data(f"{data.name}, enlarged to {size}x{size}", larger(data.train), larger(data.test), WHITE, data.classes)


def _data_for(spec: ModelSpec, data_dir: str | PathLike[str] | None) -> Data:
    if data_dir is not None:
        data = mnist_folder(Path(data_dir))
    else:
        data = digits()
        if spec.input_shape != data.test.images.shape[1:]:
            data = enlarged(data, spec.input_shape[0])
    if data.test.images.shape[1:] != spec.input_shape:
        sizes = ["x".join(map(str, shape)) for shape in (data.test.images.shape[1:], spec.input_shape)]
        raise InputError(f"`data_dir` (={data_dir}) holds images of {sizes[0]}, but the model takes {sizes[1]}.")
    return data


def _learned(
    spec: ModelSpec, data: Data, options: Options, cache: Path | None, say: Callable[[str], None]
) -> tuple[Any, str]:
    """Weights from the cache, or trained and put there."""
    what = f"{options.epochs} epoch{'s' * (options.epochs > 1)} on {data.name} (seed {options.seed})"
    path = None if cache is None else cache / f"{options.model}-{_fingerprint(options, data)}.npz"
    if path is not None and path.exists():
        try:
            return _fitting(load_params(path), spec, path), f"Weights of an earlier walk, {what}, kept in {path}."
        except InputError as error:
            say(f"{error} It is trained and written anew.")
    say(f"Training {options.model}: {what} ...")
    params = train(options, data=data).params
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_params(path, params)
    return params, f"Trained for this walk: {what}{'' if path is None else f', kept in {path}'}."


def _options(name: str, data_dir: str | PathLike[str] | None, standardize: bool, seed: int) -> Options:
    """Short training: one epoch of MNIST, a few of the bundled digits."""
    shared = {"model": name, "standardize": standardize, "seed": seed, "learning_rate": 0.002}
    if data_dir is not None:
        return Options(epochs=1, batch=50, data_dir=str(data_dir), **shared)
    return Options(epochs=5, batch=16, **shared)


def _fingerprint(options: Options, data: Data) -> str:
    """Changes with the options and with the training images."""
    marks = repr(options).encode() + np.ascontiguousarray(data.train.images[::97]).tobytes()
    return hashlib.sha256(marks).hexdigest()[:12]


def _fitting(params: Any, spec: ModelSpec, path: str | PathLike[str]) -> Any:
    """`params`, if they are those of the model."""
    wanted = jax.eval_shape(lambda key: spec.build().init(key, (1, *spec.input_shape)), jax.random.key(0))
    shapes = {layer: {part: np.shape(leaf) for part, leaf in leaves.items()} for layer, leaves in params.items()}
    expected = {layer: {part: leaf.shape for part, leaf in leaves.items()} for layer, leaves in wanted.items()}
    if shapes != expected:
        differ = next(layer for layer in {**expected, **shapes} if shapes.get(layer) != expected.get(layer))
        raise InputError(
            f"`weights` (={path}) are not this model's: its layer {differ} has {expected.get(differ)}, the file"
            f" {shapes.get(differ)}; name the model that they were trained for."
        )
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)


def _error(spec: ModelSpec, params: Any, data: Data, mean: float, deviation: float) -> float:
    images = scaled(data.test.images[:SEEN], data, mean, deviation)
    given = np.argmax(np.asarray(jax.jit(spec.build().apply)(params, images)), -1)
    return float(np.mean(given != np.asarray(data.test.labels[:SEEN])))
