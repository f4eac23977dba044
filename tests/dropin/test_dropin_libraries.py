"""Layers of Flax, Equinox and Haiku, with the functions of this package handed in or swapped in: nothing changes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnnbp
from jaxcnnbp.transform import explain_swaps, manual_backward

pytestmark = pytest.mark.usefixtures("quick", "x64", "libraries_promotion")

X = np.random.default_rng(0).normal(size=(2, 7, 6, 4))
# Sums of a few dozen float64 terms in another order.
CLOSE = dict(rtol=1e-10, atol=1e-10)


@pytest.fixture
def libraries_promotion():
    """Libraries mix float32 parameters, float64 inputs and ranks, and count on JAX to promote them."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def _float64(params):
    return jax.tree.map(lambda p: p.astype(jnp.float64), params)


def _same_before_and_after(function, *arguments, handed=None, swaps=(True,)) -> None:
    """Values and gradients of `function`, of it with the rules swapped in, and with the functions `handed` in."""
    wanted = tuple(range(len(arguments)))

    def both(of):
        return jax.jit(jax.value_and_grad(lambda *a: (jnp.sin(of(*a)) ** 2).sum(), wanted))(*arguments)

    assert bool(explain_swaps(function)(*arguments).swapped) in swaps
    expected = both(function)
    for other in filter(None, (manual_backward(function), handed)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), both(other), expected)


LINEN_CONVOLUTIONS = {
    "strided": dict(features=6, kernel_size=(3, 2), strides=2),
    "grouped": dict(features=8, kernel_size=(3, 3), feature_group_count=4, padding="VALID"),
    "dilated": dict(
        features=3, kernel_size=(2, 3), kernel_dilation=(2, 1), input_dilation=(1, 2), padding=((1, 0), (2, 1))
    ),
    "circular": dict(features=3, kernel_size=(3, 3), padding="CIRCULAR"),
    "causal": dict(features=3, kernel_size=(3,), padding="CAUSAL"),
    "masked": dict(features=3, kernel_size=(3, 3), mask=np.tri(3)[:, :, None, None].repeat(4, 2).repeat(3, 3)),
}


@pytest.mark.parametrize("name", LINEN_CONVOLUTIONS)
def test_flax_linen_conv(name: str):
    linen = pytest.importorskip("flax.linen")
    options = LINEN_CONVOLUTIONS[name] | dict(param_dtype=jnp.float64)
    x = X[:, 0] if name == "causal" else X
    plain = linen.Conv(**options)
    handed = linen.Conv(**options, conv_general_dilated=jaxcnnbp.conv_general_dilated)
    params = jax.jit(plain.init)(jax.random.key(0), x)
    _same_before_and_after(plain.apply, params, x, handed=handed.apply)


@pytest.mark.parametrize("name", ["ConvTranspose", "ConvLocal"])
def test_flax_linen_relatives_of_conv(name: str):
    linen = pytest.importorskip("flax.linen")
    layer = getattr(linen, name)(3, (3, 2), (2, 1), param_dtype=jnp.float64)
    params = jax.jit(layer.init)(jax.random.key(0), X)
    # The patches of the other are a convolution, of integers and floats in some versions; its sum is none.
    _same_before_and_after(layer.apply, params, X, swaps=(True, name == "ConvTranspose"))


POOLS = {
    "strided": dict(window_shape=(2, 2), strides=(2, 2)),
    "overlapping": dict(window_shape=(3, 2), strides=(2, 1), padding="SAME"),
    "padded": dict(window_shape=(3, 3), padding=((1, 1), (0, 2))),
}


@pytest.mark.parametrize("kind", ["max_pool", "min_pool", "avg_pool"])
@pytest.mark.parametrize("name", POOLS)
def test_flax_pools(kind: str, name: str):
    linen = pytest.importorskip("flax.linen.pooling")
    theirs, ours = (lambda x, of=of: getattr(of, kind)(x, **POOLS[name]) for of in (linen, jaxcnnbp))
    _same_before_and_after(theirs, X, handed=ours)


