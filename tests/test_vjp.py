"""Value and vjp of every rule on every geometry, against a NumPy float64 oracle that shares no code with the rules."""

import pytest
from cases import ACTIVATIONS, BLOCKS, CONVOLUTIONS, LAX_CONVOLUTIONS, LAYERS, POOLS, Case, ids
from check import assert_rule

pytestmark = pytest.mark.usefixtures("quick", "x64")


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=ids(CONVOLUTIONS))
def test_convolution(case: Case):
    assert_rule(case, case.arrays())


@pytest.mark.parametrize("case", LAX_CONVOLUTIONS, ids=ids(LAX_CONVOLUTIONS))
def test_lax_convolution(case: Case):
    assert_rule(case, case.arrays())


@pytest.mark.parametrize("case", POOLS, ids=ids(POOLS))
def test_pool(case: Case):
    assert_rule(case, case.arrays())


@pytest.mark.parametrize("case", ACTIVATIONS + LAYERS, ids=ids(ACTIVATIONS + LAYERS))
def test_layer(case: Case):
    assert_rule(case, case.arrays())


@pytest.mark.parametrize("case", BLOCKS, ids=ids(BLOCKS))
def test_block(case: Case):
    assert_rule(case, case.arrays())
