"""Where max and mean pooling send their delta: winners, ties, shares, overlaps and partial windows.

    max    y[u] = max_t x[n(u, t)]           dx = delta[u] at the recorded winner, zero elsewhere
    mean   y[u] = sum_t x[n(u, t)] / m[u]    dx = delta[u] / m[u] at each of the m[u] cells

where n(u, t) is the position that window u reads with tap t.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import jaxcnnbp

IMAGE = [[1, 2, 8, 1],
         [3, 4, 5, 6],
         [9, 0, 1, 2],
         [7, 5, 3, 4]]  # fmt: skip


def maps(values):
    """One image, one map."""
    return jnp.asarray(values, jnp.float32)[None, ..., None]


def plain(array):
    return np.asarray(array)[0, ..., 0]


def delta_of(pool, x, delta):
    """What `pool` sends to its input x for the given delta."""
    return plain(jax.vjp(pool, maps(x))[1](maps(delta))[0])


def squares(x):
    """2x2 blocks side by side, each with its maximum."""
    return jaxcnnbp.max_pool(x, (2, 2), (2, 2))


delta = [[10, 20], [30, 40]]
values, winners = jaxcnnbp.max_pool_with_argmax(maps(IMAGE), (2, 2), (2, 2))
print("Max pooling, 2x2 blocks: values, and winners as flat positions in the image")
print(plain(values), plain(winners), sep="\n")
print("delta goes to the winners:", delta_of(squares, IMAGE, delta), sep="\n")
back = jaxcnnbp.max_unpool(maps(delta), winners, (4, 4))
same = np.array_equal(plain(back), delta_of(squares, IMAGE, delta))
print(f"the same as max_unpool(delta, winners): {same}\n")

print("Ties: x = [5 5 2 2 2], windows of three at 0 and at 2; delta = [6 3]")
for ties in ("first", "all", "split"):
    pool = functools.partial(jaxcnnbp.max_pool, window_shape=(3,), strides=(2,), ties=ties)
    print(f"  {ties:<6}", delta_of(pool, [5, 5, 2, 2, 2], [6, 3]))
print("'first' is the document's algorithm (as XLA, PyTorch), 'all' its formula, 'split' what jnp.max does.\n")

print("Overlapping windows of two: x = [1 9 2 3], delta = [1 1 1]: the 9 wins twice and its deltas add up")
print(" ", delta_of(lambda x: jaxcnnbp.max_pool(x, (2,)), [1, 9, 2, 3], [1, 1, 1]), "\n")

print("Mean pooling, 2x2 blocks: every cell takes a quarter, upsample(delta) / 4")
shares = delta_of(lambda x: jaxcnnbp.avg_pool(x, (2, 2), (2, 2)), IMAGE, delta)
print(shares)
print("the same:", np.array_equal(plain(jaxcnnbp.upsample(maps(delta), (2, 2))) / 4, shares), "\n")


def partial_means(x):
    """Blocks of two over an odd length: the last block holds one cell, and m = 1 there."""
    return jaxcnnbp.avg_pool(x, (2,), (2,), ceil_mode=True)


print("Partial windows: 5 cells, blocks of 2, ceil(5 / 2) = 3 outputs; x = [1 3 5 7 9], delta = [2 2 2]")
print("  means", plain(partial_means(maps([1, 3, 5, 7, 9]))))
print("  delta", delta_of(partial_means, [1, 3, 5, 7, 9], [2, 2, 2]))
