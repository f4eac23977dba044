"""The examples in docstrings run and print what they say, and every public name has one."""

import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import pytest

import jaxcnnbp
from jaxcnnbp import nn


def modules(package: ModuleType) -> Iterator[str]:
    """Names of all modules below `package`; `__main__` modules run when imported."""
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            yield module.name


def public(namespace: ModuleType) -> list[tuple[str, object]]:
    """Functions and classes of the package that `namespace` offers."""
    own = ((name, value) for name, value in vars(namespace).items() if not name.startswith("_"))
    return [(name, value) for name, value in own if getattr(value, "__module__", "").startswith("jaxcnnbp.")]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", sorted(modules(jaxcnnbp)))
def test_docstring_examples(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0


@pytest.mark.parametrize(("name", "value"), public(jaxcnnbp))
def test_public_functions_have_an_example(name: str, value: object) -> None:
    assert ">>>" in (inspect.getdoc(value) or ""), name


@pytest.mark.parametrize(("name", "value"), public(nn))
def test_layers_are_documented(name: str, value: object) -> None:
    assert inspect.getdoc(value), name
