"""`mode("both_ways")`: forward mode of rules that are written once, backwards, and read in both directions.

With J the derivative of a rule at a point, its `bwd` is the linear map `delta -> J^T delta`, from what its `fwd` kept.
JAX refuses to go forward through such a rule, for it does not know `t -> J t`. But `bwd` says it as well: the pullback
of a linear map is its transpose, so

    J t  =  the pullback of (delta -> bwd(kept, delta)) at t

Which of the two is wanted shows late: under `scan`, `checkpoint` or `jit` JAX first goes forward and then transposes
what it wrote down. So what is written down is one equation, `tangent_p`, that stands for J. Its transpose is `bwd`;
only where a tangent is really computed does it become the pullback of `bwd`. In reverse mode nothing is computed,
traced or kept beyond what `jax.custom_vjp` would.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
from jax.custom_derivatives import SymbolicZero
from jax.dtypes import float0
from jax.extend.core import Primitive

from jaxcnnbp._compat import (
    batch_by,
    in_front,
    is_linear,
    is_zero,
    jvp_by,
    lower_as,
    mapped_type,
    sum_of_tangents,
    tangent_array,
    tangent_type,
    transpose_by,
    vmap_over,
    zero_of_type,
    zeros_of_type,
)
from jaxcnnbp.settings import InForce, Under
from jaxcnnbp.wanted import computed, inputs_read

if TYPE_CHECKING:  # `hand_written` calls this module, which knows of a rule what its class says
    from jaxcnnbp.hand_written import hand_written

Arrays = list[Any]


def custom_jvp(
    function: Callable[..., Any], rule: hand_written, settings: InForce, static: tuple[int, ...]
) -> Callable[..., Any]:
    """`function` by `rule`, which forward mode may go through as well as reverse mode.

    Args:
      function: that of the rule.
      rule: the rule.
      settings: what is in force where it is called.
      static: which of its arguments are static.

    Example:
      >>> import jax
      >>> from jaxcnnbp import mode
      >>> from jaxcnnbp.hand_written import hand_written
      >>> @hand_written
      ... @jax.custom_vjp
      ... def square(x):
      ...   return x * x
      >>> square.defvjp(lambda x: (x * x, x), lambda x, delta: (2 * x * delta,))
      >>> with mode("both_ways"):
      ...   jax.jvp(jax.jit(square), (3.,), (1.,))[1]
      Array(6., dtype=float32, weak_type=True)
    """
    fwd, bwd = Under(settings, rule.kept), Under(settings, rule.bwd)
    both = jax.custom_jvp(function, static)

    def jvp(*args: Any) -> tuple[Any, Any]:
        *static, primals, tangents = args
        y, kept = fwd(tuple(primals), tuple(static))
        return y, _tangents(rule, bwd, tuple(static), kept, tangents, y)

    both.defjvp(jvp, symbolic_zeros=True)
    return both


def _tangents(
    rule: hand_written, bwd: Callable[..., Any], static: tuple[Any, ...], kept: Any, tangents: Any, y: Any
) -> Any:
    """J t in the structure of `y`: an equation that stands for it."""
    paths, kept_tree = jax.tree.flatten_with_path(kept)
    residuals = [leaf for _, leaf in paths]
    shared = None if rule.shared is None else tuple(_field(path) in rule.shared for path, _ in paths)
    ts, operands = jax.tree.flatten(tangents)
    ys, outputs = jax.tree.flatten(y)
    types = tuple(tangent_type(a) for a in ys)
    wanted = tuple(type(t) is not SymbolicZero and jax.typeof(t).dtype != float0 for t in ts)
    at = Derivative(bwd, static, kept_tree, (), operands, wanted, outputs, types, shared)
    if not all(wanted):
        needless = _needless(at, residuals, [a for a, t in zip(ys, types, strict=True) if t.dtype != float0])
        at = replace(at, needless=tuple((i, jax.typeof(residuals[i])) for i in needless))
        residuals = [a for i, a in enumerate(residuals) if i not in needless]
    found = iter(tangent_p.bind(*residuals, *(t for t, w in zip(ts, wanted, strict=True) if w), at=at))
    return outputs.unflatten([SymbolicZero(a) if a.dtype == float0 else next(found) for a in types])


def _field(path: tuple[Any, ...]) -> str | None:
    return getattr(path[0], "name", None) if path else None


def _needless(at: Derivative, residuals: Arrays, deltas: Arrays) -> list[int]:
    """Indices of residuals that no requested gradient reads, e.g. `x` when the kernel is frozen."""
    jaxpr = pull.trace(at, residuals, deltas).jaxpr.jaxpr
    return [i for i, is_read in enumerate(inputs_read(jaxpr)[: len(residuals)]) if not is_read]


@dataclass(frozen=True)
class Derivative:
    """J of one call of a rule; hashable, so that what was traced and compiled for it is found again."""

    bwd: Callable[..., Any]  # the hand-written pullback
    static: tuple[Any, ...]  # its first arguments
    kept: Any  # structure of the residuals
    # Places and types of those that were not kept, because no tangent that is wanted needs them.
    needless: tuple[tuple[int, Any], ...]
    operands: Any  # structure of the operands
    wanted: tuple[bool, ...]  # which of them have a tangent
    outputs: Any  # structure of the output
    tangents: tuple[Any, ...]  # types of its tangents, `float0` for integers
    # Which residuals all examples share, None where the rule does not work on each example by itself.
    shared: tuple[bool, ...] | None

    @property
    def num_kept(self) -> int:
        """How many arrays were kept."""
        return self.kept.num_leaves - len(self.needless)

    @property
    def types(self) -> Arrays:
        """Of the tangents that J gives."""
        return [a for a in self.tangents if a.dtype != float0]

    def pull(self, kept: Arrays, deltas: Arrays) -> Arrays:
        """J^T deltas, for the operands that have a tangent."""
        residuals = list(kept)
        for place, kind in self.needless:
            residuals.insert(place, zeros_of_type(kind))
        rest = iter(deltas)
        each = [SymbolicZero(a) if a.dtype == float0 else next(rest) for a in self.tangents]
        found = self.bwd(*self.static, self.kept.unflatten(residuals), self.outputs.unflatten(each))
        flags = iter(self.wanted)
        asked = [sum(itertools.islice(flags, tree.num_leaves)) > 0 for tree in self.operands.children()]
        found = [computed(ds) if is_asked else None for ds, is_asked in zip(found, asked, strict=True)]
        of_each = zip(self.operands.children(), found, strict=True)
        flat = [d for tree, ds in of_each for d in ([None] * tree.num_leaves if ds is None else tree.flatten_up_to(ds))]
        return [d for d, wanted in zip(flat, self.wanted, strict=True) if wanted]


@dataclass(frozen=True)
class Mapped:
    """J under `vmap`: tangents and deltas have the new axis in front, residuals where they happen to have it."""

    one: Linear
    axes: tuple[int | None, ...]
    over: Any  # the axis, as `_compat` takes it

    @property
    def num_kept(self) -> int:
        return self.one.num_kept

    @property
    def types(self) -> Arrays:
        return [mapped_type(self.over, a) for a in self.one.types]

    def pull(self, kept: Arrays, deltas: Arrays) -> Arrays:
        return vmap_over(self.over, self.one.pull, (list(self.axes), 0))(kept, deltas)


Linear = Derivative | Mapped


# --- the equation: residuals and tangents in, tangents out

tangent_p = Primitive("tangent")
tangent_p.multiple_results = True


@functools.partial(jax.jit, static_argnums=0, inline=True)
def pull(at: Linear, kept: Arrays, deltas: Arrays) -> Arrays:
    """J^T deltas, by the hand-written rule: called eagerly it is one dispatch."""
    return at.pull(kept, deltas)


@functools.partial(jax.jit, static_argnums=0, inline=True)
def push(at: Linear, kept: Arrays, tangents: Arrays) -> Arrays:
    """J tangents, as the pullback of the pullback."""
    zeros = [zeros_of_type(a) for a in at.types]
    (found,) = jax.vjp(functools.partial(at.pull, kept), zeros)[1](tangents)
    return found


def _split(at: Linear, args: Sequence[Any]) -> tuple[Arrays, Arrays]:
    return list(args[: at.num_kept]), list(args[at.num_kept :])


@tangent_p.def_impl
def _pushed(*args: Any, at: Linear) -> Arrays:
    return push(at, *_split(at, args))


@tangent_p.def_abstract_eval
def _types(*_: Any, at: Linear) -> Arrays:
    return at.types


def _transpose(deltas: Arrays, *args: Any, at: Linear) -> Arrays:
    kept, ts = _split(at, args)
    found = pull(at, kept, list(map(tangent_array, deltas)))
    return [None] * len(kept) + [d if is_linear(t) else None for d, t in zip(found, ts, strict=True)]


def _jvp(primals: Sequence[Any], dots: Sequence[Any], *, at: Linear) -> tuple[Arrays, Arrays]:
    """J is linear in the tangents, and whatever the rule made it in what was kept."""
    (kept, ts), (kept_dots, t_dots) = _split(at, primals), _split(at, dots)
    found = [zero_of_type(a) for a in at.types]
    if any(not is_zero(t) for t in t_dots):
        found = tangent_p.bind(*kept, *map(tangent_array, t_dots), at=at)
    moving = {i: dot for i, dot in enumerate(kept_dots) if not is_zero(dot)}

    def along(some: dict[int, Any]) -> Arrays:
        return push(at, [some.get(i, a) for i, a in enumerate(kept)], ts)

    if moving:
        more = jax.jvp(along, ({i: kept[i] for i in moving},), (moving,))[1]
        found = list(map(sum_of_tangents, found, more))
    return tangent_p.bind(*primals, at=at), found


def _batch(over: Any, args: Sequence[Any], axes: Sequence[Any], *, at: Linear) -> tuple[Arrays, list[Any]]:
    if all(axis is None for axis in axes):
        found = tangent_p.bind(*args, at=at)
        return found, [None] * len(found)
    of_all = _as_one_batch(over, args, axes, at)
    if of_all is not None:
        return of_all, [0] * len(of_all)
    (kept, ts), (kept_axes, t_axes) = _split(at, args), _split(at, axes)
    fronted = [in_front(over, t, axis) for t, axis in zip(ts, t_axes, strict=True)]
    found = tangent_p.bind(*kept, *fronted, at=Mapped(at, tuple(kept_axes), over))
    return found, [0] * len(found)


def _as_one_batch(over: Any, args: Sequence[Any], axes: Sequence[Any], at: Linear) -> Arrays | None:
    """J of all members at once, as examples of one larger batch; None if their weights are not the same.

    The gradient of the weights is then summed over the members where it is computed. That they want the sum, and not
    one gradient each, is known only here: the tangent of the weights is not mapped.
    """
    if not isinstance(at, Derivative) or at.shared is None or over.spmd_name or over.explicit_mesh_axis is not None:
        return None
    shared, unkept = at.shared, {i for i, _ in at.needless}
    of_kept = [not is_shared for i, is_shared in enumerate(shared) if i not in unkept]
    of_x = [True] if at.wanted[0] else []  # its tangent may be the same for all: then it is repeated
    of_weights = [False] * (len(args) - len(of_kept) - len(of_x))
    mapped = [axis is not None for axis in axes]
    if mapped[: len(of_kept)] != of_kept or mapped[len(of_kept) + len(of_x) :] != of_weights:
        return None

    def merged(a: Any) -> tuple[int, ...]:  # a vector has no batch axis yet
        return a.shape if len(a.shape) < 3 else (a.shape[0] * a.shape[1], *a.shape[2:])

    def merged_type(a: Any) -> Any:
        mapped = mapped_type(over, a)
        return mapped.update(shape=merged(mapped))

    def operand(a: Any, axis: int | None, of_examples: bool) -> Any:
        if not of_examples:
            return a
        fronted = in_front(over, a, axis)
        return fronted.reshape(merged(fronted))

    operands = map(operand, args, axes, [*of_kept, *of_x, *of_weights])
    needless = tuple((i, a if shared[i] else merged_type(a)) for i, a in at.needless)
    types = tuple(map(merged_type, at.tangents))
    found = tangent_p.bind(*operands, at=replace(at, needless=needless, tangents=types))
    return [a.reshape(mapped_type(over, one).shape) for a, one in zip(found, at.types, strict=True)]


jvp_by(tangent_p, _jvp)
transpose_by(tangent_p, _transpose)
batch_by(tangent_p, _batch)
lower_as(tangent_p, _pushed)
