"""Kinks that two arguments share: any element of the subdifferential is right, and what is none of it is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import slow_but
from own_rules import rule_of_many

from jaxcnnbp.audit import compare_gradients

A, B = jnp.asarray([1.0, 2.0, 3.0, -1.0, 0.5]), jnp.asarray([1.0, 0.0, 3.0, 2.0, 0.5])
ONE = jnp.float32(0.5)
SOME = jnp.asarray([1.0, 0.0, 0.0, 0.0, 1.0])


class Kink(NamedTuple):
    """`fun(a, b)`, with a kink where `a == factor * b`, and its slopes in `a` and `factor * b` above it."""

    fun: Callable
    slopes: tuple[float, float]
    factor: float = 1.0

    def rule(self, of_a, of_b):
        """With the parts `of_a` and `of_b` at the kink."""

        def back(args, delta):
            a, b = args
            above, below = self.slopes
            at_kink, is_above = a == self.factor * b, a > self.factor * b
            da = delta * jnp.where(at_kink, of_a, jnp.where(is_above, above, below))
            db = delta * jnp.where(at_kink, of_b, jnp.where(is_above, below, above)) * self.factor
            return da, db if b.ndim else db.sum()

        return rule_of_many(self.fun, back)


MAXIMUM = Kink(lambda a, b: 1.0 * jnp.maximum(a, b), (1.0, 0.0))
APART = Kink(lambda a, b: jnp.abs(a - b), (1.0, -1.0))
COMPUTED = Kink(lambda a, b: jnp.maximum(a, 3 * b), (1.0, 0.0), 3.0)
BOTH_WAYS = Kink(lambda a, b: 2 * jnp.maximum(a, b) - jnp.abs(a - b) / 2, (1.5, 0.5))
CALLED = Kink(
    lambda a, b: jax.pure_callback(lambda a, b: np.maximum(np.asarray(a), np.asarray(b)), a, a, b), (1.0, 0.0)
)
RIGHT = {
    "shared": (MAXIMUM, 0.3, 0.7, A, B),
    "the first": (MAXIMUM, 1.0, 0.0, A, B),
    "one or the other": (MAXIMUM, SOME, 1 - SOME, A, B),
    "distance, 0": (APART, 0.0, 0.0, A, B),
    "distance": (APART, 0.2, -0.2, A, B),
    "computed": (COMPUTED, 1.0, 0.0, 3 * B, B),
    "convex and concave": (BOTH_WAYS, 1.5, 0.5, A, B),
    "with one number": (MAXIMUM, 1.0, 0.0, A, ONE),
    "without oracle": (CALLED, 1.0, 0.0, A, B),
}
WRONG = {
    "both": (MAXIMUM, 1.0, 1.0, A, B),
    "none": (MAXIMUM, 0.0, 0.0, A, B),
    "here both, there none": (MAXIMUM, SOME, SOME, A, B),
    "half and whole": (MAXIMUM, 1.0, 0.5, A, B),
    "distance, sign": (APART, 1.0, 1.0, A, B),
    "distance, one": (APART, 0.0, 1.0, A, B),
    "computed, both": (COMPUTED, 1.0, 1.0, 3 * B, B),
    "convex and concave, both": (BOTH_WAYS, 1.5, 1.5, A, B),
    "with one number, both": (MAXIMUM, 1.0, 1.0, A, ONE),
    "without oracle, both": (CALLED, 1.0, 1.0, A, B),
}
QUICK = ["the first", "distance", "computed", "both", "distance, one", "computed, both", "without oracle, both"]


@pytest.mark.parametrize("name", slow_but(QUICK, RIGHT))
def test_any_part_of_a_shared_kink_is_right(name):
    kink, of_a, of_b, *args = RIGHT[name]
    compare_gradients(kink.rule(of_a, of_b), *args, timing=False).assert_close()


@pytest.mark.parametrize("name", slow_but(QUICK, WRONG))
def test_more_than_all_of_a_shared_kink_is_wrong(name):
    kink, of_a, of_b, *args = WRONG[name]
    assert not compare_gradients(kink.rule(of_a, of_b), *args, timing=False).ok


def test_the_verdict_says_that_it_is_both():
    report = compare_gradients(MAXIMUM.rule(1.0, 1.0), A, B, names=("a", "b"), timing=False)
    assert "along which `a`, `b` change together" in report["a"].verdict()
