"""`lax.reduce_window` with hand-written gradients: the pools' rules for max, min and sum, a fold for the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Primitive
from jax.extend.core import primitives as jex
from jax.typing import ArrayLike

from jaxcnnbp.geometry import Window, window_of
from jaxcnnbp.geometry.window import Ints, Pairs
from jaxcnnbp.modes import switchable
from jaxcnnbp.ops import lax_itself
from jaxcnnbp.ops.extreme_pool import extreme_pool_op, identity
from jaxcnnbp.ops.mean_pool import sum_pool_op
from jaxcnnbp.ops.window_fold import fold_windows

# The pools unroll over the taps of an axis; beyond this many, lax's loop compiles faster than that.
MOST_TAPS = 128
POOLS: dict[Primitive, str] = {jex.max_p: "max", jex.min_p: "min", jex.add_p: "sum"}


@switchable
def reduce_window(
    operand: Any,
    init_value: Any,
    computation: Callable[..., Any],
    window_dimensions: Sequence[int],
    window_strides: Sequence[int] | None = None,
    padding: str | Sequence[tuple[int, int]] = "VALID",
    base_dilation: Sequence[int] | None = None,
    window_dilation: Sequence[int] | None = None,
) -> Any:
    """`jax.lax.reduce_window`, differentiable for every differentiable reducer: y[u] = init o p[u, 0] o p[u, 1] o ...

    Args:
      operand: an array, or a pytree of arrays of one shape.
      init_value: a scalar, or one for each leaf of `operand`; it may be traced, and gets a gradient.
      computation: the reducer `o` of two scalars (or of two pytrees of them), associative and commutative.
      window_dimensions: taps along every axis of `operand`.
      window_strides: input positions from one window to the next, ones if None.
      padding: `"VALID"`, `"SAME"`, `"SAME_LOWER"`, or a `(low, high)` pair an axis. Positions off the input are
        skipped; on CPUs that is what lax does, and with an identity for `init_value` it is so everywhere.
      base_dilation: positions from one input cell to the next, ones if None.
      window_dilation: positions from one tap to the next, ones if None.

    Returns:
      The reductions, in the structure and dtypes of `operand`. Of equal maxima the first has the gradient.

    Raises:
      TypeError, ValueError: with the argument and its value.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> x = jnp.array([2., 0., 3.])
      >>> jax.grad(lambda x: reduce_window(x, 1., jax.lax.mul, (3,)).sum())(x)
      Array([0., 6., 0.], dtype=float32)

    Source: `ops.extreme_pool`, `ops.mean_pool`, `ops.window_fold`.
    """
    leaves, tree = jax.tree.flatten(operand)
    operands = [jnp.asarray(leaf) for leaf in leaves]
    inits = _inits(init_value, tree, operands)
    reducer = _traced(computation, tree, inits)
    shape = operands[0].shape
    given = _lax_parameters(shape, window_dimensions, window_strides, padding, base_dilation, window_dilation)
    if not any(jnp.issubdtype(x.dtype, jnp.inexact) for x in operands) or 0 in shape:
        return lax_itself.reduce_window(operand, tree.unflatten(inits), computation, **given)
    pool = _pool_of(reducer, operands)
    if pool and pool_by_lax_because(shape, given["window_dimensions"]):
        return tree.unflatten([lax_itself.reduce_window(operands[0], inits[0], computation, **given)])
    layout = Layout.of(shape, **given)
    if pool:
        return tree.unflatten([layout.outward(_pool(pool, layout.inward(operands[0]), layout.window, inits[0]))])
    folded = fold_windows(tuple(map(layout.inward, operands)), tuple(inits), reducer, layout.window)
    return tree.unflatten(list(map(layout.outward, folded)))


def pool_by_lax_because(shape: Ints, window: Ints) -> str | None:
    """Why a max, min or sum over windows is better left to lax, None if it is not."""
    if 0 in shape:
        return "the operand is empty"
    longest = max(window, default=1)
    return f"a window of {longest} taps on one axis is not worth unrolling" if longest > MOST_TAPS else None


@dataclass(frozen=True)
class Layout:
    """An operand with windows on any axes, seen as `(batch, *spatial, channels)`.

    Leading axes without a window are the batch, trailing ones the channels, all between them are spatial.
    """

    window: Window
    batch: Ints
    channels: Ints

    @classmethod
    def of(
        cls,
        shape: Ints,
        window_dimensions: Ints,
        window_strides: Ints,
        padding: Pairs,
        base_dilation: Ints,
        window_dilation: Ints,
    ) -> Layout:
        """The layout for lax's parameters, each given for every axis."""
        rows = zip(window_dimensions, window_strides, padding, base_dilation, strict=True)
        windowed = [axis for axis, row in enumerate(rows) if row != (1, 1, (0, 0), 1)]
        first, last = (windowed[0], windowed[-1] + 1) if windowed else (len(shape), len(shape))
        inner = slice(first, last)
        window = Window(
            tuple(shape[inner]),
            tuple(window_dimensions[inner]),
            tuple(window_strides[inner]),
            tuple(padding[inner]),
            tuple(window_dilation[inner]),
            tuple(base_dilation[inner]),
        )
        return cls(window, tuple(shape[:first]), tuple(shape[last:]))

    def inward(self, x: Array) -> Array:
        """lax's operand -> `(batch, *spatial, channels)`."""
        return x.reshape(prod(self.batch), *self.window.spatial, prod(self.channels))

    def outward(self, y: Array) -> Array:
        """`(batch, *output, channels)` -> lax's result."""
        return y.reshape(*self.batch, *self.window.output, *self.channels)


