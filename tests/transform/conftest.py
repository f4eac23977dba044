"""The transform puts rules where others were; what the rules are worth is tested elsewhere."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _quick(quick: None) -> None:
    """See `quick`."""
