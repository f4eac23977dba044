"""What figures depend on and a reader must know: the machine, the versions."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
from pathlib import Path

import jax

__all__ = ["cores", "machine", "versions"]

# Whatever else is installed does not change a figure.
_PACKAGES = ("jax", "jaxlib", "numpy", "optax")


def machine() -> dict[str, str | int | float]:
    """Processor, cores, memory in GiB, operating system, and the device that JAX chose.

    Example:
      >>> sorted(machine())
      ['cores', 'cpu', 'device', 'memory_gib', 'os', 'platform']
    """
    return {
        "cpu": _processor(),
        "cores": cores(),
        "memory_gib": _memory(),
        "os": platform.platform(terse=True),
        "platform": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
    }


def versions(*more: str) -> dict[str, str]:
    """Of Python, this package, the packages that figures depend on and `more`; what is not installed is left out.

    This package itself is "unknown" where it is run from a source tree that is not installed.

    Example:
      >>> list(versions())
      ['python', 'jaxcnnbp', 'jax', 'jaxlib', 'numpy', 'optax']
    """
    found = {"python": platform.python_version(), "jaxcnnbp": "unknown"}
    for name in ("jaxcnnbp", *_PACKAGES, *more):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory() -> float:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return 0.0
