"""Convolutions whose maps are not all connected: the table M_j of the document.

The kernel is zero where there is no connection. Zero times a NaN is a NaN, so where numbers are not finite every output
map is computed of its own input maps alone, and every input map's delta of its own output maps alone.
"""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnnbp.ops.conv.geometry import ConvGeometry, Form
from jaxcnnbp.ops.finite import where_finite


def each_from_its_maps(rule: Form, a: Array, kernel: Array, geometry: ConvGeometry, axis: int, outputs: int) -> Array:
    """`rule(a, kernel)`, whose result has the maps on `axis` of the kernel, -1 for the outputs, -2 for the inputs."""
    plain = replace(geometry, connections=None)
    if geometry.connections is None:
        return rule(a, kernel, plain)
    table = np.frombuffer(geometry.connections, np.bool_).reshape(kernel.shape[-2:])

    def one_by_one(a: Array, kernel: Array) -> Array:
        def one(of_map: tuple[Array, Array]) -> Array:
            connected, weights = of_map
            own = jnp.where(connected, a, jnp.zeros((), a.dtype))
            return rule(own, jnp.expand_dims(weights, axis), plain)[..., 0]

        y = lax.map(one, (jnp.asarray(np.moveaxis(table, axis, 0)), jnp.moveaxis(kernel, axis, 0)))
        return jnp.moveaxis(y, 0, -1)

    return where_finite(lambda a, kernel: rule(a, kernel, plain), one_by_one, a, kernel, outputs)
