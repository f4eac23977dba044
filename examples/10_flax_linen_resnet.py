"""A residual network in Flax Linen: `manual_backward` around the loss, and nothing else changes."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcnnbp.transform import explain_swaps, manual_backward

jax.config.update("jax_enable_x64", True)  # so that what differs is a rule, not rounding


class Block(nn.Module):
    """relu(x + bn(conv(relu(bn(conv(x)))))), with a strided 1x1 convolution where the shape changes."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x):
        strides = (self.stride, self.stride)
        y = nn.Conv(self.features, (3, 3), strides, use_bias=False)(x)
        y = nn.relu(nn.BatchNorm(use_running_average=False)(y))
        y = nn.Conv(self.features, (3, 3), use_bias=False)(y)
        y = nn.BatchNorm(use_running_average=False)(y)
        shortcut = x if x.shape == y.shape else nn.Conv(self.features, (1, 1), strides, use_bias=False)(x)
        return nn.relu(y + shortcut)


class ResNet(nn.Module):
    """Stem, max pool, three blocks of which the last is recomputed in the backward pass, mean over the image."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (5, 5), (2, 2))(x))
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        x = Block(8, 1)(x)
        x = nn.remat(Block)(16, 2)(x)
        x = nn.avg_pool(x, (2, 2), (2, 2))
        return nn.Dense(10)(x.mean((1, 2)))


images = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
labels = jnp.array([3, 1])
variables = ResNet().init(jax.random.key(1), images)
variables = jax.tree.map(lambda v: v.astype(images.dtype), variables)


def loss(params):
    logits, updates = ResNet().apply(
        {"params": params, "batch_stats": variables["batch_stats"]}, images, mutable="batch_stats"
    )
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean(), updates


print(explain_swaps(loss)(variables["params"]))
before, _ = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
after, _ = jax.jit(jax.grad(manual_backward(loss), has_aux=True))(variables["params"])
gaps = jax.tree.map(lambda a, b: jnp.abs(a - b).max() / jnp.abs(b).max(), after, before)
print(f"largest relative difference of {len(jax.tree.leaves(gaps))} gradients: {max(jax.tree.leaves(gaps)):.0e}")
