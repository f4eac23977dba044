"""The shipped networks, from Bouvrie's layers to LeNet-5, and the table that names them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxcnnbp.nn import (
    CombineMaps,
    Conv,
    Dense,
    Flatten,
    Logistic,
    MaxPool,
    MeanPool,
    Relu,
    ScaledTanh,
    Sequential,
    Subsample,
    softmax_cross_entropy,
    squared_error,
)
from jaxcnnbp.nn.layer import he_normal


def _lenet_table() -> tuple[tuple[bool, ...], ...]:
    """Table I of the LeNet-5 paper: which of the 6 maps feed each of the 16."""
    three = [{j, (j + 1) % 6, (j + 2) % 6} for j in range(6)]
    four = [{(j + i) % 6 for i in range(4)} for j in range(6)]
    split = [{j, j + 1, (j + 3) % 6, (j + 4) % 6} for j in range(3)]
    columns = [*three, *four, *split, set(range(6))]
    return tuple(tuple(row in column for column in columns) for row in range(6))


LENET_TABLE = _lenet_table()
_RELU = Relu()


def lenet5(activation: Any = _RELU, connections: Any = None) -> Sequential:
    """LeNet-5 for 28x28 images: 6@5x5, pool, 16@5x5, pool, 120, 84, 10, with max pooling.

    Args:
        activation: activation layer after every convolution and hidden dense layer.
        connections: table `(6, 16)` of which maps feed which in the second convolution, for instance
            `LENET_TABLE`; None connects all.

    Returns:
        The network; outputs are logits `(batch, 10)`.

    Example:
        >>> lenet5().output_shape((1, 28, 28, 1))
        (1, 10)

    Reference: LeCun, Bottou, Bengio and Haffner, Gradient-Based Learning Applied to Document
    Recognition, Proc. IEEE 86(11), 1998.
    """
    first = Conv(6, 5, padding=2), activation, MaxPool(2)
    second = Conv(16, 5, connections=connections), activation, MaxPool(2)
    return Sequential((*first, *second, Flatten(), Dense(120), activation, Dense(84), activation, Dense(10)))


def lenet5_classic() -> Sequential:
    """LeNet-5 with its trained sub-sampling, its connection table and the scaled tanh of 1998.

    Returns:
        The network; outputs are logits `(batch, 10)` where the paper has distances to drawn digits.

    Example:
        >>> lenet5_classic().output_shape((1, 28, 28, 1))
        (1, 10)

    Reference: as `lenet5`.
    """
    squash = ScaledTanh()
    first = Conv(6, 5, padding=2), squash, Subsample(2), squash
    second = Conv(16, 5, connections=LENET_TABLE), squash, Subsample(2), squash
    return Sequential((*first, *second, Flatten(), Dense(120), squash, Dense(84), squash, Dense(10)))


def bouvrie() -> Sequential:
    """All layers of Bouvrie's notes in one network: convolution, sub-sampling, learned combination.

    Returns:
        The network for 28x28 images; outputs `(batch, 10)` lie in 0 .. 1.

    Example:
        >>> bouvrie().output_shape((1, 28, 28, 1))
        (1, 10)

    Reference: Bouvrie, Notes on Convolutional Neural Networks, 2006.
    """
    squash = ScaledTanh()
    first = Conv(6, 5, true_convolution=True), squash, Subsample(2), squash
    second = CombineMaps(12, 5), squash, Subsample(2), squash
    return Sequential((*first, *second, Flatten(), Dense(10), Logistic()))


def toolbox() -> Sequential:
    """6c-2s-12c-2s of DeepLearnToolbox: logistic units, true convolutions, mean pooling.

    Kernels are drawn from U(-b, b) with b = sqrt(6 / (fan_in + fan_out)), biases are zero.

    Returns:
        The network for 28x28 images; outputs `(batch, 10)` lie in 0 .. 1.

    Example:
        >>> toolbox().output_shape((1, 28, 28, 1))
        (1, 10)

    Reference: Palm, Prediction as a candidate for learning deep hierarchical models of data, 2012;
    DeepLearnToolbox, test_example_CNN.
    """
    first = Conv(6, 5, true_convolution=True), Logistic(), MeanPool(2)
    second = Conv(12, 5, true_convolution=True), Logistic(), MeanPool(2)
    return Sequential((*first, *second, Flatten(), Dense(10), Logistic()))


def digits() -> Sequential:
    """A small network for the 8x8 digits of scikit-learn: 8@3x3, pool, 16@3x3, pool, 10.

    Returns:
        The network; outputs are logits `(batch, 10)`.

    Example:
        >>> digits().output_shape((1, 8, 8, 1))
        (1, 10)
    """
    first = Conv(8, 3, padding="SAME"), Relu(), MaxPool(2)
    second = Conv(16, 3, padding="SAME"), Relu(), MaxPool(2)
    return Sequential((*first, *second, Flatten(), Dense(10)))


def compact(maps: tuple[int, int, int, int, int] = (16, 16, 32, 32, 32)) -> Sequential:
    """Five 3x3 convolutions with relu, two max poolings, a mean over what is left, and one dense layer.

    Args:
        maps: output maps of the five convolutions.

    Returns:
        The network for 28x28 images; outputs are logits `(batch, 10)`. Kernels are drawn as He et al. draw them.

    Example:
        >>> compact().output_shape((1, 28, 28, 1))
        (1, 10)

    Reference: Springenberg et al., Striving for Simplicity, 2015 (small kernels, a mean instead of dense layers).
    """
    first, second, third, fourth, fifth = (Conv(count, 3, initializer=he_normal) for count in maps)
    stages = first, Relu(), second, Relu(), MaxPool(2), third, Relu(), fourth, Relu(), MaxPool(2), fifth, Relu()
    return Sequential((*stages, MeanPool(2), Flatten(), Dense(10)))


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """A shipped network as the command line knows it.

    Args:
        build: makes the network.
        input_shape: shape of one image, `(height, width, channels)`.
        loss: function of outputs and one-hot targets that it is trained with by default.
        description: one line.
    """

    build: Callable[[], Sequential]
    input_shape: tuple[int, ...]
    loss: Callable[..., Any]
    description: str


MODELS: dict[str, ModelSpec] = {
    "digits": ModelSpec(digits, (8, 8, 1), softmax_cross_entropy, "small network for 8x8 digits"),
    "lenet5": ModelSpec(lenet5, (28, 28, 1), softmax_cross_entropy, "LeNet-5 with relu and max pooling"),
    "lenet5-classic": ModelSpec(
        lenet5_classic, (28, 28, 1), softmax_cross_entropy, "LeNet-5 with the layers and the table of 1998"
    ),
    "compact": ModelSpec(compact, (28, 28, 1), softmax_cross_entropy, "five 3x3 convolutions and one dense layer"),
    "bouvrie": ModelSpec(bouvrie, (28, 28, 1), squared_error, "every layer of Bouvrie's notes"),
    "toolbox": ModelSpec(toolbox, (28, 28, 1), squared_error, "6c-2s-12c-2s of DeepLearnToolbox"),
}
