"""The formulas that the source writes loosely, each beside the slope that the numbers really have.

The slope of E by x[n] is measured: move x[n] a little to both sides and look what E does (in float64).
"""

import jax
import jax.numpy as jnp
import numpy as np

import jaxcnnbp

STEP = 1e-5


def measured(energy, x):
    """dE/dx[n] for every n, by central differences."""
    rows = np.eye(len(x)) * STEP
    return np.array([float(energy(x + row) - energy(x - row)) / (2 * STEP) for row in rows])


def row(values):
    """A list as one map: (batch, position, channel)."""
    return jnp.asarray(values)[None, :, None]


def line(name, values, truth):
    verdict = "right" if np.allclose(values, truth, atol=1e-8) else "wrong"
    print(f"  {name:<34}{np.array2string(np.asarray(values), precision=4, suppress_small=True):<44}{verdict}")


def delta_of_convolutions():
    """Slip 1: two formulas for the delta of a convolution, each right for another forward."""
    x, w, d = np.array([1.0, 4.0, 2.0, 3.0]), np.array([1.0, 2.0, 5.0]), np.array([1.0, 3.0])
    kernel = jnp.asarray(w)[:, None, None]
    # d[n - i + 1] w[i], counted from 1 as in the document, is np.convolve, which flips its second argument.
    shifted = np.convolve(d, w)
    flipped = np.convolve(d, w[::-1])
    for forward in (jaxcnnbp.correlate, jaxcnnbp.convolve):
        truth = measured(lambda v, forward=forward: jnp.vdot(forward(row(v), kernel).ravel(), d), x)
        print(f"forward {forward.__name__}, measured".ljust(36), truth.round(4), sep="")
        line("sum_i d[n - i + 1] w[i]", shifted, truth)
        line("d * flip(w)", flipped, truth)
        _, pull_back = jax.vjp(lambda v, forward=forward: forward(row(v), kernel), jnp.asarray(x))
        line("jaxcnnbp", pull_back(row(d))[0], truth)


def share_of_a_mean():
    """Slip 2: the prose copies the value into the block, the derivative divides it by m."""
    x, d = np.array([1.0, 5.0, 2.0, 4.0]), np.array([6.0, 2.0])
    truth = measured(lambda v: jnp.vdot(jaxcnnbp.avg_pool(row(v), (2,), (2,)).ravel(), d), x)
    print("\nmean pooling by 2, measured".ljust(37), truth.round(4), sep="")
    copied = jaxcnnbp.upsample(row(d), (2,)).ravel()
    line("value copied", copied, truth)
    line("value / m", copied / 2, truth)


def bracket_of_the_slope():
    """Slip 3: delta = f'(u o up(delta)) has a bracket misplaced; right is f'(u) o up(delta)."""
    u, d = np.array([-1.0, 0.5, 2.0, 0.0]), np.array([6.0, 2.0])

    def slope(v):
        return jaxcnnbp.logistic(v) * (1 - jaxcnnbp.logistic(v))

    def energy(v):
        return jnp.vdot(jaxcnnbp.avg_pool(jaxcnnbp.logistic(row(v)), (2,), (2,)).ravel(), d)

    truth = measured(energy, u)
    up = jaxcnnbp.upsample(row(d / 2), (2,)).ravel()
    print("\nlogistic, then mean pooling".ljust(37), truth.round(4), sep="")
    line("f'(u o up(delta))", slope(u * up), truth)
    line("f'(u) o up(delta)", slope(jnp.asarray(u)) * up, truth)


with jax.enable_x64(True):
    delta_of_convolutions()
    share_of_a_mean()
    bracket_of_the_slope()
