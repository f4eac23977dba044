"""Every public name has a docstring with all its sections; that the examples run, `tests/packaging` sees to."""

import inspect

import jax
import pytest

import jaxcnnbp
from jaxcnnbp import nn

FUNCTIONS = sorted(
    name for name, value in vars(jaxcnnbp).items() if inspect.isfunction(value) and not name.startswith("_")
)
LAYERS = sorted(name for name, value in vars(nn).items() if inspect.isclass(value) and hasattr(value, "backward"))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_documented(name):
    function = getattr(jaxcnnbp, name)
    text, takes_any = inspect.getdoc(function) or "", bool(inspect.signature(function).parameters)
    by_reference = "are those of" in text
    for section in (*(("Args", "Raises") if takes_any else ()), "Returns", "Example", "Source"):
        assert section in text or (by_reference and section != "Source"), f"{name} says nothing of {section}"
    example = text.split("Example")[1]
    assert ">>>" in example
    assert f"{name}(" in example


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_documented(name):
    text = inspect.getdoc(getattr(nn, name)) or ""
    if name != "Layer":
        assert "Example" in text
        assert "Source" in text


def test_everything_public_is_looked_at():
    assert {"correlate", "max_pool", "conv_kernel_grad", "upsample"} <= set(FUNCTIONS)
    assert {"Conv", "Dense", "Sequential", "Subsample"} <= set(LAYERS)


def test_parameters_are_all_described():
    """An argument that the text of its function does not name is not documented."""
    for name in FUNCTIONS:
        function = getattr(jaxcnnbp, name)
        text = inspect.getdoc(function) or ""
        if "are those of" in text or f"those of `jax.lax.{name}`" in text:
            continue
        missing = [p for p in inspect.signature(function).parameters if p not in text]
        assert not missing, f"{name}: {missing}"


@pytest.mark.parametrize("name", ["conv_general_dilated", "conv", "conv_with_general_padding", "conv_transpose"])
def test_parameters_are_those_of_lax(name):
    ours, theirs = (inspect.signature(getattr(home, name)).parameters for home in (jaxcnnbp, jax.lax))
    assert list(ours) == list(theirs)
    assert [p.default for p in ours.values()] == [p.default for p in theirs.values()]
