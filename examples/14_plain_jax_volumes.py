"""Volumes in plain JAX: a 3-D network whose middle is one convolution scanned over its kernels, and recomputed."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnnbp.transform import explain_swaps, manual_backward

jax.config.update("jax_enable_x64", True)  # so that what differs is a rule, not rounding
LAYOUT = ("NDHWC", "DHWIO", "NDHWC")


def conv(x, kernel, stride=1):
    return lax.conv_general_dilated(x, kernel, (stride,) * 3, "SAME", dimension_numbers=LAYOUT)


def max_pool(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 2, 1), (1, 2, 2, 2, 1), "SAME")


def network(params, volumes):
    @jax.checkpoint
    def residual(x, kernel):
        return x + jax.nn.gelu(conv(x, kernel)), None

    x = jax.nn.gelu(conv(volumes, params["stem"], stride=2))
    x, _ = lax.scan(residual, x, params["middle"])
    return max_pool(x).mean((1, 2, 3)) @ params["head"]


keys = jax.random.split(jax.random.key(0), 4)
params = {
    "stem": jax.random.normal(keys[0], (3, 3, 3, 1, 4)) / 5,
    "middle": jax.random.normal(keys[1], (3, 3, 3, 3, 4, 4)) / 10,
    "head": jax.random.normal(keys[2], (4, 2)),
}
volumes = jax.random.normal(keys[3], (2, 8, 8, 8, 1))


def loss(params):
    return jnp.sum(network(params, volumes) ** 2)


print(explain_swaps(loss)(params))
before, after = (jax.jit(jax.grad(function))(params) for function in (loss, manual_backward(loss)))
gaps = jax.tree.map(lambda a, b: jnp.abs(a - b).max() / jnp.abs(b).max(), after, before)
print(f"largest relative difference of {len(jax.tree.leaves(gaps))} gradients: {max(jax.tree.leaves(gaps)):.0e}")
