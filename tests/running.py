"""Python in a process of its own, as a reader starts it: examples, programs on many devices, whole runs.

Most of what such a process does is compiling, and much of that the same in all of them (how random numbers are drawn,
a training step), so they share the programs that the session keeps.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".pytest_cache" / "jax"

# A program that another process is just writing, or was killed while it wrote, cannot be read, and is compiled instead.
HALF_WRITTEN = "Error reading persistent compilation cache"
STRICT = ("-W", "error", "-W", f"ignore:{HALF_WRITTEN}")

# For what does not depend on how LLVM writes the machine code: who exchanges what, which rule is called, whether two
# runs end alike. It takes two thirds off the time to compile; the rules themselves are tested as users get them.
QUICK: dict[str, int | bool] = {"xla_backend_optimization_level": 0}
if jax.__version_info__ < (0, 11):  # later ones have no other way to write a fusion
    QUICK["xla_cpu_use_fusion_emitters"] = False
QUICK_FLAGS = " ".join(f"--{name}={str(value).lower()}" for name, value in QUICK.items())


def environment(*folders: Path, devices: int = 1, quick: bool = False, **more: str) -> dict[str, str]:
    """Variables for a process that finds the package, and `folders`, wherever it runs, and has `devices` on the CPU."""
    path = [str(ROOT), *map(str, folders), os.environ.get("PYTHONPATH", "")]
    flags = [os.environ.get("XLA_FLAGS", ""), QUICK_FLAGS if quick else ""]
    if devices > 1:
        flags.append(f"--xla_force_host_platform_device_count={devices}")
        more["JAX_PLATFORMS"] = "cpu"
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "PYTHONIOENCODING": "utf-8",
        "XLA_FLAGS": " ".join(filter(None, flags)),
        "JAX_COMPILATION_CACHE_DIR": str(CACHE),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        **more,
    }


def python(*arguments: str, env: dict[str, str] | None = None, **options: object) -> subprocess.CompletedProcess[str]:
    """What Python did with `arguments` and printed; `options` are those of `subprocess.run`."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env or environment(), check=False, **options)
