"""Finite differences of values that are not exact."""

from __future__ import annotations

import numpy as np
import pytest

from jaxcnnbp.audit.finite import derivative

SLOPE = np.cos(1.0)


def stopped_early(t):
    """A sine that is within 1e-5 of being solved where it is asked for, and so changes a tenth too little there."""
    return np.sin(1 + t) - 0.1 * SLOPE * np.clip(t, -1e-5, 1e-5)


@pytest.mark.parametrize(("claimed", "found"), [(SLOPE, SLOPE), (1.05 * SLOPE, 0.9 * SLOPE), (np.nan, 0.9 * SLOPE)])
def test_longer_steps_may_confirm_what_is_claimed(claimed, found):
    assert derivative(stopped_early, 1.0, 2.0**-53, 1.0, claimed).value == pytest.approx(found, rel=2e-3)
