"""Everything a training run depends on, as one frozen value; the command line is made from it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from jaxcnnbp.train.errors import InputError

__all__ = ["LEARNING_RATES", "Options", "describe"]

LEARNING_RATES = {"sgd": 0.1, "momentum": 0.02, "adam": 5e-3, "adamw": 5e-3}


@dataclasses.dataclass(frozen=True)
class _Rule:
    """What a value must fulfil, and the words for it."""

    holds: Callable[[Any], bool]
    words: str


_AT_LEAST_ONE = _Rule(lambda value: isinstance(value, int) and value >= 1, "must be a whole number, at least 1")
_POSITIVE = _Rule(lambda value: 0 < value < math.inf, "must be a positive number")
_NOT_NEGATIVE = _Rule(lambda value: 0 <= value < math.inf, "must be 0 or a positive number")
_FRACTION = _Rule(lambda value: 0 <= value < 1, "must lie in 0 <= value < 1")
_SEED = _Rule(lambda value: isinstance(value, int) and 0 <= value < 2**32, "must be a whole number, 0 .. 2**32 - 1")


def _option(default: Any, text: str, rule: _Rule | None = None, choices: tuple[str, ...] = ()) -> Any:
    return dataclasses.field(default=default, metadata={"help": text, "rule": rule, "choices": choices})


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of one training run; `describe` gives the meaning and the choices of each.

    Raises:
        InputError: a value outside its range or choices, named in one sentence.

    Example:
        >>> Options(epochs=2).epochs
        2
        >>> Options(epochs=0)
        Traceback (most recent call last):
        jaxcnnbp.train.errors.InputError: `epochs` (=0) must be a whole number, at least 1.
    """

    model: str | None = _option(None, "Shipped model; by default the one made for the size of the images.")
    data: str = _option("digits", "'digits' (bundled with scikit-learn), or a data set's name on OpenML.")
    data_dir: str | None = _option(None, "Folder of MNIST-format files, plain or gzip; instead of --data.")
    classes: int = _option(10, "Number of classes of the data in --data-dir.", _AT_LEAST_ONE)
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
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))

    @property
    def peak_rate(self) -> float:
        """The learning rate that is meant: the given one, or the optimizer's default."""
        return LEARNING_RATES[self.optimizer] if self.learning_rate is None else self.learning_rate


def _check(field: dataclasses.Field, value: Any) -> None:
    choices, rule = field.metadata["choices"], field.metadata["rule"]
    if value is None and field.default is None:
        return
    if choices and value not in choices:
        raise InputError(f"`{field.name}` (={value}) must be one of {', '.join(choices)}.")
    if rule is not None and not rule.holds(value):
        raise InputError(f"`{field.name}` (={value}) {rule.words}.")


def describe() -> dict[str, str]:
    """What every option means.

    Returns:
        Option name to one sentence, in the order of the command line.

    Example:
        >>> describe()["batch"]
        'Images a step.'
    """
    return {field.name: field.metadata["help"] for field in dataclasses.fields(Options)}
