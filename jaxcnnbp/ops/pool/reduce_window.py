"""`lax.reduce_window` with hand-written gradients: the pools' rules for max, min and sum, a fold for the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, JaxprEqn, Primitive
from jax.extend.core import primitives as jex

from jaxcnnbp._compat import varying_axes, with_weak_type
from jaxcnnbp.geometry import Window
from jaxcnnbp.geometry.parse import over_symbols, sized_by_ints
from jaxcnnbp.geometry.window import Ints, Pairs
from jaxcnnbp.hand_written import unify_varying_axes
from jaxcnnbp.modes import switchable
from jaxcnnbp.ops import lax_itself, symbolic
from jaxcnnbp.ops._sharding import explicit_axes, with_sharding
from jaxcnnbp.ops.pool.fold import elementwise, fold_windows
from jaxcnnbp.ops.pool.lax_layout import ChannelsLast
from jaxcnnbp.ops.pool.max import extreme_pool_op
from jaxcnnbp.ops.pool.mean import sum_pool
from jaxcnnbp.ops.pool.window_max import identity

Reduction = Callable[..., list[Array]]
POOLS: dict[Primitive, str] = {jex.max_p: "max", jex.min_p: "min", jex.add_p: "sum"}
WINDOWED: dict[Primitive, str] = {
    jex.reduce_window_max_p: "max",
    jex.reduce_window_min_p: "min",
    jex.reduce_window_sum_p: "sum",
    jex.reduce_window_p: "",
}


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
      TypeError, ValueError: as lax does.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> x = jnp.array([2., 0., 3.])
      >>> jax.grad(lambda x: reduce_window(x, 1., jax.lax.mul, (3,)).sum())(x)
      Array([0., 6., 0.], dtype=float32)

    Source: `ops.pool.max`, `ops.pool.mean`, `ops.pool.fold`.
    """
    operand = jax.tree.map(jnp.asarray, operand)
    init_value = _typed(init_value, operand)
    given: dict[str, Any] = dict(
        window_dimensions=window_dimensions,
        window_strides=(1,) * len(window_dimensions) if window_strides is None else window_strides,
        padding=padding,
        base_dilation=base_dilation,
        window_dilation=window_dilation,
    )
    call = _lax_call(operand, init_value, computation, **given)
    xs, tree = jax.tree.flatten(operand)
    if call.reducer is not None and window_by_lax_because(xs, kind=call.reducer, **call.params):
        # A crop of the operand's own must not become one with the padding of the windows (openxla/xla issue 48715).
        operand = jax.lax.optimization_barrier(operand)
        return lax_itself.reduce_window(operand, init_value, computation, **given)
    if any(0 in out.shape for out in call.outs):  # no window fits, and nothing depends on anything
        return tree.unflatten([with_weak_type(jnp.zeros(out.shape, out.dtype), out) for out in call.outs])
    inits = [jnp.asarray(init, x.dtype) for init, x in zip(jax.tree.leaves(init_value), xs, strict=True)]
    layout = ChannelsLast.of(xs[0].shape, **call.params)
    sharding = call.outs[0].sharding
    # What lax traced says in each equation what axes of a mesh are explicit, which inside `with_sharding` none is, and
    # that nothing differs from device to device.
    differs = any(map(varying_axes, xs))
    known = call.reducer if isinstance(call.reducer, str) or not (differs or explicit_axes(sharding.mesh)) else None

    def rule(*arrays: Array) -> list[Array]:
        reducer = known or _traced(computation, tree, unify_varying_axes(*arrays)[len(xs) :])
        return _reduction_for(reducer, inits, call.from_identity, layout)(*arrays)

    ys = with_sharding(rule, *xs, *inits, sharding=sharding)
    return tree.unflatten([with_weak_type(y, out) for y, out in zip(ys, call.outs, strict=True)])


@dataclass(frozen=True)
class LaxCall:
    """What lax makes of a call: every parameter said in full."""

    params: dict[str, Any]
    reducer: str | ClosedJaxpr | None  # the pool it is, or what folds; None if lax cannot say
    outs: Sequence[Any]  # the types of the outputs
    from_identity: bool = False  # whether lax knows the initial value as that of the pool


def _lax_call(operand: Any, init_value: Any, computation: Callable[..., Any], **given: Any) -> LaxCall:
    """What lax makes of these arguments, or exactly the error that it has for them.

    lax looks at the value of an initial value, so what has one is closed over, and what is traced is an argument.
    """
    inits, tree = jax.tree.flatten(init_value)
    traced = [None if _is_concrete(init) else init for init in inits]

    def equation(computation: Callable[..., Any]) -> tuple[JaxprEqn, Sequence[Any]]:
        def call(x: Any, traced: list[Any]) -> Any:
            starts = [init if t is None else t for init, t in zip(inits, traced, strict=True)]
            return lax_itself.reduce_window(x, tree.unflatten(starts), computation, **given)

        closed = jax.make_jaxpr(call)(operand, traced)
        return next(eqn for eqn in closed.jaxpr.eqns if eqn.primitive in WINDOWED), closed.out_avals

    try:
        eqn, outs = equation(computation)
    except (NotImplementedError, TypeError):
        if not _closes_over_arrays(computation, operand):
            raise
        # The fold takes such a reducer, and lax does not.
        eqn, outs = equation(lambda left, _: left)
        return LaxCall(_geometry(eqn), None, outs)
    if eqn.primitive is not jex.reduce_window_p:
        return LaxCall(_geometry(eqn), WINDOWED[eqn.primitive], outs, True)
    reducer = _closed(ClosedJaxpr(eqn.params["jaxpr"], eqn.params["consts"]), computation)
    return LaxCall(_geometry(eqn), _pool_of(reducer, outs) or reducer, outs)


