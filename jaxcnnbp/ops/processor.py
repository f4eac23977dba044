"""What kind of device serves, as far as tables of measurements tell kinds apart."""

from __future__ import annotations

import functools
import os
import platform
import re
from pathlib import Path

import jax


@functools.cache
def cpu_kind() -> str:
    """`"avx512"` or `"avx2"` by the widest vectors that XLA may use, else the machine's name, such as `"arm64"`."""
    try:
        features = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:  # not Linux
        features = set()
    allowed = re.search(r"--xla_cpu_max_isa=(\w+)", os.environ.get("XLA_FLAGS", ""))
    widest = allowed.group(1).lower() if allowed else ""
    if "avx512f" in features and widest in ("", "avx512", "avx512_vnni", "avx512_bf16", "amx", "amx_fp16"):
        return "avx512"
    return "avx2" if "avx2" in features else platform.machine().lower()


def compiler_options() -> dict[str, str]:
    """The options of XLA under which lax's convolutions were measured to be fastest on this kind of device.

    XLA gives convolutions of float32 over two axes to YNNPACK where it can. With that switched off Eigen's serve. Times
    with and without, lax's own forward / input gradient / kernel gradient, milliseconds, two cores of an AMD EPYC with
    AVX2, JAX 0.10.2:

        3x3, 80 to 112, 8 images of 20x36    9.1 -> 7.1    13 -> 9.0    33 -> 10
        3x3, 384 to 320, 32 of 7x7           37 -> 24      43 -> 27     52 -> 30
        3x3, 64 to 64, 8 of 56x56            26 -> 16      33 -> 19     106 -> 26
        3x3, 128 to 128, 8 of 28x28          19 -> 16      17 -> 16     56 -> 18
        3x3, 40 to 56, one of 96x96          6.3 -> 4.1    5.6 -> 4.5   13 -> 19
        3x3, 3 to 24, 32 of 48x48            2.9 -> 4.6    5.4 -> 7.1   7.1 -> 4.0

    On AVX-512 the same was seen: 1.3 to 2 times. It is an option of the whole program, so nothing here sets it. The
    table of what serves by default was measured without it: gradients of LeNet-5, VGG-11, ResNet-18, MobileNet and
    U-Net through `manual_backward` took 0.93, 1.12, 1.15, 1.46 and 1.04 times as long under it. It is for autodiff, and
    for programs under a tuning that was measured with it.

    Returns:
      For `jax.jit(compiler_options=...)`, or `jax.jit(f).lower(...).compile(compiler_options=...)`; empty where nothing
      was found to pay, as on GPUs.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> jax.jit(jnp.sin, compiler_options=compiler_options())(0.0)
      Array(0., dtype=float32, weak_type=True)

    Source: `IsConvolutionOpSupportedByYnn`, https://github.com/openxla/xla, xla/backends/cpu/ynn_support.cc.
    """
    on_cpu = jax.default_backend() == "cpu"
    return {"xla_cpu_experimental_ynn_fusion_type": ""} if on_cpu and cpu_kind() in ("avx2", "avx512") else {}
