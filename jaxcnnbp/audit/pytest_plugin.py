"""A pytest fixture that fails a test whose gradients are wrong.

In the `conftest.py` of the root folder: `pytest_plugins = ["jaxcnnbp.audit.pytest_plugin"]`. It is no entry point, for
it imports JAX, which must not be done before a `conftest.py` has set JAX's environment variables.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jaxcnnbp.audit import GradientReport, compare_gradients


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--gradients=FOLDER`."""
    words = "folder for a page of every report of the fixture `gradients`"
    parser.getgroup("jaxcnnbp").addoption("--gradients", metavar="FOLDER", help=words)


@pytest.fixture
def gradients(request: pytest.FixtureRequest) -> Callable[..., GradientReport]:
    """`compare_gradients`, which fails unless `report.ok`; without timing, unless that is asked for."""
    numbers, name = itertools.count(1), re.sub(r"[^\w.-]+", "-", request.node.nodeid).strip("-")

    def judge(fun: Callable[..., Any], *args: Any, **options: Any) -> GradientReport:
        report = compare_gradients(fun, *args, **{"timing": False, **options})
        if (folder := request.config.getoption("--gradients")) is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
            report.save_html(Path(folder) / f"{name}-{next(numbers)}.html", title=request.node.nodeid)
        report.assert_close()
        return report

    return judge
