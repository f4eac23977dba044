"""A training state as named arrays, and a check sum of each that no number of devices changes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnnbp.train.layout import is_key

_SEEDS = (0x9E3779B9, 0x85EBCA6B)  # two sums of 32 bits with multipliers of their own


def flatten(tree: Any) -> dict[str, jax.Array]:
    """A state as a dict from a name like `params/conv1/kernel` to an array; random keys become their numbers.

    Example:
        >>> sorted(flatten({"dense1": {"bias": jnp.zeros(2)}}))
        ['dense1/bias']
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): _numbers(leaf) for path, leaf in leaves}


def unflatten(arrays: dict[str, jax.Array], like: Any) -> Any:
    """Arrays by name as a tree again."""
    leaves, structure = jax.tree_util.tree_flatten(like)
    found = [
        jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf)) if is_key(leaf) else array
        for array, leaf in zip(arrays.values(), leaves, strict=True)
    ]
    return jax.tree_util.tree_unflatten(structure, found)


@jax.jit
def check_sums(arrays: dict[str, jax.Array]) -> tuple[dict[str, jax.Array], jax.Array]:
    """A check sum of every array, and whether all their values are finite.

    With b[i] the bits of element i, of 32 at a time, and m[i] odd numbers mixed from i, the sum of b[i] m[i] modulo
    2^32. One changed element always changes it; whole numbers add up alike in any order, so that it does not
    depend on how an array is cut up.

    Reference: Carter and Wegman, Universal Classes of Hash Functions, 1979 (multilinear hashing).
    """
    finite = [jnp.isfinite(a).all() for a in arrays.values() if jnp.issubdtype(a.dtype, jnp.inexact)]
    return {name: _check_sum(array) for name, array in arrays.items()}, jnp.array(finite).all()


def _check_sum(array: jax.Array) -> jax.Array:
    words = _words(array)
    return jnp.stack([jnp.sum(words * _multipliers(words.shape, seed), dtype=jnp.uint32) for seed in _SEEDS])


def _words(array: jax.Array) -> jax.Array:
    """The bits of an array as uint32, along a further axis where an element has more of them."""
    size = array.dtype.itemsize
    kind = {1: jnp.uint8, 2: jnp.uint16}.get(size, jnp.uint32)
    if array.dtype == jnp.bool_:
        return array.astype(jnp.uint32)
    return jax.lax.bitcast_convert_type(array, kind).astype(jnp.uint32)


def _multipliers(shape: tuple[int, ...], seed: int) -> jax.Array:
    """Odd numbers, one an element, by the finalizer of MurmurHash3; built from the axes, so that it partitions."""
    position, weight = jnp.uint32(seed) + jnp.zeros(shape, jnp.uint32), 1
    for axis in reversed(range(len(shape))):
        position += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * np.uint32(weight % 2**32)
        weight *= shape[axis]
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        position = (position ^ (position >> np.uint32(shift))) * np.uint32(factor)
    return (position ^ (position >> np.uint32(16))) | np.uint32(1)


def _numbers(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if is_key(leaf) else leaf
