"""The rules in a Flax model: one argument for the convolutions, one name for the pools.

The parameters, the forward pass and the rest of the program stay as they are.
"""

import flax.linen as flax_nn
import jax
import jax.numpy as jnp

import jaxcnnbp


class Net(flax_nn.Module):
    """A small network; `manual` chooses who writes its backward pass."""

    manual: bool

    @flax_nn.compact
    def __call__(self, x):
        conv = jaxcnnbp.conv_general_dilated if self.manual else None
        max_pool = jaxcnnbp.max_pool if self.manual else flax_nn.max_pool
        for features in (8, 16):
            x = flax_nn.relu(flax_nn.Conv(features, (3, 3), conv_general_dilated=conv)(x))
            x = max_pool(x, (2, 2), strides=(2, 2))
        return flax_nn.Dense(10)(x.reshape(x.shape[0], -1))


images = jax.random.normal(jax.random.key(0), (4, 16, 16, 1))
labels = jnp.array([3, 1, 4, 1])
params = Net(manual=True).init(jax.random.key(1), images)


def loss(params, manual):
    logits = Net(manual).apply(params, images)
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1))


values, gradients = zip(*(jax.value_and_grad(loss)(params, manual) for manual in (True, False)), strict=True)
print(f"loss: by hand {values[0]:.6f}, by autodiff {values[1]:.6f}")
gaps = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max() / jnp.abs(b).max()), *gradients)
for path, gap in jax.tree.leaves_with_path(gaps):
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    print(f"  {name:<24} largest relative difference {gap:.0e}")
