"""Named sets of options for the results that docs/mnist.md reports; the commands are one word long."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxcnnbp.errors import InputError

__all__ = ["RECIPES", "Recipe", "recipe_options"]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Options that reach a documented result.

    Args:
        summary: what the recipe reaches, on which data.
        options: the options that differ from the defaults.
    """

    summary: str
    options: Mapping[str, Any]


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
        {
            **_MODERN,
            "model": "compact",
            "epochs": 40,
            "learning_rate": 0.004,
            "ema": 0.999,
            "rotate": 12.0,
            "scale": 0.12,
            "shear": 0.15,
        },
    ),
}


def recipe_options(name: str) -> dict[str, Any]:
    """The options of a recipe.

    Args:
        name: a key of `RECIPES`.

    Returns:
        Option name to value; options that are absent keep their defaults.

    Raises:
        InputError: no recipe has the name.

    Example:
        >>> recipe_options("toolbox")["batch"]
        50
    """
    if name not in RECIPES:
        raise InputError(f"`recipe` (={name}) must be one of {', '.join(RECIPES)}.")
    return dict(RECIPES[name].options)
