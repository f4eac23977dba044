"""What the forms for CPUs know about the processor."""

from __future__ import annotations

import functools

import numpy as np


@functools.cache
def has_short_vectors() -> bool:
    """Whether vectors have 256 bits: an x86 with AVX2 and without AVX-512.

    XLA's kernel gradients are several times slower there than the width of the vectors explains. Of other processors
    nothing has been measured; for them the answer is no.
    """
    found = set(np.show_config(mode="dicts").get("SIMD Extensions", {}).get("found", ()))
    return bool(found & {"AVX2", "X86_V3"}) and not any(n.startswith(("AVX512", "X86_V4")) for n in found)
