"""Training by hand-written backward passes, in a plain loop: real digits, Optax, a few epochs.

`jax.value_and_grad` finds the rules of the package by itself: every layer calls functions that bring
their own backward pass. The same loop with a progress bar and schedules is the command `jaxcnnbp train`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcnnbp import nn
from jaxcnnbp.train.data import digits

EPOCHS, BATCH = 8, 32

model = nn.Sequential((
    nn.Conv(8, 3, padding="SAME"), nn.Relu(), nn.MaxPool(2),
    nn.Conv(16, 3, padding="SAME"), nn.Relu(), nn.MaxPool(2),
    nn.Flatten(), nn.Dense(10),
))  # fmt: skip
optimizer = optax.adam(3e-3)


def loss(params, images, labels):
    return nn.softmax_cross_entropy(model.apply(params, images), labels)


@jax.jit
def train_step(params, state, images, labels):
    value, gradients = jax.value_and_grad(loss)(params, images, labels)
    updates, state = optimizer.update(gradients, state)
    return optax.apply_updates(params, updates), state, value


@jax.jit
def error_rate(params, images, labels):
    return jnp.mean(model.apply(params, images).argmax(-1) != labels)


def scaled(split):
    return jnp.asarray(split.images / np.float32(16)), jnp.asarray(split.labels)


data = digits()
images, labels = scaled(data.train)
test_images, test_labels = scaled(data.test)
print(f"{len(labels)} training and {len(test_labels)} test images of 8x8 pixels")

params = model.init(jax.random.key(0), (BATCH, 8, 8, 1))
state = optimizer.init(params)
rng = np.random.default_rng(0)
for epoch in range(1, EPOCHS + 1):
    order = rng.permutation(len(labels))
    losses = []
    for start in range(0, len(order) - BATCH + 1, BATCH):
        chosen = order[start : start + BATCH]
        params, state, value = train_step(params, state, images[chosen], labels[chosen])
        losses.append(value)
    wrong = error_rate(params, test_images, test_labels)
    print(f"epoch {epoch}   training loss {np.mean(losses):.3f}   test error {100 * wrong:5.2f} %")
