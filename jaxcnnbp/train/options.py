"""What is trained and how it is carried out: frozen values whose fields carry their meaning and their condition.

The command line is made from them.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from jaxcnnbp.errors import InputError

LEARNING_RATES = {"sgd": 0.1, "momentum": 0.02, "adam": 5e-3, "adamw": 5e-3}
EXTENSIONS = ("hold", "stretch", "restart")


_Condition = tuple[Callable[[Any], bool], str]  # what a value must fulfil, and the words for it

_AT_LEAST_ONE = (lambda value: value >= 1), "must be a whole number, at least 1"
_COUNT = (lambda value: value >= 0), "must be 0 or a whole number above it"
_POSITIVE = (lambda value: 0 < value < math.inf), "must be a positive number"
_NOT_NEGATIVE = (lambda value: 0 <= value < math.inf), "must be 0 or a positive number"
_FRACTION = (lambda value: 0 <= value < 1), "must lie in 0 <= value < 1"
_SEED = (lambda value: 0 <= value < 2**32), "must be a whole number, 0 .. 2**32 - 1"

# By annotation: what the values of a field are, and the words for it where the field has no condition.
_TYPES: dict[str, tuple[Any, str]] = {
    "bool": (bool, "must be True or False"),
    "str": ((str, os.PathLike), "must be text, and not empty"),
    "int": (numbers.Integral, "must be a whole number"),
    "float": (numbers.Real, "must be a number"),
}


def _option(default: Any, text: str, condition: _Condition | None = None, choices: tuple[str, ...] = ()) -> Any:
    """A field with the sentence for the command line and the values that it may have."""
    return dataclasses.field(default=default, metadata={"help": text, "condition": condition, "choices": choices})


def _check(options: Any) -> None:
    """Refuse a field of `_option` that is outside its range or its choices; None passes where it is the default."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value is None and field.default is None:
            continue
        choices, kind = field.metadata["choices"], field.type.removesuffix(" | None")
        types, rule = _TYPES[kind]
        is_of_type = isinstance(value, types) and isinstance(value, bool) == (kind == "bool")
        holds, rule = field.metadata["condition"] or (lambda value: value != "", rule)
        if choices and value not in choices:
            raise InputError(f"`{field.name}` (={value}) must be one of {', '.join(choices)}.")
        if not is_of_type or not holds(value):
            raise InputError(f"`{field.name}` (={value}) {rule}.")


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of one training run; `jaxcnnbp train --help` says what each means.

    Raises:
        InputError: a value outside its range or choices, named in one sentence.

    Example:
        >>> Options(epochs=2).epochs
        2
        >>> Options(epochs=0)
        Traceback (most recent call last):
        jaxcnnbp.errors.InputError: `epochs` (=0) must be a whole number, at least 1.
    """

    model: str | None = _option(None, "Shipped model; by default the one made for the size of the images.")
    data: str = _option("digits", "'digits' (of scikit-learn), a file .npz, a folder, or a data set's name on OpenML.")
    data_dir: str | None = _option(
        None, "Folder of MNIST-format files, or of pictures in a folder a class; instead of --data."
    )
    classes: int = _option(10, "Number of classes of MNIST-format files and of .npz.", _AT_LEAST_ONE)
    image_size: int | None = _option(
        None, "Side that pictures are resized to; default: they must be alike.", _AT_LEAST_ONE
    )
    corrupt: str = _option("stop", "What an unreadable picture does.", choices=("stop", "skip"))
    validation: float = _option(
        0.0, "Share of the training images that the best epoch is chosen by instead of trained on.", _FRACTION
    )
    patience: int = _option(
        0, "Epochs without a better validation error after which the run ends; 0 never ends it.", _COUNT
    )
    epochs: int = _option(20, "Passes over the training images.", _AT_LEAST_ONE)
    batch: int = _option(32, "Images a step.", _AT_LEAST_ONE)
    optimizer: str = _option("adam", "Update rule.", choices=tuple(LEARNING_RATES))
    learning_rate: float | None = _option(None, "Peak rate; default by optimizer.", _POSITIVE)
    momentum: float = _option(0.9, "Momentum; beta1 of adam.", _FRACTION)
    beta2: float = _option(0.999, "Decay of adam's second moment.", _FRACTION)
    weight_decay: float = _option(
        0.0, "Decay of the kernels; decoupled from the gradient in adamw only.", _NOT_NEGATIVE
    )
    schedule: str = _option(
        "cosine",
        "How the rate goes from its peak to its end.",
        choices=("constant", "linear", "cosine", "onecycle"),
    )
    warmup: float | None = _option(
        None, "Share of the steps that rise to the peak; default 0, onecycle 0.3.", _FRACTION
    )
    final_rate: float = _option(1e-3, "Rate at the end, as a share of the peak.", _FRACTION)
    loss: str | None = _option(None, "Default: the model's own.", choices=("squared_error", "cross_entropy"))
    label_smoothing: float = _option(0.0, "Share of every target spread over all classes.", _FRACTION)
    augment: str = _option("none", "Random change of every training image.", choices=("none", "shift", "affine"))
    shift: float = _option(2.0, "Largest shift in pixels; whole ones with --augment shift.", _NOT_NEGATIVE)
    rotate: float = _option(10.0, "Largest rotation in degrees (affine).", _NOT_NEGATIVE)
    scale: float = _option(0.1, "Largest log of the magnification along each axis (affine).", _NOT_NEGATIVE)
    shear: float = _option(0.1, "Largest shear, pixels a row (affine).", _NOT_NEGATIVE)
    standardize: bool = _option(False, "Shift and scale pixels to mean 0, deviation 1; otherwise 0 .. 1.")
    ema: float = _option(0.0, "Decay of the running average of the weights that is evaluated; 0 is none.", _FRACTION)
    seed: int = _option(0, "Seed of the weights, the order and the augmentation.", _SEED)
    dtype: str = _option(
        "float32",
        "Type of activations and deltas; weights are kept in float32 or wider.",
        choices=("float32", "bfloat16", "float16", "float64"),
    )
    gradients: str = _option("manual", "Backward rules: this package's, or JAX's.", choices=("manual", "autodiff"))

    def __post_init__(self) -> None:
        _check(self)

    @property
    def peak_rate(self) -> float:
        """The learning rate that is meant: the given one, or the optimizer's default."""
        return LEARNING_RATES[self.optimizer] if self.learning_rate is None else self.learning_rate