def test_flax_nnx_conv():
    nnx = pytest.importorskip("flax.nnx")

    def build(**more):
        return nnx.Conv(4, 3, (3, 3), strides=2, rngs=nnx.Rngs(0), param_dtype=jnp.float64, **more)

    graph, params = nnx.split(build())
    handed, _ = nnx.split(build(conv_general_dilated=jaxcnnbp.conv_general_dilated))
    theirs, ours = (lambda p, x, graph=graph: nnx.merge(graph, p)(x) for graph in (graph, handed))
    _same_before_and_after(theirs, params, X, handed=ours)


EQUINOX = {
    "Conv2d": dict(in_channels=4, out_channels=6, kernel_size=3, stride=2, padding=1, groups=2),
    "Conv1d": dict(in_channels=4, out_channels=3, kernel_size=3, dilation=2, padding="SAME"),
    "ConvTranspose2d": dict(in_channels=4, out_channels=3, kernel_size=3, stride=2, padding=1, output_padding=1),
    "MaxPool2d": dict(kernel_size=3, stride=2, padding=1),
    "MaxPool1d": dict(kernel_size=3, stride=2, use_ceil=True),
    "AvgPool2d": dict(kernel_size=2, stride=2),
    "AdaptiveMaxPool2d": dict(target_shape=(2, 3)),
}


@pytest.mark.parametrize("name", EQUINOX)
def test_equinox_layers(name: str):
    eqx = pytest.importorskip("equinox")
    is_conv = name.startswith("Conv")
    layer = getattr(eqx.nn, name)(**EQUINOX[name], **(dict(key=jax.random.key(0)) if is_conv else {}))
    arrays, static = eqx.partition(layer, eqx.is_array)
    x = X[0].transpose(2, 0, 1)
    x = x[:, 0] if "1d" in name else x

    def call(arrays, x):
        return eqx.combine(arrays, static)(x)

    _same_before_and_after(call, arrays, x, swaps=(not name.startswith("Adaptive"),))


@pytest.mark.parametrize(
    "name", ["Conv2D", "Conv2DTranspose", "DepthwiseConv2D", "SeparableDepthwiseConv2D", "MaxPool", "AvgPool"]
)
def test_haiku_layers(name: str):
    hk = pytest.importorskip("haiku")
    options = {
        "Conv2D": (6, 3, 2),
        "Conv2DTranspose": (3, 3, 2),
        "DepthwiseConv2D": (2, 3),
        "SeparableDepthwiseConv2D": (2, 3),
        "MaxPool": ((1, 2, 3, 1), (1, 2, 2, 1), "SAME"),
        "AvgPool": ((1, 2, 3, 1), (1, 2, 2, 1), "SAME"),
    }[name]
    layer = getattr(hk, name)

    def network(x):  # a Haiku module is made inside
        return layer(*options)(x)

    model = hk.without_apply_rng(hk.transform(network))
    params = _float64(jax.jit(model.init)(jax.random.key(0), X))
    _same_before_and_after(model.apply, params, X)


