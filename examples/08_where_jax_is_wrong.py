"""Places where JAX has no gradient, a surprising answer or a slow one, beside what this package does."""

import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxcnnbp


def line(of, jax_says, ours):
    print(f"{of}\n    JAX       {jax_says}\n    jaxcnnbp  {ours}\n")


def numbers(array):
    return np.array2string(np.asarray(array, np.float32).ravel(), precision=4, suppress_small=True)


def row(*values):
    return jnp.array(values, jnp.float32).reshape(1, -1, 1)


def lax_max(x, size, dilation=1):
    """Max pooling by lax: (batch, position, channel), stride 1."""
    window = (1, size, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, (1, 1, 1), "VALID", None, (1, dilation, 1))


def dilated_max():
    def by_lax():
        try:
            return numbers(jax.grad(lambda x: lax_max(x, 2, 2).sum())(x))
        except NotImplementedError as error:
            return f"NotImplementedError: {str(error).splitlines()[0][:60]}"

    x = row(1, 5, 3, 2, 4)
    ours = jax.grad(lambda x: jaxcnnbp.max_pool(x, (2,), window_dilation=(2,)).sum())(x)
    line("The gradient of max pooling [1 5 3 2 4] by windows of 2 with dilation 2", by_lax(), numbers(ours))


def mean_in_bfloat16():
    x = jnp.ones((1, 32, 32, 1), jnp.bfloat16)
    summed = lax.reduce_window(x, jnp.bfloat16(0), lax.add, (1, 32, 32, 1), (1, 32, 32, 1), "VALID")
    ours = jaxcnnbp.avg_pool(x, (32, 32))
    line("The mean of 32x32 ones in bfloat16", numbers(summed / jnp.bfloat16(1024)), numbers(ours))


def nan_in_a_window():
    x = row(1, np.nan, 3)
    theirs = jax.grad(lambda x: lax_max(x, 3).sum())(x)
    ours = jax.grad(lambda x: jaxcnnbp.max_pool(x, (3,)).sum())(x)
    line("Max of [1 nan 3] is nan; its delta goes to", numbers(theirs), f"{numbers(ours)}: the cell that won")


def window_of_padding():
    x, pads = row(1, 2), ((2, 0),)

    def by_lax(x):
        def add(v):
            return lax.reduce_window(v, 0.0, lax.add, (1, 2, 1), (1, 2, 1), ((0, 0), *pads, (0, 0)))

        return add(x) / add(jnp.ones_like(x))

    ours = jaxcnnbp.avg_pool(x, (2,), (2,), pads, count_include_pad=False)
    line("Means of [1 2] behind a window of padding that is not counted", numbers(by_lax(x)), numbers(ours))


def slow_on_a_cpu():
    x = jax.random.normal(jax.random.key(0), (8, 56, 56, 64))
    squares = {"window_shape": (2, 2), "strides": (2, 2)}

    def gradient():
        return jax.jit(jax.grad(lambda x: (jaxcnnbp.max_pool(x, **squares) ** 2).sum()))

    ours = milliseconds(gradient(), x)
    with jaxcnnbp.mode("autodiff"):
        theirs = milliseconds(gradient(), x)
    print(f"The gradient of max pooling {x.shape} by 2x2: JAX {theirs:.1f} ms, jaxcnnbp {ours:.1f} ms")


def milliseconds(fun, x):
    """The shortest of some runs after one that compiles."""
    fun(x).block_until_ready()
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        fun(x).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 1e3 * min(seconds)


dilated_max()
mean_in_bfloat16()
nan_in_a_window()
window_of_padding()
slow_on_a_cpu()
