"""Everything a training run depends on, as one frozen value; the command line is made from it."""

from __future__ import annotations

import dataclasses

from jaxcnnbp.train.fields import AT_LEAST_ONE, COUNT, FRACTION, NOT_NEGATIVE, POSITIVE, SEED, check_fields, option

__all__ = ["LEARNING_RATES", "Options", "describe"]

LEARNING_RATES = {"sgd": 0.1, "momentum": 0.02, "adam": 5e-3, "adamw": 5e-3}


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
        jaxcnnbp.errors.InputError: `epochs` (=0) must be a whole number, at least 1.
    """

    model: str | None = option(None, "Shipped model; by default the one made for the size of the images.")
    data: str = option("digits", "'digits' (of scikit-learn), a file .npz, a folder, or a data set's name on OpenML.")
    data_dir: str | None = option(
        None, "Folder of MNIST-format files, or of pictures in a folder a class; instead of --data."
    )
    classes: int = option(10, "Number of classes of MNIST-format files and of .npz.", AT_LEAST_ONE)
    image_size: int | None = option(
        None, "Side that pictures are resized to; default: they must be alike.", AT_LEAST_ONE
    )
    corrupt: str = option("stop", "What an unreadable picture does.", choices=("stop", "skip"))
    validation: float = option(
        0.0, "Share of the training images that the best epoch is chosen by instead of trained on.", FRACTION
    )
    patience: int = option(
        0, "Epochs without a better validation error after which the run ends; 0 never ends it.", COUNT
    )
    epochs: int = option(20, "Passes over the training images.", AT_LEAST_ONE)
    batch: int = option(32, "Images a step.", AT_LEAST_ONE)
    optimizer: str = option("adam", "Update rule.", choices=tuple(LEARNING_RATES))
    learning_rate: float | None = option(None, "Peak rate; default by optimizer.", POSITIVE)
    momentum: float = option(0.9, "Momentum; beta1 of adam.", FRACTION)
    beta2: float = option(0.999, "Decay of adam's second moment.", FRACTION)
    weight_decay: float = option(0.0, "Decay of the kernels; decoupled from the gradient in adamw only.", NOT_NEGATIVE)
    schedule: str = option(
        "cosine",
        "How the rate goes from its peak to its end.",
        choices=("constant", "linear", "cosine", "onecycle"),
    )
    warmup: float | None = option(None, "Share of the steps that rise to the peak; default 0, onecycle 0.3.", FRACTION)
    final_rate: float = option(1e-3, "Rate at the end, as a share of the peak.", FRACTION)
    loss: str | None = option(None, "Default: the model's own.", choices=("squared_error", "cross_entropy"))
    label_smoothing: float = option(0.0, "Share of every target spread over all classes.", FRACTION)
    augment: str = option("none", "Random change of every training image.", choices=("none", "shift", "affine"))
    shift: float = option(2.0, "Largest shift in pixels; whole ones with --augment shift.", NOT_NEGATIVE)
    rotate: float = option(10.0, "Largest rotation in degrees (affine).", NOT_NEGATIVE)
    scale: float = option(0.1, "Largest log of the magnification along each axis (affine).", NOT_NEGATIVE)
    shear: float = option(0.1, "Largest shear, pixels a row (affine).", NOT_NEGATIVE)
    standardize: bool = option(False, "Shift and scale pixels to mean 0, deviation 1; otherwise 0 .. 1.")
    ema: float = option(0.0, "Decay of the running average of the weights that is evaluated; 0 is none.", FRACTION)
    seed: int = option(0, "Seed of the weights, the order and the augmentation.", SEED)
    dtype: str = option(
        "float32",
        "Type of activations and deltas; weights are kept in float32 or wider.",
        choices=("float32", "bfloat16", "float16", "float64"),
    )
    gradients: str = option("manual", "Backward rules: this package's, or JAX's.", choices=("manual", "autodiff"))

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def peak_rate(self) -> float:
        """The learning rate that is meant: the given one, or the optimizer's default."""
        return LEARNING_RATES[self.optimizer] if self.learning_rate is None else self.learning_rate


def describe() -> dict[str, str]:
    """What every option means.

    Returns:
        Option name to one sentence, in the order of the command line.

    Example:
        >>> describe()["batch"]
        'Images a step.'
    """
    return {field.name: field.metadata["help"] for field in dataclasses.fields(Options)}
