"""One convolution and its gradients, on numbers small enough for paper.

    y[u]  = sum_t x[u + t] k[t]           forward: correlation, which frameworks call convolution
    dx[n] = sum_t delta[n - t] k[t]       the full convolution: the flipped kernel slides over padded delta
    dk[t] = sum_u x[u + t] delta[u]       every patch times the delta of its output

Each line is computed twice: in plain Python below, and by the rules of the package.
"""

import jax
import jax.numpy as jnp
import numpy as np

import jaxcnnbp

TAPS = [(0, 0), (0, 1), (1, 0), (1, 1)]

X = [[1, 2, 0, 1],
     [3, 1, 2, 0],
     [0, 1, 1, 2],
     [2, 0, 1, 3]]  # fmt: skip
KERNEL = [[1, -1],
          [2, 0]]  # fmt: skip
DELTA = [[1, 0, 2],
         [0, -1, 0],
         [1, 0, 1]]  # dE/dy, as the next layer would send it back  # fmt: skip


def forward(x, kernel):
    """y[u] = sum_t x[u + t] k[t]."""
    return [[sum(x[i + a][j + b] * kernel[a][b] for a, b in TAPS) for j in range(3)] for i in range(3)]


def input_gradient(delta, kernel):
    """dx[n] = sum_t delta[n - t] k[t], with delta zero outside its map."""

    def at(i, j):
        return delta[i][j] if 0 <= i < 3 and 0 <= j < 3 else 0

    return [[sum(at(i - a, j - b) * kernel[a][b] for a, b in TAPS) for j in range(4)] for i in range(4)]


def kernel_gradient(x, delta):
    """dk[t] = sum_u x[u + t] delta[u]."""
    outputs = [(i, j) for i in range(3) for j in range(3)]
    return [[sum(x[i + a][j + b] * delta[i][j] for i, j in outputs) for b in range(2)] for a in range(2)]


def as_maps(rows):
    """One image with one map: (batch, height, width, channels)."""
    return jnp.asarray(rows, jnp.float32)[None, :, :, None]


def as_kernel(rows):
    """One input map, one output map: (height, width, in, out)."""
    return jnp.asarray(rows, jnp.float32)[:, :, None, None]


def compare(title, by_hand, by_rule):
    found = np.asarray(by_rule).reshape(np.shape(by_hand))
    print(title, found.astype(int), sep="\n")
    print(f"largest difference from plain Python: {np.abs(found - by_hand).max():g}\n")


y, pull_back = jax.vjp(jaxcnnbp.correlate, as_maps(X), as_kernel(KERNEL))
dx, dk = pull_back(as_maps(DELTA))

compare("y, the output", forward(X, KERNEL), y)
compare("dx, the delta of the input", input_gradient(DELTA, KERNEL), dx)
compare("dk, the gradient of the kernel", kernel_gradient(X, DELTA), dk)

# The same dx in the words of the second formula: flip the kernel, slide it over every overlap with delta.
flipped = jnp.flip(as_kernel(KERNEL), (0, 1))
full = jaxcnnbp.correlate(as_maps(DELTA), flipped, padding="FULL")
compare("dx again, the full correlation of delta with the flipped kernel", input_gradient(DELTA, KERNEL), full)
