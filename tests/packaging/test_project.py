"""pyproject.toml says what the sources need, and the command line is there."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

import jaxcnnbp
from jaxcnnbp.cli.main import main

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "jaxcnnbp"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Where the name to import differs from the name to install.
INSTALLED_AS = {"sklearn": "scikit-learn", "PIL": "pillow", "orbax": "orbax-checkpoint"}
# JAX brings NumPy and, with it, the narrow floats.
BROUGHT_BY_JAX = {"numpy", "ml_dtypes"}


def requirements(extra: str | None = None) -> set[str]:
    """Names of what the core, or an extra with the extras it includes, installs."""
    names = set()
    for line in PROJECT["dependencies"] if extra is None else EXTRAS[extra]:
        name, _, inner = re.fullmatch(r"([\w-]+)(\[([\w,]+)\])?.*", line).groups()
        names |= {name} if name != "jaxcnnbp" else set().union(*map(requirements, inner.split(",")))
    return names


def imports(source: Path) -> set[str]:
    """Top-level names that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def test_everything_imported_is_required() -> None:
    optional = requirements() | requirements("train") | requirements("plot") | requirements("bench") | {"pytest"}
    used = set().union(*map(imports, SOURCES)) - sys.stdlib_module_names - BROUGHT_BY_JAX - {"jaxcnnbp"}
    assert {INSTALLED_AS.get(name, name) for name in used} <= optional


def test_extras_named_in_messages_exist() -> None:
    named = set()
    for source in SOURCES:
        for extras in re.findall(r"jaxcnnbp\[([\w,]+)\]", source.read_text(encoding="utf-8")):
            named |= set(extras.split(","))
    assert named <= set(EXTRAS)


def test_all_is_everything() -> None:
    assert requirements("all") == set().union(*map(requirements, set(EXTRAS) - {"all"}))


def test_floors_of_python_and_jax() -> None:
    assert PROJECT["requires-python"] == ">=3.11"
    assert {"jax>=0.10", "jaxlib>=0.10"} <= set(PROJECT["dependencies"])


def test_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_entry_point_is_the_group_of_commands() -> None:
    click = pytest.importorskip("click")
    module, _, name = PROJECT["scripts"]["jaxcnnbp"].partition(":")
    assert isinstance(getattr(__import__(module, fromlist=[name]), name), click.Group)


def test_installed_version_is_that_of_the_source() -> None:
    try:
        installed = importlib.metadata.version("jaxcnnbp")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("run from a source tree that is not installed")
    assert installed == jaxcnnbp.__version__


def test_module_runs_as_command() -> None:
    command = [sys.executable, "-W", "error", "-m", "jaxcnnbp", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert {"compare", "train"} <= set(done.stdout.split())


@pytest.mark.parametrize(
    ("argument", "code", "printed"), [("--version", 0, "jaxcnnbp"), ("trian", 2, "Error: No such command 'trian'.")]
)
def test_version_and_unknown_command(argument: str, code: int, printed: str) -> None:
    done = CliRunner().invoke(main, [argument])
    assert done.exit_code == code
    assert printed in done.output