@pytest.mark.slow
def test_nnx_modules_that_change_in_place():
    """Running statistics and the counters of random streams go on as without `manual_backward`."""
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            self.conv = nnx.Conv(4, 3, (3, 3), rngs=rngs)
            self.norm, self.drop = nnx.BatchNorm(3, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return self.drop(nnx.max_pool(self.norm(self.conv(x)), (2, 2)))

    def loss(model, x):
        return (model(x) ** 2).mean()

    def steps(function, compiled):
        model, gradient = Net(), nnx.grad(function)
        gradient = nnx.jit(gradient) if compiled else gradient
        gradients = [gradient(model, jnp.asarray(X, jnp.float32)) for _ in range(2)]
        return jax.tree.leaves((gradients, nnx.state(model)))

    for compiled in (False, True):
        for a, b in zip(steps(manual_backward(loss), compiled), steps(loss, compiled), strict=True):
            a, b = (jax.random.key_data(v) if jnp.issubdtype(v.dtype, jax.dtypes.prng_key) else v for v in (a, b))
            np.testing.assert_allclose(a, b, 1e-4, 1e-5)
    model, twin = Net(), Net()
    x = jnp.asarray(X, jnp.float32)
    np.testing.assert_allclose(manual_backward(model)(x), twin(x), 1e-4, 1e-5)
    np.testing.assert_allclose(model.norm.mean[...], twin.norm.mean[...], 1e-4, 1e-5)
    assert model.norm.mean[...].any()


def _nnx_net(nnx):
    class Net(nnx.Module):
        def __init__(self):
            self.conv = nnx.Conv(4, 3, (3, 3), rngs=nnx.Rngs(0))

        def __call__(self, x):
            return (nnx.max_pool(self.conv(x), (2, 2)) ** 2).sum()

    return Net()


def _merged(nnx, model, copy):
    return nnx.merge(*nnx.split(model), copy=copy)


# What only reads an NNX module that was made outside of a transformation: `f(model, x)` under everything.
NNX_READS = {
    "grad": lambda nnx, f, model, x: jax.grad(lambda x: f(model, x))(x),
    "grad by number": lambda nnx, f, model, x: jax.grad(f, 1)(model, x),
    "jit": lambda nnx, f, model, x: jax.jit(lambda x: f(model, x))(x),
    "vmap of grad": lambda nnx, f, model, x: jax.jit(jax.vmap(jax.grad(lambda x: f(model, x))))(x),
    "scan": lambda nnx, f, model, x: jax.lax.scan(lambda s, x: (s + f(model, x), None), 0.0, x)[0],
    "checkpoint": lambda nnx, f, model, x: jax.jit(jax.grad(jax.checkpoint(lambda x: f(model, x))))(x),
    "merged": lambda nnx, f, model, x: jax.grad(lambda x: f(_merged(nnx, model, False), x))(x),
    "merged copy": lambda nnx, f, model, x: jax.grad(lambda x: f(_merged(nnx, model, True), x))(x),
    "frozen beside trained": lambda nnx, f, model, x: nnx.grad(lambda m: f(m, x) * f(model, x))(nnx.clone(model)),
}


@pytest.mark.parametrize("name", NNX_READS)
def test_nnx_modules_that_are_only_read(name: str):
    nnx = pytest.importorskip("flax.nnx")
    model, x = _nnx_net(nnx), jnp.asarray(X, jnp.float32)
    held = manual_backward(lambda model, x: model(x))
    found, wanted = (NNX_READS[name](nnx, f, model, x) for f in (held, lambda model, x: model(x)))
    # The rounding of float32 in sums of a few dozen terms.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-4), found, wanted)


EQUINOX_WRAPPERS = {
    "filter_jit": lambda eqx, mb, net, x: eqx.filter_jit(mb(net))(x),
    "filter_vmap": lambda eqx, mb, net, x: eqx.filter_vmap(mb(net))(x[None]),
    "filter_checkpoint": lambda eqx, mb, net, x: eqx.filter_checkpoint(mb(net))(x),
    "of filter_checkpoint": lambda eqx, mb, net, x: mb(eqx.filter_checkpoint(lambda net, x: net(x)))(net, x),
    "gradient by the module": lambda eqx, mb, net, x: eqx.filter_grad(lambda f: (f(x) ** 2).sum())(mb(net)),
}


@pytest.mark.parametrize("name", EQUINOX_WRAPPERS)
def test_equinox_modules_stay_pytrees(name: str):
    """A function in place of a module hides its arrays, and Equinox warns: warnings are errors here."""
    eqx = pytest.importorskip("equinox")
    net = eqx.nn.Conv2d(4, 3, 3, key=jax.random.key(0))
    x = jnp.asarray(X[0].transpose(2, 0, 1))
    found, wanted = (EQUINOX_WRAPPERS[name](eqx, mb, net, x) for mb in (manual_backward, lambda f: f))
    rows = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
    assert all(np.allclose(a, b, **CLOSE) for a, b in rows if isinstance(b, jax.Array))
