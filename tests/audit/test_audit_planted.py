"""A judge is worth what it catches: mistakes planted in `custom_vjp` rules, each found and located.

`check_grads` beside each is the verdict of `jax.test_util.check_grads` on the same function, with its
defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads
from marks import one_in

from jaxcnnbp.audit import GradientMismatch, compare_gradients

CHANNELS_LAST = ("NHWC", "HWIO", "NHWC")


def _random(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


X, KERNEL, BIAS = _random(2, 6, 6, 2), _random(3, 3, 2, 4, seed=1), _random(4, seed=2)
# One random direction, as `check_grads` takes, sees less of one element the more there are.
LARGE = _random(2, 28, 28, 2)
TIED = jnp.asarray(np.random.default_rng(3).integers(0, 3, (2, 6, 6, 2)), jnp.float32)


def conv(x: Any, kernel: Any, stride: int = 1, padding: Any = "SAME", dilation: int = 1, groups: int = 1) -> Any:
    return lax.conv_general_dilated(
        x, kernel, (stride,) * 2, padding, None, (dilation,) * 2, CHANNELS_LAST, feature_group_count=groups
    )


def same(x: Any, kernel: Any) -> Any:
    return conv(x, kernel)


def sums(x: Any, size: int, stride: int, padding: Any) -> Any:
    pairs = padding if isinstance(padding, str) else ((0, 0), *padding, (0, 0))
    return lax.reduce_window(x, np.float32(0), lax.add, (1, size, size, 1), (1, stride, stride, 1), pairs)


def means(x: Any, size: int, stride: int, padding: Any) -> Any:
    return sums(x, size, stride, padding) / sums(jnp.ones_like(x), size, stride, padding)


def maxima(x: Any) -> Any:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def with_rule(forward: Callable, backward: Callable) -> Callable:
    """`forward` with the gradients `backward(args, delta)`."""
    fun = jax.custom_vjp(forward)
    fun.defvjp(lambda *args: (forward(*args), args), backward)
    return fun


def right(forward: Callable, args: Any, delta: Any) -> tuple[Any, ...]:
    return jax.vjp(forward, *args)[1](delta)


def changed(forward: Callable, place: int, change: Callable) -> Callable:
    """`forward` with its right gradients, the one at `place` changed."""

    def backward(args: Any, delta: Any) -> tuple[Any, ...]:
        gradients = list(right(forward, args, delta))
        gradients[place] = change(gradients[place]).astype(gradients[place].dtype)
        return tuple(gradients)

    return with_rule(forward, backward)


def of_another(forward: Callable, other: Callable) -> Callable:
    """`forward` with the gradients of `other`."""
    return with_rule(forward, lambda args, delta: right(other, args, delta))


def strided(x, kernel):
    return conv(x, kernel, stride=2, padding="VALID")


def without_stride(args, delta):
    x, kernel = args
    cropped = x[:, : delta.shape[1] + 2, : delta.shape[2] + 2]
    return right(strided, args, delta)[0], right(lambda k: conv(cropped, k, padding="VALID"), (kernel,), delta)[0]


def every_tie(args, delta):
    (x,) = args
    winners = jnp.repeat(jnp.repeat(maxima(x), 2, 1), 2, 2) == x
    return (jnp.where(winners, jnp.repeat(jnp.repeat(delta, 2, 1), 2, 2), 0),)


def subsample(x, beta, bias):
    return sums(x, 2, 2, "VALID") * beta.reshape(1, 1, 1, -1) + bias.reshape(1, 1, 1, -1)


def without_beta(args, delta):
    x, beta, bias = args
    return right(subsample, (x, jnp.ones_like(beta), bias), delta)[0], *right(subsample, args, delta)[1:]


def biased(x, kernel, bias):
    return conv(x, kernel) + bias.reshape(1, 1, 1, -1)


def product(a, b):
    return jnp.sin(a) * b


def complex_conv(x, kernel):
    return conv(x, kernel, padding="VALID")


CEIL = ((0, 1), (0, 1))
CX = lax.complex(X, _random(2, 6, 6, 2, seed=5))
CK = lax.complex(KERNEL, _random(3, 3, 2, 4, seed=6))


class Planted(NamedTuple):
    """A wrong rule, what the judge must say of it, and whether `check_grads` notices."""

    fun: Callable
    args: tuple[Any, ...]
    wrong: set[str]
    places: set[str] | None = None
    hint: str = ""
    index: tuple[int | None, ...] | None = None
    check_grads: str = "catches"


def _grouped(x, kernel):
    return conv(x, kernel, groups=2)


CASES = {
    "unflipped kernel": Planted(
        of_another(same, lambda x, kernel: conv(x, kernel[::-1, ::-1])),
        (X, KERNEL),
        {"x", "kernel"},
        hint="flipped",
    ),
    "unflipped kernel in dx only": Planted(
        with_rule(same, lambda a, d: (right(same, (a[0], a[1][::-1, ::-1]), d)[0], right(same, a, d)[1])),
        (X, KERNEL),
        {"x"},
    ),
    "padding off by one": Planted(
        of_another(same, lambda x, kernel: conv(x, kernel, padding=((0, 2), (0, 2)))),
        (X, KERNEL),
        {"x", "kernel"},
    ),
    "missing stride": Planted(with_rule(strided, without_stride), (X, KERNEL), {"kernel"}),
    "missing dilation": Planted(
        of_another(lambda x, kernel: conv(x, kernel, dilation=2), same), (X, KERNEL), {"x", "kernel"}
    ),
    "dropped corner": Planted(
        changed(same, 0, lambda g: g.at[0, 0, 0].set(0)),
        (LARGE, KERNEL),
        {"x"},
        {"corner", "padding"},
        index=(0, 0, 0, None),
        check_grads="passes",
    ),
    "kernel gradient 0.1 % too large": Planted(
        changed(same, 1, lambda g: g * 1.001),
        (LARGE, KERNEL),
        {"kernel"},
        hint="1.001 times",
        check_grads="passes",
    ),
    "tie counted twice": Planted(with_rule(maxima, every_tie), (TIED,), {"x"}, check_grads="catches"),
    "beta forgotten": Planted(with_rule(subsample, without_beta), (X, BIAS[:2], BIAS[2:]), {"x"}),
    "axes of a square kernel transposed": Planted(
        changed(same, 1, lambda g: g.swapaxes(0, 1)), (X, KERNEL), {"kernel"}, hint="axes 0 and 1 transposed"
    ),
    "bias gradient averaged": Planted(
        changed(biased, 2, lambda g: g / 72), (X, KERNEL, BIAS), {"bias"}, hint="0.0138889 times"
    ),
    "groups rolled": Planted(
        changed(_grouped, 1, lambda g: jnp.roll(g, 2, -1)),
        (X, KERNEL[:, :, :1]),
        {"kernel"},
        hint="rolled by 2",
    ),
    "gradient of another dtype": Planted(
        changed(same, 0, lambda g: g.astype(jnp.float16)), (X, KERNEL), {"x"}, check_grads="passes"
    ),
    "cotangents swapped": Planted(
        with_rule(product, lambda args, d: right(product, args, d)[::-1]),
        (X, X + 1),
        {"a", "b"},
        hint="gradient of `b`",
    ),
    "delta shifted by a pixel": Planted(
        changed(same, 0, lambda g: jnp.roll(g, 1, 2)), (X, KERNEL), {"x"}, hint="rolled by 1 along axis 2"
    ),
    "last partial window missing": Planted(
        changed(lambda x: means(x, 2, 2, CEIL), 0, lambda g: g.at[:, 4:].set(0)),
        (X[:, :5, :5],),
        {"x"},
        {"edge", "corner", "padding"},
        index=(None, 4, None, None),
    ),
    "mean over the whole window at edges": Planted(
        of_another(lambda x: means(x, 3, 1, "SAME"), lambda x: sums(x, 3, 1, "SAME") / 9),
        (X,),
        {"x"},
        {"interior", "edge", "corner", "padding"},
    ),
    "one NaN": Planted(
        changed(same, 0, lambda g: g.at[1, 2, 3, 0].set(jnp.nan)),
        (X, KERNEL),
        {"x"},
        {"interior"},
        "NaN",
        (1, 2, 3, 0),
    ),
    "one element off by a hundred ulp": Planted(
        changed(same, 1, lambda g: g.at[0, 1, 0, 2].multiply(1 + 1.2e-5)),
        (X, KERNEL),
        {"kernel"},
        {"edge", "padding"},
        index=(0, 1, 0, 2),
        check_grads="passes",
    ),
    "conjugate of a complex gradient": Planted(
        changed(complex_conv, 1, jnp.conj), (CX, CK), {"kernel"}, hint="complex conjugate"
    ),
    "batch mean instead of sum": Planted(changed(same, 1, lambda g: g / 2), (X, KERNEL), {"kernel"}, hint="0.5 times"),
    "sign": Planted(changed(same, 0, jnp.negative), (X, KERNEL), {"x"}, hint="sign turned"),
    "no gradient": Planted(changed(same, 1, jnp.zeros_like), (X, KERNEL), {"kernel"}, hint="no gradient at all"),
}


@pytest.mark.parametrize("name", one_in(3, CASES))
def test_planted_mistake_is_caught_and_located(name):
    case = CASES[name]
    report = compare_gradients(case.fun, *case.args, timing=False, finite_differences=False)
    wrong = {row.name: row for row in report.rows if not row.ok}
    assert set(wrong) == case.wrong
    assert all(row.ok for row in report.outputs)
    row = next(iter(wrong.values()))
    assert case.places is None or set(row.wrong_places) == case.places
    assert any(case.hint in row.hint for row in wrong.values())
    assert case.index is None or all(i in (None, j) for i, j in zip(case.index, row.worst.index, strict=True))
    with pytest.raises(GradientMismatch, match=row.name):
        report.assert_close()


@pytest.mark.parametrize("name", one_in(4, CASES))
def test_check_grads_beside_it(name):
    case = CASES[name]
    try:
        check_grads(case.fun, case.args, order=1, modes=("rev",))
        verdict = "passes"
    except AssertionError:
        verdict = "catches"
    assert verdict == case.check_grads


def test_wrong_forward_is_a_wrong_output():
    report = compare_gradients(
        lambda x, kernel: conv(x, kernel[::-1, ::-1]),
        X,
        KERNEL,
        reference=conv,
        timing=False,
        finite_differences=False,
    )
    assert not report["output"].ok
    assert not report["kernel"].ok
    assert report["kernel"].hint == "the right gradient flipped on its spatial axes"


def test_message_names_leaf_index_values_and_tolerance():
    fun = changed(same, 0, lambda g: g.at[:, 0, 0].set(0))
    report = compare_gradients(fun, X, KERNEL, timing=False)
    with pytest.raises(AssertionError) as caught:
        report.assert_close()
    worst, message = report["x"].worst, str(caught.value)
    assert f"[{','.join(map(str, worst.index))}]" in message
    assert f"oracle {worst.oracle:.4g}" in message
    for part in (
        "`x`: 4 of 144 elements are wrong",
        "manual 0",
        "autodiff",
        "corner, padding",
        "allowed +-",
        "noise",
    ):
        assert part in message
