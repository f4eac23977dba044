"""`import jaxcnnbp` brings JAX and NumPy and nothing else, and computes nothing."""

import sys
from subprocess import CompletedProcess

from running import python

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
    process = after_jax("import jaxcnnbp; jax.numpy.zeros(1)")
    assert process.returncode != 0
    assert "none_at_import" in process.stderr
    assert "optax" in after_jax("import jaxcnnbp.train; import optax").stdout.split()
