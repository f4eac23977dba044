"""The examples in docstrings run and print what they say; that every function has one, `test_docs.py` sees to."""

import doctest
import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from marks import slow_but

import jaxcnnbp
from jaxcnnbp import nn

# They draw pictures, train, or judge, for seconds.
LONG = {
    f"jaxcnnbp.{name}"
    for name in (
        *("explain.walk", "explain.layers", "explain.weights", "ops.conv.tuning", "nn.backprop", "train.augment"),
        *("train.loop", "tune.autotune"),
    )
}


def with_examples(package: ModuleType) -> Iterator[str]:
    """Names of the modules below `package` that have an example in them; `__main__` modules run when imported."""
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        source = Path(importlib.util.find_spec(module.name).origin).read_text(encoding="utf-8")
        if ">>>" in source and not module.name.endswith("__main__"):
            yield module.name


def public(namespace: ModuleType) -> list[tuple[str, object]]:
    """Functions and classes of the package that `namespace` offers."""
    own = ((name, value) for name, value in vars(namespace).items() if not name.startswith("_"))
    return [(name, value) for name, value in own if getattr(value, "__module__", "").startswith("jaxcnnbp.")]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", slow_but(set(with_examples(jaxcnnbp)) - LONG, sorted(with_examples(jaxcnnbp))))
def test_docstring_examples(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0
    assert tried > 0


def test_layers_have_a_docstring() -> None:
    assert [name for name, value in public(nn) if not inspect.getdoc(value)] == []
