"""A forward and its gradients in NumPy, as a JAX primitive that computes in float64 on the host.

The primitive has no derivative of its own; `jax.custom_vjp` gives it the gradients of the rule. Evaluated
eagerly, as `compare_gradients` does, it is a plain call of NumPy; inside `jit` it becomes a host callback.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import ShapedArray
from jax.extend.core import Primitive

from jaxcnnbp._compat import batch_by, lower_as
from jaxcnnbp.audit import monitor
from jaxcnnbp.modes import alternatives

Arrays = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Rule:
    """One operation with its options."""

    forward: Callable[..., Arrays]  # `(*arrays, **options)` to a tuple of arrays
    # `(*arrays, delta, **options)` to one gradient for every array that has one; `delta` belongs to the first output,
    # the others have integers.
    backward: Callable[..., Arrays]
    options: tuple[tuple[str, Any], ...] = ()  # what is not an array, as sorted pairs, so that a rule can be hashed
    exact: bool = False  # whether the forward only moves values, and so rounds nothing
    dtype: str | None = None  # the dtype of the outputs if it is not that of the first input

    def run(self, backward: bool, arrays: Sequence[Any]) -> Arrays:
        """The outputs, or the gradients, in float64 or complex128."""
        wide = tuple(widened(a) for a in arrays)
        options = dict(self.options)
        with np.errstate(all="ignore"):
            return self.backward(*wide, **options) if backward else self.forward(*wide, **options)


def wide_dtype(dtype: Any) -> Any:
    """float64 for floats, complex128 for complex numbers, any other dtype as it is."""
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return np.dtype(np.complex128)
    return np.dtype(np.float64) if jnp.issubdtype(dtype, jnp.floating) else dtype


def widened(array: Any) -> np.ndarray:
    """`array` in NumPy, of the dtype that `wide_dtype` says."""
    array = np.asarray(array)
    return array.astype(wide_dtype(array.dtype), copy=False)


def register(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes `function` the oracle of the public function of its name."""
    alternatives["oracle"][function.__name__] = function
    return function


def apply(rule: Rule, *arrays: Any) -> Any:
    """The outputs of `rule`: one array, or a tuple of several."""
    taken = (a if isinstance(a, jax.Array) else jnp.asarray(a) for a in arrays)  # which would convert a tracer again
    outputs = cast(list[Any], _call(rule, *taken))
    return outputs[0] if len(outputs) == 1 else tuple(outputs)


def rule_of(
    forward: Callable[..., Arrays], backward: Callable[..., Arrays], exact: bool = False, **options: Any
) -> Rule:
    """A `Rule`, its options made hashable."""
    dtype = options.pop("preferred_element_type", None)
    pairs = tuple(sorted((key, _frozen(value)) for key, value in options.items()))
    return Rule(forward, backward, pairs, exact, None if dtype is None else jnp.dtype(dtype).name)


def _frozen(value: Any) -> Any:
    if type(value) in (list, tuple):  # named tuples stay what they are
        return tuple(_frozen(v) for v in value)
    return _frozen(value.tolist()) if hasattr(value, "tolist") else value


oracle_p = Primitive("numpy_oracle")
oracle_p.multiple_results = True


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _call(rule: Rule, *arrays: Any) -> list[Any]:
    return oracle_p.bind(*arrays, rule=rule, backward=False)


def _call_fwd(rule: Rule, *arrays: Any) -> tuple[list[Any], tuple[Any, ...]]:
    return _call(rule, *arrays), arrays


def _call_bwd(rule: Rule, arrays: tuple[Any, ...], cotangents: Sequence[Any]) -> tuple[Any, ...]:
    gradients = iter(oracle_p.bind(*arrays, cotangents[0], rule=rule, backward=True))
    return tuple(next(gradients) if jnp.issubdtype(a.dtype, jnp.inexact) else None for a in arrays)


_call.defvjp(_call_fwd, _call_bwd)


@oracle_p.def_impl
def _impl(*arrays: Any, rule: Rule, backward: bool) -> list[Any]:
    results = rule.run(backward, arrays)
    return [jnp.asarray(r, d) for r, d in zip(results, _dtypes(rule, backward, arrays, results), strict=True)]


@oracle_p.def_abstract_eval
def _shapes(*avals: Any, rule: Rule, backward: bool) -> list[Any]:
    with monitor.counting():  # which nobody reads
        results = rule.run(backward, [np.zeros(a.shape, a.dtype) for a in avals])
    dtypes = _dtypes(rule, backward, avals, results)
    return [ShapedArray(r.shape, d) for r, d in zip(results, dtypes, strict=True)]


def _dtypes(rule: Rule, backward: bool, arrays: Sequence[Any], results: Arrays) -> list[Any]:
    if backward:
        return [a.dtype for a in arrays if jnp.issubdtype(a.dtype, jnp.inexact)][: len(results)]
    own = arrays[0].dtype if rule.dtype is None else jnp.dtype(rule.dtype)
    return [own if np.issubdtype(r.dtype, np.inexact) else np.dtype(np.int32) for r in results]


def _called_back(*arrays: Any, rule: Rule, backward: bool) -> list[Any]:
    given, found = [a.dtype for a in arrays], _shapes(*arrays, rule=rule, backward=backward)

    def on_host(*bytes_of: Any) -> list[Any]:
        whole = [np.ascontiguousarray(b).view(d).reshape(b.shape[:-1]) for b, d in zip(bytes_of, given, strict=True)]
        results = zip(rule.run(backward, whole), found, strict=True)
        return [np.ascontiguousarray(r, s.dtype)[..., None].view(np.uint8) for r, s in results]

    # As bytes: XLA may call from a thread of its own, in which JAX knows of no `enable_x64` and would narrow doubles.
    shapes = [jax.ShapeDtypeStruct((*s.shape, s.dtype.itemsize), np.uint8) for s in found]
    results = jax.pure_callback(on_host, shapes, *map(_as_bytes, arrays))
    return [_of_bytes(r, s.dtype) for r, s in zip(results, found, strict=True)]


def _as_bytes(a: Array) -> Array:
    """With an axis of bytes behind the others."""
    shape = (*a.shape, a.dtype.itemsize)
    if jnp.issubdtype(a.dtype, jnp.complexfloating):
        a = jnp.stack([a.real, a.imag], -1)
    elif a.dtype == jnp.bool_:
        a = a.astype(np.uint8)
    return lax.bitcast_convert_type(a, np.uint8).reshape(shape)


def _of_bytes(b: Array, dtype: Any) -> Array:
    if jnp.issubdtype(dtype, jnp.complexfloating):
        part = jnp.finfo(dtype).dtype
        parts = lax.bitcast_convert_type(b.reshape(*b.shape[:-1], 2, -1), part)
        return lax.complex(parts[..., 0], parts[..., 1])
    if dtype == jnp.bool_:
        return b[..., 0] != 0
    return lax.bitcast_convert_type(b[..., 0] if dtype.itemsize == 1 else b, dtype)


def _batch(over: Any, arrays: Sequence[Any], dims: Sequence[int | None], *, rule: Rule, backward: bool) -> Any:
    def run(index: int) -> list[Any]:
        rows = zip(arrays, dims, strict=True)
        one = (a if d is None else jax.lax.index_in_dim(a, index, d, keepdims=False) for a, d in rows)
        return oracle_p.bind(*one, rule=rule, backward=backward)

    outputs = [jnp.stack(column) for column in zip(*map(run, range(over.size)), strict=True)]
    return outputs, [0] * len(outputs)


lower_as(oracle_p, _called_back)
batch_by(oracle_p, _batch)
