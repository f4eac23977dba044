"""What a page's numbers depend on: versions and the machine."""

from __future__ import annotations

import platform

import jax

from jaxcnnbp.machine import cores, versions


def environment() -> dict[str, str]:
    """Versions of Python and the packages, the system, the device.

    Example:
      >>> sorted(environment())
      ['cores', 'device', 'jax', 'jaxcnnbp', 'jaxlib', 'numpy', 'optax', 'python', 'system']
    """
    device = jax.devices()[0]
    return {
        **versions(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(cores()),
        "device": f"{device.platform} ({device.device_kind})",
    }
