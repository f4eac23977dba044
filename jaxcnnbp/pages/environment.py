"""What a page's numbers depend on: versions and the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform

import jax


def environment() -> dict[str, str]:
    """Versions of Python and the packages, the system, the device.

    Example:
      >>> sorted(environment())
      ['cores', 'device', 'jax', 'jaxcnnbp', 'jaxlib', 'numpy', 'python', 'system']
    """
    device = jax.devices()[0]
    packages = {name: _version(name) for name in ("jaxcnnbp", "jax", "jaxlib", "numpy")}
    return {
        **packages,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "device": f"{device.platform} ({device.device_kind})",
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "run from a source tree"
