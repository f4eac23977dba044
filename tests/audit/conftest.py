"""The judge reads numbers, however they were compiled."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _quick(quick: None) -> None:
    """See `quick`."""
