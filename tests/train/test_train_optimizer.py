"""Learning-rate schedules against their formulas, and update rules against arithmetic by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnnbp.train import InputError, Options
from jaxcnnbp.train.optimizer import make_optimizer, make_schedule

STEPS = 100


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        ({"schedule": "constant"}, {0: 1.0, 50: 1.0, 100: 1.0}),
        ({"schedule": "linear"}, {0: 1.0, 50: 0.505, 100: 0.01, 200: 0.01}),
        ({"schedule": "cosine"}, {0: 1.0, 50: 0.505, 100: 0.01}),
        ({"schedule": "cosine", "warmup": 0.2}, {0: 0.04, 10: 0.52, 20: 1.0, 60: 0.505, 100: 0.01}),
        ({"schedule": "onecycle"}, {0: 0.04, 15: 0.52, 30: 1.0, 65: 0.505, 100: 0.01}),
        ({"schedule": "constant", "warmup": 0.1}, {0: 0.04, 5: 0.52, 10: 1.0, 99: 1.0}),
    ],
)
def test_schedule(options: dict, rates: dict[int, float]) -> None:
    rate = make_schedule(Options(learning_rate=1.0, final_rate=0.01, **options), STEPS)
    np.testing.assert_allclose([float(rate(step)) for step in rates], list(rates.values()), rtol=1e-5)


def updated(options: Options, gradient: float = 0.5, rounds: int = 1) -> tuple[float, float]:
    """A kernel and a bias of value 2 after some updates with the same gradient."""
    params = {"bias": jnp.full((1,), 2.0), "kernel": jnp.full((1, 1), 2.0)}
    rule = make_optimizer(options, STEPS)
    state = rule.init(params)
    for _ in range(rounds):
        with jax.numpy_dtype_promotion("standard"):
            updates, state = rule.update(
                jax.tree.map(lambda leaf: jnp.full_like(leaf, gradient), params), state, params
            )
        params = jax.tree.map(jnp.add, params, updates)
    return params["kernel"].item(), params["bias"].item()


def test_update_rules() -> None:
    momentum = {"optimizer": "momentum", "schedule": "constant"}
    assert updated(Options(optimizer="sgd", schedule="constant", learning_rate=1.0)) == (1.5, 1.5)
    assert updated(Options(**momentum, learning_rate=1.0, momentum=0.5), rounds=2) == (0.75, 0.75)
    np.testing.assert_allclose(updated(Options(optimizer="adam", learning_rate=0.1)), 1.9, rtol=1e-6)


def test_only_kernels_decay() -> None:
    # sgd adds decay * kernel to the gradient: 2 - (0.5 + 0.1 * 2); adamw takes rate * decay * kernel off.
    np.testing.assert_allclose(
        updated(Options(optimizer="sgd", learning_rate=1.0, weight_decay=0.1)), (1.3, 1.5), rtol=1e-6
    )
    np.testing.assert_allclose(
        updated(Options(optimizer="adamw", learning_rate=0.1, weight_decay=0.5)), (1.8, 1.9), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("epochs", 0, r"`epochs` \(=0\) must be a whole number, at least 1"),
        ("epochs", 1.5, r"`epochs` \(=1.5\) must be a whole number"),
        ("batch", -3, r"`batch` \(=-3\) must be a whole number, at least 1"),
        ("learning_rate", 0.0, r"`learning_rate` \(=0.0\) must be a positive number"),
        ("learning_rate", float("nan"), r"`learning_rate` \(=nan\) must be a positive number"),
        ("learning_rate", float("inf"), r"`learning_rate` \(=inf\) must be a positive number"),
        ("ema", 1.0, r"`ema` \(=1.0\) must lie in 0 <= value < 1"),
        ("weight_decay", -1.0, r"`weight_decay` \(=-1.0\) must be 0 or a positive number"),
        ("seed", -1, r"`seed` \(=-1\) must be a whole number, 0 .. 2\*\*32 - 1"),
        ("shift", None, r"`shift` \(=None\) must be 0 or a positive number"),
        ("momentum", "much", r"`momentum` \(=much\) must lie in 0 <= value < 1"),
        ("batch", True, r"`batch` \(=True\) must be a whole number, at least 1"),
        ("standardize", 1, r"`standardize` \(=1\) must be True or False"),
        ("model", 3, r"`model` \(=3\) must be text, and not empty"),
        ("data", "", r"`data` \(=\) must be text, and not empty"),
        ("optimizer", "lion", r"`optimizer` \(=lion\) must be one of sgd, momentum, adam, adamw"),
    ],
)
def test_options_out_of_range(option: str, value: object, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Options(**{option: value})  # pyright: ignore[reportArgumentType]
