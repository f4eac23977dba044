"""What the site says."""

import pytest
from browsing import browser as browser


@pytest.fixture(scope="module", autouse=True)
def _quick(quick: None) -> None:
    """See `quick`."""
