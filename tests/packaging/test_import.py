"""`import jaxcnnbp` brings JAX and NumPy and nothing else, and computes nothing; modules import each other one way."""

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from running import ROOT, python

# The platform does not exist: whatever starts a backend during the import fails.
AFTER_JAX = """
import sys
import jax, jax.numpy
jax.config.update("jax_platforms", "none_at_import")
before = set(sys.modules)
{statement}
print(*sorted({{name.partition(".")[0] for name in set(sys.modules) - before}}))
"""
ALLOWED = {"jaxcnnbp", "jax", "jaxlib", "numpy"}


def after_jax(statement: str) -> CompletedProcess[str]:
    """A process that imports JAX, then runs `statement`, and prints the packages that came with it."""
    return python("-W", "error", "-c", AFTER_JAX.format(statement=statement))


def test_import_brings_nothing_but_jax_and_numpy_and_starts_no_backend() -> None:
    process = after_jax("import jaxcnnbp")
    assert process.returncode == 0, process.stderr
    assert set(process.stdout.split()) - ALLOWED - sys.stdlib_module_names == set()


def test_a_backend_started_or_a_package_brought_would_be_seen() -> None:
    started = "import jaxcnnbp, optax\ntry:\n    jax.numpy.zeros(1)\nexcept RuntimeError as error:\n    print(error)"
    printed = after_jax(started).stdout
    assert "none_at_import" in printed
    assert "optax" in printed.split()


def test_what_a_mode_needs_is_imported_where_it_is_asked_for() -> None:
    """By default all derivatives, also second ones, are by rules without the wiring of forward mode."""
    program = """
import sys, jax, jaxcnnbp
jax.hessian(lambda x: (jaxcnnbp.max_pool(x, (2,)) ** 2).sum())(jax.numpy.ones((1, 3, 1)))
assert "jaxcnnbp.both_ways" not in sys.modules
assert "jaxcnnbp.audit" not in sys.modules
with jaxcnnbp.mode("oracle"):
    print(jaxcnnbp.relu(-1.0), "jaxcnnbp.audit.oracle" in sys.modules)
"""
    process = python("-W", "error", "-c", program)
    assert (process.stdout, process.stderr) == ("0.0 True\n", "")


def names_imported(tree: ast.AST) -> Iterator[str]:
    """What a module imports, within functions too and by `import_module("name")`, but for what only checkers see."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.If(test=ast.Name("TYPE_CHECKING")):
                yield from (name for other in node.orelse for name in names_imported(ast.Module([other], [])))
                continue
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                yield from (f"{module}.{alias.name}" for alias in node.names)
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(str(name)), *_]):
                yield name
        yield from names_imported(node)


def imports_within(package: Path) -> dict[str, set[str]]:
    """For each module of `package` those of its modules that it names."""
    files = {}
    for file in package.rglob("*.py"):
        place = file.relative_to(package.parent).with_suffix("")
        files[".".join(place.parent.parts if place.name == "__init__" else place.parts)] = file

    def module(name: str) -> str | None:
        """`package.file.function` is in `package.file`."""
        return name if name in files else module(name.rpartition(".")[0]) if "." in name else None

    return {
        importer: {found for name in names_imported(ast.parse(file.read_text())) if (found := module(name))}
        for importer, file in files.items()
    }


def circle_in(imports: dict[str, set[str]]) -> str:
    """Modules that import each other in a circle, the first one again at the end; "" if there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return " <- ".join(error.args[1])
    return ""


def test_no_module_imports_what_imports_it() -> None:
    imports = imports_within(ROOT / "jaxcnnbp")
    assert "jaxcnnbp.taps" in imports["jaxcnnbp.ops.pool.mean"]
    assert circle_in(imports) == ""


@pytest.mark.parametrize(
    "line",
    [
        "import pack.b",
        "from pack import b",
        "from pack.b import name",
        "def late():\n    from pack.b import name",
        "def late():\n    return importlib.import_module('pack.b').name",
        "import pack.a",
    ],
)
def test_a_circle_would_be_seen(line: str, tmp_path: Path) -> None:
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("from pack.a import name")
    (package / "a.py").write_text(line)
    (package / "b.py").write_text("if TYPE_CHECKING:\n    import pack.b\nelse:\n    import pack.a")
    assert "pack.a" in circle_in(imports_within(package))
    (package / "a.py").write_text(f"if TYPE_CHECKING:\n    {line.splitlines()[-1].strip().replace('return ', '')}")
    assert circle_in(imports_within(package)) == ""
