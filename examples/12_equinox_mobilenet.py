"""A MobileNet block in Equinox: expand, depthwise, project; one image at a time, mapped over the batch."""

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxcnnbp.transform import explain_swaps, manual_backward

jax.config.update("jax_enable_x64", True)  # so that what differs is a rule, not rounding


class InvertedResidual(eqx.Module):
    """x + project(depthwise(expand(x))), channels first as Equinox has them."""

    expand: eqx.nn.Conv2d
    depthwise: eqx.nn.Conv2d
    project: eqx.nn.Conv2d

    def __init__(self, features, factor, key):
        wide = factor * features
        first, second, third = jax.random.split(key, 3)
        self.expand = eqx.nn.Conv2d(features, wide, 1, key=first)
        self.depthwise = eqx.nn.Conv2d(wide, wide, 3, padding=1, groups=wide, key=second)
        self.project = eqx.nn.Conv2d(wide, features, 1, key=third)

    def __call__(self, x):
        return x + self.project(jax.nn.relu6(self.depthwise(jax.nn.relu6(self.expand(x)))))


class MobileNet(eqx.Module):
    """Stem, a block, max pool, a block, mean pool, classes."""

    layers: list

    def __init__(self, key):
        first, second, third, fourth = jax.random.split(key, 4)
        self.layers = [
            eqx.nn.Conv2d(3, 8, 3, stride=2, padding=1, key=first),
            InvertedResidual(8, 4, second),
            eqx.nn.MaxPool2d(2, 2),
            InvertedResidual(8, 4, third),
            eqx.nn.AvgPool2d(2, 2),
            jnp.ravel,
            eqx.nn.Linear(32, 10, key=fourth),
        ]

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


model = MobileNet(jax.random.key(0))
images = jax.random.normal(jax.random.key(1), (2, 3, 16, 16))
labels = jnp.array([3, 1])


def loss(model):
    scores = jax.nn.log_softmax(jax.vmap(model)(images))
    return -jnp.take_along_axis(scores, labels[:, None], 1).mean()


print(explain_swaps(loss)(model))
before = eqx.filter_jit(eqx.filter_grad(loss))(model)
after = eqx.filter_jit(eqx.filter_grad(manual_backward(loss)))(model)
gaps = jax.tree.map(lambda a, b: jnp.abs(a - b).max() / jnp.abs(b).max(), after, before)
print(f"largest relative difference of {len(jax.tree.leaves(gaps))} gradients: {max(jax.tree.leaves(gaps)):.0e}")
