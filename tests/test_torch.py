"""The same numbers as PyTorch, where it is installed; it is not needed for anything else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnnbp

torch = pytest.importorskip("torch")
functional = torch.nn.functional

pytestmark = pytest.mark.usefixtures("x64")


def first(array):
    """Channels last to channels first."""
    return np.moveaxis(np.asarray(array), -1, 1)


def against(fun, twin, *arrays):
    """Value and gradients of `fun` on channels last and of `twin`, PyTorch's, on its own layout."""
    tensors = [torch.tensor(first(arrays[0]).copy(), requires_grad=True)]
    if len(arrays) == 2:
        tensors.append(torch.tensor(np.moveaxis(np.asarray(arrays[1]), (-1, -2), (0, 1)).copy(), requires_grad=True))
    wanted = twin(*tensors)
    delta = np.random.default_rng(1).normal(size=wanted.shape)
    gradients = torch.autograd.grad(wanted, tensors, torch.tensor(delta))
    found, pullback = jax.vjp(fun, *map(jnp.asarray, arrays))
    found_gradients = pullback(jax.device_put(np.moveaxis(delta, 1, -1)))
    np.testing.assert_allclose(first(found), wanted.detach().numpy(), 1e-11, 1e-11)
    np.testing.assert_allclose(first(found_gradients[0]), gradients[0].numpy(), 1e-11, 1e-11)
    if len(arrays) == 2:
        kernel = np.moveaxis(np.asarray(found_gradients[1]), (-1, -2), (0, 1))
        np.testing.assert_allclose(kernel, gradients[1].numpy(), 1e-11, 1e-11)


def drawn(*shape, rounded=False):
    values = np.random.default_rng(0).normal(size=shape)
    return np.round(values) if rounded else values


@pytest.mark.parametrize(
    ("x", "kernel", "options"),
    [
        ((2, 9, 3), (3, 3, 4), dict(stride=2, padding=1)),
        ((2, 7, 8, 4), (3, 2, 2, 6), dict(stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2)),
        ((1, 5, 4, 6, 2), (2, 3, 2, 2, 2), dict(padding=1, stride=2)),
    ],
    ids=["1d", "2d", "3d"],
)
def test_convolution(x, kernel, options):
    twin = getattr(functional, f"conv{len(x) - 2}d")
    against(
        lambda x, k: jaxcnnbp.correlate(x, k, **options), lambda x, k: twin(x, k, **options), drawn(*x), drawn(*kernel)
    )


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(
    ("size", "stride", "padding", "dilation"), [(2, 2, 0, 1), (3, 2, 1, 1), (3, 1, 1, 2), (2, 3, 1, 1)]
)
@pytest.mark.parametrize("special", [0.0, np.nan, -np.inf])
def test_max_pool(size, stride, padding, dilation, ceil_mode, special):
    x = drawn(2, 7, 9, 2, rounded=True)
    x[np.random.default_rng(2).random(x.shape) < 0.2] = special
    geometry = dict(padding=padding, dilation=dilation, ceil_mode=ceil_mode)

    def pool(x):
        size_2d, strides = (size, size), (stride, stride)
        return jaxcnnbp.max_pool(x, size_2d, strides, padding, window_dilation=dilation, ceil_mode=ceil_mode)

    against(pool, lambda x: functional.max_pool2d(x, size, stride, **geometry), x)
    _, indices = functional.max_pool2d(torch.tensor(first(x).copy()), size, stride, return_indices=True, **geometry)
    _, argmax = jaxcnnbp.max_pool_with_argmax(
        jnp.asarray(x), (size, size), (stride, stride), padding, window_dilation=dilation, ceil_mode=ceil_mode
    )
    np.testing.assert_array_equal(first(argmax), indices.numpy())


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("count_include_pad", [False, True])
@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (2, 3, 1)])
def test_avg_pool(size, stride, padding, count_include_pad, ceil_mode):
    def pool(x):
        return jaxcnnbp.avg_pool(x, (size, size), (stride, stride), padding, count_include_pad, ceil_mode=ceil_mode)

    against(
        pool, lambda x: functional.avg_pool2d(x, size, stride, padding, ceil_mode, count_include_pad), drawn(2, 7, 9, 2)
    )


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("logistic", torch.sigmoid),
        ("tanh", torch.tanh),
        ("relu", torch.relu),
        ("leaky_relu", functional.leaky_relu),
        ("gelu", lambda x: functional.gelu(x, approximate="tanh")),
        ("silu", functional.silu),
    ],
)
def test_activation(name, twin):
    against(getattr(jaxcnnbp, name), twin, 3 * drawn(4, 5))


def test_max_unpool():
    x = drawn(2, 6, 4, 3)
    values, argmax = jaxcnnbp.max_pool_with_argmax(jnp.asarray(x), (2, 2), (2, 2))
    unpooled = functional.max_unpool2d(torch.tensor(first(values)), torch.tensor(first(argmax).astype(np.int64)), 2)
    np.testing.assert_array_equal(first(jaxcnnbp.max_unpool(values, argmax, (6, 4))), unpooled.numpy())
