"""Nothing is timed here that anybody relies on."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _quick(quick: None) -> None:
    """See `quick`."""
