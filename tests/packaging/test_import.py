"""`import jaxcnnbp` brings JAX and NumPy and nothing else, and quickly."""

import subprocess
import sys

BEYOND_JAX = """
import sys, time
import jax, jax.numpy
before, start = set(sys.modules), time.process_time()
import jaxcnnbp
seconds = time.process_time() - start
print(seconds, *sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""
SECONDS = 0.2
ALLOWED = {"jaxcnnbp", "jax", "jaxlib", "numpy"}


def imported() -> tuple[float, set[str]]:
    """Processor seconds of the import, and the packages it brought."""
    command = [sys.executable, "-W", "error", "-c", BEYOND_JAX]
    seconds, *names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(seconds), set(names)


def test_import_brings_nothing_but_jax_and_numpy() -> None:
    _, names = imported()
    assert names - ALLOWED - sys.stdlib_module_names == set()


def test_import_is_quick() -> None:
    # The shortest of three: a busy machine can only make an import slower.
    assert min(imported()[0] for _ in range(3)) < SECONDS
