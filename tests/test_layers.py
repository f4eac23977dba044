"""Every layer: its backward by hand is `jax.grad` of its forward; its shapes are those it announces."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from check import assert_same
from marks import first_are_quick

from jaxcnnbp import nn
from jaxcnnbp.nn.layer import glorot_uniform, he_normal

pytestmark = pytest.mark.usefixtures("quick")

TABLE = ((True, False, True), (False, True, True))
IMAGES, LINES, VOLUMES, VECTORS = (2, 6, 6, 2), (2, 8, 2), (1, 4, 4, 3, 2), (3, 5)

LAYERS = [
    (nn.Conv(3, 3), IMAGES),
    (nn.Conv(3, (3, 2), stride=2, padding="SAME", true_convolution=True), IMAGES),
    (nn.Conv(4, 2, dilation=2, groups=2, use_bias=False), IMAGES),
    (nn.Conv(3, 3, connections=TABLE), IMAGES),
    (nn.Conv(3, 3, connections=np.array(TABLE), true_convolution=True), LINES),
    (nn.Conv(2, 2, padding=((1, 0), (0, 1), (2, 0))), VOLUMES),
    (nn.Conv(2, 3, padding=2, padding_mode="circular"), LINES),
    (nn.MaxPool(2), IMAGES),
    (nn.MaxPool(3, stride=2, padding=1, ceil_mode=True), IMAGES),
    (nn.MaxPool((2, 2), stride=1, dilation=2, ties="all"), IMAGES),
    (nn.MaxPool(3, ties="split"), LINES),
    (nn.MaxPool(2), VOLUMES),
    (nn.MeanPool(2), IMAGES),
    (nn.MeanPool(3, stride=2, padding=1, count_include_pad=False, ceil_mode=True), IMAGES),
    (nn.MeanPool((4,)), LINES),
    (nn.Subsample(2), IMAGES),
    (nn.Subsample(3, ceil_mode=True), LINES),
    (nn.CombineMaps(3, 3), IMAGES),
    (nn.CombineMaps(2, 3, padding="SAME", true_convolution=False), LINES),
    (nn.ConvBlock(nn.Conv(3, 3, connections=TABLE, use_bias=False), nn.Gelu(), nn.MaxPool(3, 2, 1)), IMAGES),
    (nn.ConvBlock(nn.Conv(4, 2, groups=2, true_convolution=True), nn.LeakyRelu(0.1), nn.MeanPool(2)), IMAGES),
    (nn.ConvBlock(nn.Conv(2, 3, stride=2)), LINES),
    (nn.ConvBlock(nn.Conv(2, 3, padding="SAME", padding_mode="reflect"), nn.Tanh(), nn.MaxPool(2)), LINES),
    (nn.Dense(4), VECTORS),
    (nn.Dense(4, use_bias=False), VECTORS),
    (nn.Flatten(), IMAGES),
    (nn.Identity(), VECTORS),
    (nn.Logistic(), VECTORS),
    (nn.Tanh(), VECTORS),
    (nn.ScaledTanh(), VECTORS),
    (nn.Relu(), VECTORS),
    (nn.LeakyRelu(0.2), VECTORS),
    (nn.LeakyRelu(-0.2), VECTORS),
    (nn.Gelu(), VECTORS),
    (nn.Gelu(approximate=False), VECTORS),
    (nn.Silu(), VECTORS),
    (nn.Sequential((nn.Conv(3, 3), nn.Relu(), nn.MaxPool(2), nn.Flatten(), nn.Dense(2))), IMAGES),
    (nn.Sequential((nn.Sequential((nn.Conv(2, 3), nn.Tanh())), nn.Sequential((nn.MeanPool(2),)))), IMAGES),
    (nn.Sequential(()), VECTORS),
]
each_layer = pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda value: str(value)[:60])


def started(layer, shape, dtype=jnp.float32):
    """Shapes and dtypes of fresh parameters; to draw them takes longer to compile than the layer."""
    return jax.eval_shape(lambda key: layer.init(key, shape, dtype), jax.random.key(0))


def drawn(layer, shape):
    """Parameters, none of them zero, an input and a delta."""
    leaves, tree = jax.tree.flatten(started(layer, shape, jnp.float64))
    generator = np.random.default_rng(0)
    params = jax.tree.unflatten(tree, [jax.device_put(generator.normal(size=leaf.shape)) for leaf in leaves])
    x = jax.device_put(np.round(generator.normal(size=shape), 1))
    return params, x, jax.device_put(generator.normal(size=layer.output_shape(shape)))


@pytest.mark.parametrize(
    ("layer", "shape"), first_are_quick(len(LAYERS[::3]), LAYERS[::3] + LAYERS[1::3] + LAYERS[2::3])
)
def test_backward_is_the_gradient(layer, shape, x64):
    params, x, delta = drawn(layer, shape)

    @jax.jit
    def by_hand(params, x, delta):
        y, residuals = layer.forward(params, x)
        return y, layer.backward(params, residuals, delta)

    @jax.jit
    def by_jax(params, x, delta):
        y, pullback = jax.vjp(layer.apply, params, x)
        return y, pullback(delta)

    found, wanted = by_hand(params, x, delta), by_jax(params, x, delta)
    assert jax.tree.structure(found[1].gradients) == jax.tree.structure(params)
    assert_same(found, wanted)


@each_layer
def test_shapes(layer, shape):
    params = started(layer, shape)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} <= {jnp.dtype(jnp.float32)}
    assert jax.eval_shape(layer.apply, params, jax.ShapeDtypeStruct(shape, jnp.float32)).shape == layer.output_shape(
        shape
    )
    assert layer.output_shape((0, *shape[1:])) == (0, *layer.output_shape(shape)[1:])


def test_layers_are_frozen_hashable_values():
    for layer, _ in LAYERS:
        assert hash(layer) == hash(dataclasses.replace(layer))
        assert layer == dataclasses.replace(layer)
        assert isinstance(layer, nn.Layer)
        name = dataclasses.fields(layer)[0].name if dataclasses.fields(layer) else "anything"
        with pytest.raises(AttributeError):
            setattr(layer, name, 1)


def test_names_and_shapes_of_parameters():
    model = nn.Sequential(
        (nn.Conv(6, 5), nn.Relu(), nn.Subsample(2), nn.CombineMaps(4, (3, 3)), nn.Flatten(), nn.Dense(10))
    )
    params = started(model, (1, 28, 28, 3))
    assert model.names == ("conv1", "relu1", "subsample1", "combine1", "flatten1", "dense1")
    assert jax.tree.map(jnp.shape, params) == {
        "conv1": {"kernel": (5, 5, 3, 6), "bias": (6,)},
        "subsample1": {"beta": (6,), "bias": (6,)},
        "combine1": {"kernel": (3, 3, 6, 4), "logits": (6, 4), "bias": (4,)},
        "dense1": {"kernel": (10 * 10 * 4, 10), "bias": (10,)},
    }


def test_names_count_by_kind():
    model = nn.Sequential((nn.Conv(2, 3), nn.MaxPool(2), nn.Conv(2, 3), nn.MeanPool(2)))
    assert model.names == ("conv1", "pool1", "conv2", "pool2")


def test_same_key_same_parameters():
    model = nn.Sequential((nn.Conv(2, 3), nn.Conv(2, 3)))
    first, again = (model.init(jax.random.key(1), (1, 9, 9, 2)) for _ in range(2))
    assert_same(first, again)
    other = model.init(jax.random.key(2), (1, 9, 9, 2))
    assert not np.allclose(first["conv1"]["kernel"], other["conv1"]["kernel"])
    assert not np.allclose(first["conv1"]["kernel"], first["conv2"]["kernel"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_parameters_have_the_dtype_asked_for(dtype):
    model = nn.Sequential((nn.Conv(2, 3), nn.Subsample(2), nn.CombineMaps(2, 2), nn.Flatten(), nn.Dense(2)))
    params = started(model, (1, 8, 8, 1), dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    x = jax.ShapeDtypeStruct((1, 8, 8, 1), dtype)
    assert jax.eval_shape(model.apply, params, x).dtype == jnp.dtype(dtype)


def test_spread_of_the_initializers():
    # Uniform in +-b has variance b^2 / 3, here 2 / (20 + 30); normal by He 2 / 20.
    for initializer, variance in ((glorot_uniform, 2 / 50), (he_normal, 2 / 20)):
        drawn = initializer(jax.random.key(0), (100, 100), 20, 30, jnp.float32)
        assert float(jnp.var(drawn)) == pytest.approx(variance, rel=0.05)


def test_subsample_begins_as_the_mean():
    layer, x = nn.Subsample(2), jnp.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_allclose(
        layer.apply(layer.init(jax.random.key(0), x.shape), x), nn.MeanPool(2).apply({}, x), rtol=1e-6
    )


def test_unconnected_taps_have_no_gradient(x64):
    layer = nn.Conv(3, 3, connections=TABLE)
    params, x, delta = drawn(layer, IMAGES)
    _, residuals = layer.forward(params, x)
    gradient = layer.backward(params, residuals, delta).gradients["kernel"]
    np.testing.assert_array_equal(np.asarray(gradient != 0).all((0, 1)), TABLE)