@dataclasses.dataclass(frozen=True)
class Run:
    """Devices, processes and checkpoints of one run; the help of each field says what it means.

    What is trained stands in `Options`. A run on other devices gives the same result within rounding, a run that was
    interrupted and resumed on the same devices the same bits; on GPUs if it is `deterministic`.

    Raises:
        InputError: a value outside its range, or values that do not go together, named in one sentence.

    Example:
        >>> Run(resume=True)
        Traceback (most recent call last):
        jaxcnnbp.errors.InputError: `resume` (=True) needs `checkpoints`, the folder to resume from.
    """

    devices: int | None = _option(None, "Devices to train on; default: all there are.", _AT_LEAST_ONE)
    shard_params: bool = _option(False, "Keep each parameter in parts, one a device, instead of whole on all.")
    spatial: int = _option(1, "Devices that share one image, each a band of its rows.", _AT_LEAST_ONE)
    workers: int = _option(4, "Threads that decode pictures.", _AT_LEAST_ONE)
    checkpoints: str | None = _option(None, "Folder of checkpoints; made if absent.")
    checkpoint_every: int = _option(0, "Steps between two checkpoints; 0: one after every epoch.", _COUNT)
    keep: int = _option(3, "Newest checkpoints that are kept.", _AT_LEAST_ONE)
    resume: bool = _option(False, "Go on from the last good checkpoint in --checkpoints.")
    extend: str | None = _option(
        None,
        "What the rate does if --resume changes --epochs: hold its last value, stretch the schedule from here on,"
        " or restart it after its end.",
        choices=EXTENSIONS,
    )
    deterministic: bool = _option(False, "On GPUs, the same bits in every run; slower. Other devices give them anyway.")
    profile: str | None = _option(None, "Folder of a JAX trace of steps 11 to 15, and of the time each rule took.")
    coordinator: str | None = _option(None, "HOST:PORT of process 0, for a run of several processes.")
    num_processes: int | None = _option(None, "Number of processes.", _AT_LEAST_ONE)
    process_id: int | None = _option(None, "Number of this process, from 0.", _COUNT)
    time_limit: float = _option(300.0, "Seconds to wait for the other processes before giving up.", _POSITIVE)

    def __post_init__(self) -> None:
        _check(self)
        if self.resume and self.checkpoints is None:
            raise InputError("`resume` (=True) needs `checkpoints`, the folder to resume from.")
        if self.extend is not None and not self.resume:
            raise InputError(f"`extend` (={self.extend}) needs `resume`: only a run that is resumed is extended.")
        given = [part is not None for part in (self.coordinator, self.num_processes, self.process_id)]
        if any(given) and not all(given):
            raise InputError("`coordinator`, `num_processes` and `process_id` go together; give all three or none.")
        if self.coordinator is not None and not re.fullmatch(r".+:\d+", self.coordinator):
            raise InputError(f"`coordinator` (={self.coordinator}) must be HOST:PORT, such as 10.0.0.1:1234.")
        if self.process_id is not None and self.process_id >= (self.num_processes or 0):
            bound = f"must be below `num_processes` (={self.num_processes})"
            raise InputError(f"`process_id` (={self.process_id}) {bound}; processes count from 0.")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Options that reach a documented result."""

    summary: str  # what it reaches, on which data
    options: Mapping[str, Any]  # those that differ from the defaults


# DeepLearnToolbox's example: plain gradient descent at rate 1. Standardised pixels are the one change; with pixels in
# 0 .. 1, the error after one epoch lies on either side of 11 %, as the seed falls.
_TOOLBOX = {
    "model": "toolbox",
    "optimizer": "sgd",
    "learning_rate": 1.0,
    "schedule": "constant",
    "batch": 50,
    "standardize": True,
}
_MODERN = {
    "optimizer": "adamw",
    "beta2": 0.99,
    "weight_decay": 0.01,
    "schedule": "cosine",
    "warmup": 0.2,
    "batch": 100,
    "augment": "affine",
    "standardize": True,
}

RECIPES: dict[str, Recipe] = {
    "digits": Recipe(
        "scikit-learn's 8x8 digits in seconds, for a first look",
        {"model": "digits", "learning_rate": 0.01, "epochs": 20, "batch": 32},
    ),
    "toolbox": Recipe("6c-2s-12c-2s of DeepLearnToolbox on MNIST, one epoch", {**_TOOLBOX, "epochs": 1}),
    "toolbox-100": Recipe("the same network, 100 epochs", {**_TOOLBOX, "epochs": 100}),
    "lenet5": Recipe(
        "LeNet-5 on MNIST, 15 epochs",
        {**_MODERN, "model": "lenet5", "epochs": 15, "learning_rate": 0.003, "ema": 0.998},
    ),
    "compact": Recipe(
        "a small network for the lowest error on MNIST, 40 epochs",
        {**_MODERN, "model": "compact", "epochs": 40, "learning_rate": 0.004, "ema": 0.999}
        | {"rotate": 12.0, "scale": 0.12, "shear": 0.15},
    ),
}
