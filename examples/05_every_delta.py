"""The whole algorithm: forward, then layer by layer backwards, with the delta of every layer kept.

    delta of the last layer     f'(u) o (y - t)
    delta of a layer before     what the rule of the next layer sends back
    gradients                   from a layer's delta and what it kept on the way forward

The delta named `conv1` is dE/d(output of conv1): where conv1 is followed by an activation, its output is the
weighted sum u, so this is exactly the delta of that layer in the notes.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnnbp import nn

model = nn.Sequential((
    nn.Conv(4, 3, true_convolution=True), nn.Logistic(), nn.MeanPool(2),
    nn.Conv(6, 3, true_convolution=True), nn.Logistic(),
    nn.Flatten(), nn.Dense(3), nn.Logistic(),
))  # fmt: skip
images = jax.random.uniform(jax.random.key(0), (5, 10, 10, 1))
targets = jnp.array([0, 1, 2, 0, 1])
params = model.init(jax.random.key(1), images.shape)

found = nn.backprop(model, params, images, targets, nn.squared_error)

print(f"loss {found.loss:.4f}\n")
print(f"{'layer':<11}{'delta of its output':<22}{'size (rms)':>11}   gradients")
for name, delta in reversed(found.deltas.items()):
    of_layer = found.gradients.get(name, {})
    sizes = ", ".join(f"{key} {jnp.sqrt(jnp.mean(g**2)):.1e}" for key, g in of_layer.items())
    print(f"{name:<11}{delta.shape!s:<22}{jnp.sqrt(jnp.mean(delta**2)):>11.1e}   {sizes}")

print("\nThe delta of the first map of conv2, first image, x 10,000:")
print(np.array2string(np.asarray(found.deltas["conv2"][0, :, :, 0]) * 1e4, precision=2, suppress_small=True))


def loss(params):
    return nn.squared_error(model.apply(params, images), targets)


gaps = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), found.gradients, jax.grad(loss)(params))
print(f"\nlargest difference from jax.grad of the same model: {max(jax.tree.leaves(gaps)):.0e}")
