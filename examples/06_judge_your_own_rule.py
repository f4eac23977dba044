"""Judging a backward rule of your own: which elements are wrong, the three values there, the likely cause.

`compare_gradients(fun, *args, reference=g)` differentiates `fun` by its own rules, `g` by autodiff, and `g`
once more in float64, and asks of every element whether rounding explains the distance. The rule need not have
anything to do with this package: here it is one for `jax.lax`.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.test_util import check_grads

from jaxcnnbp import compare_gradients

LAYOUT = ("NHWC", "HWIO", "NHWC")


def correlate(x, kernel):
    """The reference: differentiable by JAX as it stands."""
    return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=LAYOUT)


def input_gradient(delta, kernel, flip=True):
    """The full correlation of delta with the kernel, flipped and with its channels swapped."""
    turned = jnp.flip(kernel, (0, 1)) if flip else kernel
    pads = [(k - 1, k - 1) for k in kernel.shape[:2]]
    return lax.conv_general_dilated(delta, turned.swapaxes(2, 3), (1, 1), pads, dimension_numbers=LAYOUT)


def kernel_gradient(x, delta):
    """dk[t] = sum_u x[u + t] delta[u]: a correlation with delta as the kernel, the batch as the channels."""
    layout = ("CHWN", "IHWO", "HWNC")
    return lax.conv_general_dilated(x, delta, (1, 1), "VALID", dimension_numbers=layout)


def with_rule(backward):
    """`correlate` with a hand-written backward pass."""
    rule = jax.custom_vjp(correlate)
    rule.defvjp(lambda x, kernel: (correlate(x, kernel), (x, kernel)), backward)
    return rule


def right(kept, delta):
    x, kernel = kept
    return input_gradient(delta, kernel), kernel_gradient(x, delta)


def unflipped(kept, delta):
    x, kernel = kept
    return input_gradient(delta, kernel, flip=False), kernel_gradient(x, delta)


def corner_lost(kept, delta):
    dx, dk = right(kept, delta)
    return dx.at[:, 0, 0].set(0), dk


def slightly_large(kept, delta):
    dx, dk = right(kept, delta)
    return dx, 1.001 * dk


def passes_check_grads(fun, *args):
    try:
        check_grads(fun, args, order=1, modes=("rev",))
    except AssertionError:
        return False
    return True


x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 4))
judge = functools.partial(compare_gradients, reference=correlate, names=("x", "kernel"), timing=False)

for backward in (right, unflipped, corner_lost, slightly_large):
    rule = with_rule(backward)
    report = judge(rule, x, kernel)
    print(f"{backward.__name__}: {'right' if report.ok else 'wrong'}; ", end="")
    print(f"jax.test_util.check_grads {'passes' if passes_check_grads(rule, x, kernel) else 'fails'} it")
    for row in report.rows:
        if not row.ok:
            print(f"  {row.verdict()}")

print("\nIn a test suite: `compare_gradients(...).assert_close()`. The report of the right rule:\n")
report = judge(with_rule(right), x, kernel)
report.assert_close()
print(report)
