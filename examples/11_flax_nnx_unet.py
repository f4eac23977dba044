"""A U-Net in Flax NNX, with transposed convolutions on the way up.

The model is split into a graph and its parameters, and merged inside the loss: NNX objects are changed in place,
which a traced function must not do to what it closes over.
"""

import flax.nnx as nnx
import jax
import jax.numpy as jnp

from jaxcnnbp.transform import explain_swaps, manual_backward

jax.config.update("jax_enable_x64", True)  # so that what differs is a rule, not rounding


class UNet(nnx.Module):
    """Two levels down and up again, each up step beside the features of its level."""

    def __init__(self, rngs):
        def conv(features_in, features_out):
            return nnx.Conv(features_in, features_out, (3, 3), param_dtype=jnp.float64, rngs=rngs)

        def up(features_in, features_out):
            return nnx.ConvTranspose(features_in, features_out, (2, 2), (2, 2), param_dtype=jnp.float64, rngs=rngs)

        self.top, self.middle, self.bottom = conv(1, 4), conv(4, 8), conv(8, 8)
        self.up_to_middle, self.up_to_top = up(8, 8), up(8, 4)
        self.middle_again, self.top_again = conv(16, 8), conv(8, 1)

    def __call__(self, x):
        top = nnx.relu(self.top(x))
        middle = nnx.relu(self.middle(nnx.max_pool(top, (2, 2), (2, 2))))
        bottom = nnx.relu(self.bottom(nnx.max_pool(middle, (2, 2), (2, 2))))
        middle = jnp.concatenate([middle, self.up_to_middle(bottom)], -1)
        middle = nnx.relu(self.middle_again(middle))
        return self.top_again(jnp.concatenate([top, self.up_to_top(middle)], -1))


graph, params = nnx.split(UNet(nnx.Rngs(0)))
images = jax.random.normal(jax.random.key(0), (2, 12, 12, 1))
masks = (jax.random.normal(jax.random.key(1), images.shape) > 0).astype(images.dtype)


def loss(params):
    logits = nnx.merge(graph, params)(images)
    return jnp.mean(jax.nn.softplus(logits) - masks * logits)


print(explain_swaps(loss)(params))
before, after = (jax.jit(jax.grad(function))(params) for function in (loss, manual_backward(loss)))
gaps = jax.tree.map(lambda a, b: jnp.abs(a - b).max() / jnp.abs(b).max(), after, before)
print(f"largest relative difference of {len(jax.tree.leaves(gaps))} gradients: {max(jax.tree.leaves(gaps)):.0e}")
