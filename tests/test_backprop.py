"""`nn.backprop`, the document's algorithm, agrees with `jax.grad` in every gradient and every delta."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from check import assert_same
from marks import slow_but

import jaxcnnbp
from jaxcnnbp import nn
from jaxcnnbp.nn.models import LENET_TABLE, MODELS

# Every kind of layer and both losses.
SMALL = nn.Sequential(
    (
        nn.Conv(4, 3, true_convolution=True),
        nn.ScaledTanh(),
        nn.Subsample(2),
        nn.Logistic(),
        nn.CombineMaps(3, 2),
        nn.Gelu(),
        nn.MaxPool(2, stride=1),
        nn.Conv(6, 1, groups=3),
        nn.LeakyRelu(),
        nn.MeanPool(2, ceil_mode=True),
        nn.Flatten(),
        nn.Dense(5),
        nn.Silu(),
        nn.Dense(3),
    )
)
pytestmark = pytest.mark.usefixtures("quick")

LOSSES = [nn.squared_error, nn.softmax_cross_entropy]


def data(shape, classes, dtype="float64"):
    generator = np.random.default_rng(0)
    labels = jax.device_put(generator.integers(0, classes, shape[0]))
    return jax.device_put(generator.normal(size=shape).astype(dtype)), labels


def drawn(model, input_shape, dtype="float32"):
    """Parameters of the size that layers begin with; `init` would compile a program for every shape."""
    shapes = jax.eval_shape(lambda key: model.init(key, input_shape), jax.random.key(0))
    generator = np.random.default_rng(1)

    def leaf(like):
        fan_in = max(1, math.prod(like.shape[:-1]))
        return jax.device_put((generator.normal(size=like.shape) / np.sqrt(fan_in)).astype(dtype))

    return jax.tree.map(leaf, shapes)


@functools.cache
def by_backprop(loss):
    """Parameters, inputs, labels, and the whole algorithm on them, in float64."""
    inputs, labels = data((3, 12, 12, 2), 3)
    params = drawn(SMALL, inputs.shape, "float64")
    found = jax.jit(lambda p, x: nn.backprop(SMALL, p, x, labels, loss))(params, inputs)
    return params, inputs, labels, found


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients(loss, x64):
    params, inputs, labels, found = by_backprop(loss)

    def with_outputs(params, inputs):
        outputs = SMALL.apply(params, inputs)
        return loss(outputs, labels), outputs

    by_jax = jax.jit(jax.value_and_grad(with_outputs, argnums=(0, 1), has_aux=True))
    (value, outputs), (gradients, at_input) = by_jax(params, inputs)
    assert_same((found.loss, found.gradients, found.deltas["input"]), (value, gradients, at_input))
    assert_same(found.outputs, outputs)
    assert found.gradients.keys() == params.keys()


@pytest.mark.parametrize("loss", LOSSES)
def test_deltas(loss, x64):
    """The delta of a layer is the gradient by something added to its output."""
    params, inputs, labels, found = by_backprop(loss)

    def with_additions(additions):
        x = inputs + additions["input"]
        for name, layer in SMALL.named_layers():
            x = layer.apply(params.get(name, {}), x) + additions[name]
        return loss(x, labels)

    nothing = jax.tree.map(lambda delta: np.zeros(delta.shape, delta.dtype), found.deltas)
    wanted = jax.jit(jax.grad(with_additions))(nothing)
    assert_same(found.deltas, wanted)
    assert found.deltas.keys() == {"input", *SMALL.names}


@pytest.mark.parametrize("loss", LOSSES)
def test_one_hot_targets_are_class_numbers(loss):
    outputs, labels = data((4, 3), 3, "float32")
    by_number = jax.value_and_grad(loss)(outputs, labels)
    assert_same(by_number, jax.value_and_grad(loss)(outputs, jax.nn.one_hot(labels, 3)), 1e-6)


def test_any_loss():
    model, (inputs, labels) = nn.Sequential((nn.Dense(3),)), data((2, 5), 3, "float32")

    def cubes(outputs, targets):
        return jnp.sum(outputs[jnp.arange(2), targets] ** 3)

    found = nn.backprop(model, model.init(jax.random.key(0), inputs.shape), inputs, labels, cubes)
    assert_same(found.deltas["dense1"], jax.grad(cubes)(found.outputs, labels))


def test_in_the_order_of_the_layers():
    model, (inputs, labels) = nn.Sequential((nn.Dense(4), nn.Relu(), nn.Dense(3))), data((2, 5), 3, "float32")
    params = model.init(jax.random.key(0), inputs.shape)
    found = nn.backprop(model, params, inputs, labels, nn.squared_error)
    assert list(found.deltas) == ["input", *model.names]
    assert list(found.gradients) == list(params)


@pytest.mark.parametrize("name", slow_but(["lenet5", "bouvrie"], MODELS))
def test_shipped_models(name):
    spec = MODELS[name]
    model, (inputs, labels) = spec.build(), data((2, *spec.input_shape), 10, "float32")
    params = drawn(model, inputs.shape)
    found = jax.jit(lambda p: nn.backprop(model, p, inputs, labels, spec.loss))(params)
    with jaxcnnbp.mode("autodiff"):
        wanted = jax.jit(jax.value_and_grad(lambda p: spec.loss(model.apply(p, inputs), labels)))(params)
    # float32: the largest sums are of a few thousand terms.
    assert_same((found.loss, found.gradients), wanted, 1e-4)


def test_no_gradient_of_an_empty_batch():
    inputs, labels = data((0, 12, 12, 2), 3, "float32")
    params = drawn(SMALL, (1, 12, 12, 2))
    found = jax.jit(lambda p: nn.backprop(SMALL, p, inputs, labels, nn.softmax_cross_entropy))(params)
    assert float(found.loss) == 0
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(found.gradients))


def test_a_step_downhill():
    inputs, labels = data((8, 12, 12, 2), 3, "float32")
    params = drawn(SMALL, inputs.shape)
    step = jax.jit(lambda p: nn.backprop(SMALL, p, inputs, labels, nn.softmax_cross_entropy))
    before = step(params)
    after = step(jax.tree.map(lambda p, g: np.asarray(p) - np.float32(0.05) * np.asarray(g), params, before.gradients))
    assert after.loss < before.loss


def test_table_of_the_paper():
    """Table I of LeCun et al. (1998): 60 connections, each output map fed by 3, 4 or 6 maps."""
    table = np.array(LENET_TABLE)
    assert table.shape == (6, 16)
    assert table.sum(0).tolist() == [3] * 6 + [4] * 9 + [6]
    assert table.sum(1).tolist() == [10] * 6