def _closes_over_arrays(computation: Callable[..., Any], operand: Any) -> bool:
    """Whether the reducer uses arrays of its own, traced ones or not."""
    scalars = jax.tree.map(lambda x: jax.ShapeDtypeStruct((), x.dtype), operand)
    return any(isinstance(const, Array) for const in jax.make_jaxpr(computation)(scalars, scalars).consts)


def _geometry(eqn: JaxprEqn) -> dict[str, Any]:
    names = "window_dimensions", "window_strides", "padding", "base_dilation", "window_dilation"
    return {name: eqn.params[name] for name in names}


def window_by_lax_because(
    operands: Sequence[Any],
    window_dimensions: Ints,
    padding: Pairs,
    base_dilation: Ints,
    kind: Any = None,
    **_: Any,
) -> str | None:
    """Why windows that lax accepts are left to it, None if they are not; the operands may be their types alone.

    `kind` is the pool that the windows are, if they are one.
    """
    if isinstance(kind, str) and kind != "sum" and jnp.issubdtype(operands[0].dtype, jnp.complexfloating):
        return f"{operands[0].dtype} has no order but lax's"
    # XLA forgets gaps of large inputs and cannot crop for windows of one cell (openxla/xla issues 48714, 48719).
    is_safe = all(step == 1 for step in base_dilation) and all(low >= 0 and high >= 0 for low, high in padding)
    if is_safe and not any(jnp.issubdtype(x.dtype, jnp.inexact) for x in operands):
        return f"{operands[0].dtype} has no gradient"
    return None if sized_by_ints(window_dimensions) else "the window has an extent that is symbolic"


def pool_windows(kind: str, x: Array, out: Any, **params: Any) -> Array:
    """The pool `kind` by its rule, for windows as lax's primitives describe them; `out` is the type of the output."""
    if 0 in out.shape:  # no window fits
        return with_weak_type(jnp.zeros(out.shape, out.dtype), out)
    layout = ChannelsLast.of(x.shape, **params)
    y = with_sharding(
        lambda x: layout.outward(_pooled(kind, layout.inward(x), layout.window)), x, sharding=out.sharding
    )
    return with_weak_type(y, out)


def _reduction_for(
    reducer: str | ClosedJaxpr, inits: Sequence[Array], from_identity: bool, layout: ChannelsLast
) -> Reduction:
    """`(*operands, *inits) -> outputs`, in lax's layouts."""
    count = len(inits)
    if not from_identity and isinstance(reducer, str) and reducer != "sum" and _is_concrete(inits[0]):
        from_identity = bool(inits[0] == identity(inits[0].dtype, reducer))

    def rule(*arrays: Array) -> list[Array]:
        xs, starts = tuple(map(layout.inward, arrays[:count])), arrays[count:]
        if isinstance(reducer, ClosedJaxpr):
            return list(map(layout.outward, _folded(xs, starts, reducer, layout.window)))
        pooled = _pooled(reducer, xs[0], layout.window)
        return [layout.outward(pooled if from_identity else _started(reducer, pooled, starts[0]))]

    return rule


def _folded(xs: tuple[Array, ...], starts: tuple[Array, ...], reducer: ClosedJaxpr, window: Window) -> Sequence[Array]:
    if over_symbols(window):
        return symbolic.fold(xs, starts, partial(elementwise(reducer.jaxpr), tuple(reducer.consts)), window)
    return fold_windows(xs, starts, reducer, window)


def _pooled(kind: str, x: Array, window: Window) -> Array:
    if over_symbols(window):
        return symbolic.sum_pool(x, window) if kind == "sum" else symbolic.extreme_pool(x, window, kind, "first")
    return sum_pool(x, window) if kind == "sum" else extreme_pool_op(x, window, kind, "first")


def _started(kind: str, pooled: Array, init: Array) -> Array:
    """What was pooled, with `init` in every window too."""
    if kind == "sum":
        return pooled + init
    stays = (pooled >= init if kind == "max" else pooled <= init) | (pooled != pooled)
    return jnp.where(stays, pooled, init)


def _pool_of(reducer: ClosedJaxpr, operands: Sequence[Any]) -> str | None:
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

    return _closed(jax.make_jaxpr(flat)(*inits, *inits), computation)


def _closed(reducer: ClosedJaxpr, computation: Callable[..., Any]) -> ClosedJaxpr:
    """`reducer`, or an error if it does not stay among the types it takes; lax leaves that to its compiler."""
    given, taken = ([(a.shape, a.dtype) for a in avals] for avals in (reducer.out_avals, reducer.in_avals))
    if given != taken[len(taken) // 2 :]:
        raise TypeError(f"`computation` (={computation}) gives {given}; a reducer must give back the types it takes.")
    return reducer


def _typed(init_value: Any, operand: Any) -> Any:
    """The initial values, Python numbers among them in the dtype of their operand."""
    if jax.tree.structure(init_value) != jax.tree.structure(operand):
        return init_value  # lax says what is wrong with it

    def typed(init: Any, x: Array) -> Any:
        is_number = isinstance(init, int | float | complex) and not isinstance(init, bool)
        if is_number and jnp.issubdtype(x.dtype, jnp.inexact):
            number = np.asarray(init, x.dtype)
            return number if np.isnan(number) == np.isnan(init) else init  # an infinity that the type does not hold
        # What lax compares must not become a tracer.
        return np.asarray(init) if isinstance(init, jax.Array) and _is_concrete(init) else init

    return jax.tree.map(typed, init_value, operand)


def _is_concrete(x: Any) -> bool:
    return not isinstance(x, Tracer)
