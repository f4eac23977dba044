"""A Keras model on JAX: `stateless_call` is a function of its variables, so its loss is wrapped like any other."""

import os

os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported

import jax
import jax.numpy as jnp
import keras

from jaxcnnbp.transform import explain_swaps, manual_backward

jax.config.update("jax_enable_x64", True)  # so that what differs is a rule, not rounding
keras.config.set_floatx("float64")

model = keras.Sequential(
    [
        keras.layers.Input((12, 12, 1)),
        keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
        keras.layers.MaxPooling2D(2),
        keras.layers.SeparableConv2D(8, 3, activation="relu"),
        keras.layers.AveragePooling2D(2),
        keras.layers.Conv2DTranspose(4, 2, strides=2),
        keras.layers.GlobalMaxPooling2D(),
        keras.layers.Dense(10),
    ]
)
images = jax.random.normal(jax.random.key(0), (2, 12, 12, 1))
labels = jnp.array([3, 1])
params = [variable.value for variable in model.trainable_variables]
state = [variable.value for variable in model.non_trainable_variables]


def loss(params):
    logits, _ = model.stateless_call(params, state, images)
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()


print(explain_swaps(loss)(params))
before, after = (jax.jit(jax.grad(function))(params) for function in (loss, manual_backward(loss)))
gaps = jax.tree.map(lambda a, b: jnp.abs(a - b).max() / jnp.abs(b).max(), after, before)
print(f"largest relative difference of {len(jax.tree.leaves(gaps))} gradients: {max(jax.tree.leaves(gaps)):.0e}")