def _pool(kind: str, x: Array, window: Window, init: Array) -> Array:
    if kind == "sum":
        return sum_pool_op(x, window) + init
    pooled = extreme_pool_op(x, window, kind, "first")
    if _is_concrete(init) and init == identity(x.dtype, kind):
        return pooled
    stays = (pooled >= init if kind == "max" else pooled <= init) | (pooled != pooled)
    return jnp.where(stays, pooled, init)


def _pool_of(reducer: ClosedJaxpr, operands: Sequence[Array]) -> str | None:
    """The pool whose reducer this is: one equation on the two arguments, on real numbers if they are to be ordered."""
    jaxpr = reducer.jaxpr
    if len(jaxpr.eqns) != 1 or len(jaxpr.invars) != 2 or reducer.consts:
        return None
    (eqn,) = jaxpr.eqns
    if eqn.primitive is jex.jit_p:
        return _pool_of(eqn.params["jaxpr"], operands)
    is_reducer = list(jaxpr.outvars) == list(eqn.outvars) and set(eqn.invars) == set(jaxpr.invars)
    kind = POOLS.get(eqn.primitive) if is_reducer else None
    return kind if kind == "sum" or jnp.issubdtype(operands[0].dtype, jnp.floating) else None


def _traced(computation: Callable[..., Any], tree: Any, inits: Sequence[Array]) -> ClosedJaxpr:
    """The reducer on flat scalars: all leaves of the left argument, then all of the right one."""

    def flat(*scalars: Array) -> list[Array]:
        left, right = scalars[: len(inits)], scalars[len(inits) :]
        return jax.tree.leaves(computation(tree.unflatten(left), tree.unflatten(right)))

    reducer = jax.make_jaxpr(flat)(*inits, *inits)
    types = [(aval.shape, aval.dtype) for aval in reducer.out_avals]
    if types != [((), init.dtype) for init in inits]:
        raise TypeError(
            f"`computation` (={computation}) gives {types} for scalars of {[str(i.dtype) for i in inits]}; a reducer"
            " must give back the types it takes."
        )
    return reducer


def _inits(init_value: Any, tree: Any, operands: Sequence[Array]) -> list[Array]:
    leaves = jax.tree.leaves(init_value)
    if len(leaves) != len(operands):
        raise ValueError(f"`init_value` (={init_value!r}) must have one scalar for each of {len(operands)} operands.")
    return [_init(leaf, operand) for leaf, operand in zip(leaves, operands, strict=True)]


def _init(init: ArrayLike, operand: Array) -> Array:
    if jnp.shape(init) != ():
        raise ValueError(f"`init_value` (shape={jnp.shape(init)}) must be a scalar.")
    is_python_number = isinstance(init, int | float | complex)
    if not is_python_number and jnp.result_type(init) != operand.dtype:
        given = jnp.result_type(init)
        raise TypeError(f"`init_value` (dtype={given}) must have the dtype of `operand`, {operand.dtype}.")
    return jnp.asarray(init, operand.dtype)


def _lax_parameters(shape: Ints, size: Any, stride: Any, padding: Any, gaps: Any, dilation: Any) -> dict[str, Any]:
    """lax's parameters for every axis, parsed by the package's parser."""
    window = window_of(
        shape,
        tuple(size),
        stride=1 if stride is None else tuple(stride),
        padding=padding,
        dilation=1 if dilation is None else tuple(dilation),
        input_dilation=1 if gaps is None else tuple(gaps),
        names={
            "size": "window_dimensions",
            "stride": "window_strides",
            "dilation": "window_dilation",
            "input_dilation": "base_dilation",
        },
    )
    return dict(
        window_dimensions=window.size,
        window_strides=window.stride,
        padding=window.padding,
        base_dilation=window.input_dilation,
        window_dilation=window.dilation,
    )


def _is_concrete(x: Array) -> bool:
    return not isinstance(x, Tracer)
