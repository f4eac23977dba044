"""How a backward rule written by hand is wired: a `jax.custom_vjp`, and what every rule wants of it.

A rule file reads

    @hand_written
    @partial(jax.custom_vjp, nondiff_argnums=(2,))
    def conv(x, kernel, geometry): ...

    def conv_fwd(x, kernel, geometry): ...      :: (x, kernel) -> (y, residuals)
    def conv_bwd(geometry, kept, delta): ...    :: (residuals, CT y) -> (CT x, CT kernel)

    conv.defvjp(conv_fwd, conv_bwd)

and what runs is such a `jax.custom_vjp`. Its bodies are made of what JAX differentiates, so that `jax.hessian` (forward
over reverse) and gradients of gradients go through them. `defvjp` adds three things: residuals get names for the
policies of `jax.checkpoint`, what only a frozen operand's gradient reads is not kept, and the rule is registered. A
call adds three: without a trace around it, it is one dispatch; both passes run under what was in force at it
(`settings`); and inside `shard_map` all operands differ from device to device as one of them does. Pure forward mode is
what `jax.custom_vjp` refuses; `mode("both_ways")` is the way out.

Inside loops JAX forgets the `custom_jvp`s of a body when it differentiates once more, so a body must have the right
derivative without them too.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name
from jax.core import Tracer
from jax.custom_derivatives import SymbolicZero, custom_vjp_primal_tree_values
from jax.dtypes import float0

from jaxcnnbp._compat import varying_axes
from jaxcnnbp.modes import mode
from jaxcnnbp.recording import recording
from jaxcnnbp.settings import InForce, Under, in_force
from jaxcnnbp.wanted import computed, inputs_read, read_by

# Every rule of this package, under the name that a trace has for its function (`source_of`).
RULES: dict[str, hand_written] = {}


class hand_written:
    """A `jax.custom_vjp` whose residuals have names, and which keeps only those that a wanted gradient reads.

    Args:
      rule: the function that `defvjp` wires; its static arguments are the last ones, and hashable. What runs is a
        `jax.custom_vjp` like it, one for each setting that a call is made under.

    Example:
      >>> import jax
      >>> @hand_written
      ... @jax.custom_vjp
      ... def square(x):
      ...   return x * x
      >>> square.defvjp(lambda x: (x * x, x), lambda x, delta: (2 * x * delta,))
      >>> jax.grad(square)(3.), jax.hessian(square)(3.)
      (Array(6., dtype=float32, weak_type=True), Array(2., dtype=float32, weak_type=True))
    """

    fwd: Callable[..., tuple[Any, Any]]
    bwd: Callable[..., tuple[Any, ...]]
    num_static: int
    shared: tuple[str, ...] | None

    def __init__(self, rule: Any):
        self.function: Callable[..., Any] = rule.__wrapped__
        functools.update_wrapper(self, self.function)
        self.name = self.function.__name__.lstrip("_")

    def defvjp(
        self,
        fwd: Callable[..., tuple[Any, Any]],
        bwd: Callable[..., tuple[Any, ...]],
        shared: tuple[str, ...] | None = None,
    ) -> None:
        """Wires the rule.

        Args:
          fwd: `(*operands, *static)` to the output and what is kept for `bwd`; what is neither an operand nor an
            output of floats gets a `checkpoint_name`, such as `extreme_pool.winners`.
          bwd: `(*static, kept, delta)` to a gradient for every operand, linear in `delta`; None for an operand of
            integers. One that nobody asked for is dead code; as a `partial` (`wanted`) it is not even traced. The delta
            of an integer output is not read.
          shared: for a rule that works on each example by itself, the fields of `kept` that all examples share. Its
            first operand, its output and all else that is kept have the examples along their first axis, or are
            one vector; the other operands are shared as well.
        """
        self.fwd, self.bwd, self.shared = fwd, bwd, shared
        self.num_static = len(inspect.signature(bwd).parameters) - 2
        RULES[source_of(self.function)] = self

    def __call__(self, *args: Any) -> Any:
        count = len(args) - self.num_static
        if recording.value is not None:
            recording.value.note(self.name, args[:count], lambda: self._passes(*args))
        wire = _custom_vjp
        if mode.value == "both_ways":  # imported only where somebody asks for it
            wire = importlib.import_module("jaxcnnbp.both_ways").custom_jvp
        arrays, tree = jax.tree.flatten(args[:count])
        operands = tree.unflatten(unify_varying_axes(*arrays))
        return _wired(self, wire, in_force(), len(args))(*operands, *args[count:])

    def kept(self, operands: tuple[Any, ...], static: tuple[Any, ...]) -> tuple[Any, Any]:
        """The output, and what is kept, with names: one dispatch if called eagerly."""
        y, kept = _kept(self, static, operands)
        given, is_operand = jax.tree.leaves(operands), lambda a: type(a) is Operand
        return y, jax.tree.map(lambda a: given[a.place] if is_operand(a) else a, kept, is_leaf=is_operand)

    def named(self, kept: Any, operands: Any, y: Any) -> Any:
        """What is kept beyond the operands and `y`, with names by which a policy of `jax.checkpoint` can save it."""
        outputs = [a for a in jax.tree.leaves(y) if jnp.issubdtype(jax.typeof(a).dtype, jnp.inexact)]
        others = set(map(id, [*jax.tree.leaves(operands), *outputs]))

        def name(path: Any, leaf: Any) -> Any:
            field = ".".join([self.name, *(str(key.name) for key in path[:1] if hasattr(key, "name"))])
            return leaf if id(leaf) in others else checkpoint_name(leaf, field)

        return jax.tree.map_with_path(name, kept)

    def _passes(self, *args: Any) -> None:
        """Both passes, for `explain_choice` to see what they choose."""
        y, kept = self.fwd(*args)
        delta = jax.tree.map(lambda a: a if jnp.issubdtype(a.dtype, jnp.inexact) else Zero(a.shape, float0).array(), y)
        for gradient in self.bwd(*args[len(args) - self.num_static :], kept, delta):
            computed(gradient)

    def _fwd(self, *args: Any) -> tuple[Any, Any]:
        count = len(args) - self.num_static
        primals, static = args[:count], args[count:]
        operands = custom_vjp_primal_tree_values(primals)
        wanted = tuple(any(p.perturbed for p in jax.tree.leaves(a)) for a in primals)
        y, kept = self.kept(operands, static)
        unread = set() if all(wanted) else self._unread(kept, y, static, wanted)
        leaves, tree = jax.tree.flatten(kept)
        rows = enumerate(leaves)
        return y, tree.unflatten([_emptied(a, wanted) if i in unread or jnp.size(a) == 0 else a for i, a in rows])

    def _bwd(self, *args: Any) -> tuple[Any, ...]:
        *static, kept, delta = args
        delta = jax.tree.map(lambda d: Zero.like(d) if type(d) is SymbolicZero else d, delta)
        return pull(self.bwd, tuple(static), _wanted_by(kept), kept, delta)

    def _unread(self, kept: Any, y: Any, static: tuple[Any, ...], wanted: tuple[bool, ...]) -> set[int]:
        """The leaves of `kept` that only the gradients of frozen operands are computed from."""
        delta = jax.tree.map(lambda a: a if jnp.issubdtype(a.dtype, jnp.inexact) else Zero(a.shape, float0), y)
        # What has no element to begin with, as in an empty batch, is one of those that `pull` fills.
        kept = jax.tree.map(lambda a: a if jnp.size(a) else _emptied(a, wanted), kept)
        read = inputs_read(_read_by_gradients.trace(self.bwd, static, wanted, kept, delta).jaxpr.jaxpr)
        return {i for i in range(len(jax.tree.leaves(kept))) if not read[i]}


Wire = Callable[[Callable[..., Any], "hand_written", InForce, tuple[int, ...]], Callable[..., Any]]


@functools.cache
def _wired(rule: hand_written, wire: Wire, settings: InForce, num_args: int) -> Callable[..., Any]:
    """`rule`, whose passes run under the `settings` of its call also where they are traced after it."""
    static = tuple(range(num_args - rule.num_static, num_args))
    function = jax.jit(rule.function, static_argnums=static, inline=True)
    return one_dispatch(*static)(wire(function, rule, settings, static))


def _custom_vjp(function: Callable[..., Any], rule: hand_written, settings: InForce, static: tuple[int, ...]) -> Any:
    wired = jax.custom_vjp(function, static)
    wired.defvjp(Under(settings, rule._fwd), Under(settings, rule._bwd), symbolic_zeros=True)
    return wired


def one_dispatch(*static_argnums: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A function as one dispatch where it is called with arrays, and as it is where it is traced.

    Behind a `jax.jit` the function of a `jax.custom_vjp` is traced before it is known that `fwd` is wanted instead.
    """

    def decorate(fun: Callable[..., Any]) -> Callable[..., Any]:
        jitted = jax.jit(fun, static_argnums=static_argnums)

        @functools.wraps(fun)
        def call(*args: Any) -> Any:
            if not any(isinstance(a, Tracer) for a in jax.tree.leaves(args)):
                return jitted(*args)
            try:
                return fun(*jax.tree.map(_of_jax, args))
            except NotImplementedError:  # a `shard_map` outside of `jax.jit` takes no `custom_vjp` as these are wired
                return jitted(*args)

        return call

    return decorate


def _of_jax(a: Any) -> Any:
    """NumPy's array as JAX's, which a jitted function would see; those of integers' deltas are no arrays to JAX."""
    return jnp.asarray(a) if isinstance(a, np.ndarray) and a.dtype != float0 else a


@one_dispatch(0, 1)
def _kept(rule: hand_written, static: tuple[Any, ...], operands: tuple[Any, ...]) -> tuple[Any, Any]:
    y, kept = rule.fwd(*operands, *static)
    # An operand is no output: one that is infinite on purpose would be a fault under `jax_debug_infs`.
    places = {id(a): Operand(place) for place, a in enumerate(jax.tree.leaves(operands))}
    return y, jax.tree.map(lambda a: places.get(id(a), a), rule.named(kept, operands, y))


@one_dispatch(0, 1, 2)
def pull(bwd: Callable[..., Any], static: tuple[Any, ...], wanted: tuple[bool, ...] | None, kept: Any, delta: Any):
    """The gradients of those operands that are `wanted`, all of them if None: one dispatch if called eagerly.

    Inside `shard_map` they differ from device to device as their operands do, zeros too.
    """
    axes = frozenset[str]().union(*(varying_axes(a) for a in jax.tree.leaves((kept, delta)) if isinstance(a, Array)))
    gradients = map(computed, _pulled(bwd, static, wanted, kept, delta))
    return jax.tree.map(lambda g: _varying_over(axes, g), tuple(gradients))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _read_by_gradients(bwd: Callable[..., Any], static: Any, wanted: tuple[bool, ...], kept: Any, delta: Any) -> Any:
    """What `pull` is computed from: never run, only traced."""
    return list(map(read_by, _pulled(bwd, static, wanted, kept, delta)))


def _pulled(bwd: Callable[..., Any], static: Any, wanted: tuple[bool, ...] | None, kept: Any, delta: Any) -> list[Any]:
    delta = jax.tree.map(lambda d: d.array() if type(d) is Zero else d, delta, is_leaf=lambda d: type(d) is Zero)
    found = bwd(*static, jax.tree.map(_filled, kept), delta)
    return [g if w else None for g, w in zip(found, wanted or (True,) * len(found), strict=True)]


def source_of(function: Callable[..., Any]) -> str:
    """What a trace calls `function`: `name at file:line`."""
    code = inspect.unwrap(function).__code__
    return f"{function.__name__} at {code.co_filename}:{code.co_firstlineno}"


@jax.tree_util.register_static
@dataclass(frozen=True)
class Operand:
    """Stands for an operand that is kept."""

    place: int


@jax.tree_util.register_static
@dataclass(frozen=True)
class Zero:
    """A delta that is zero: that of an output that nobody read, or of integers, which is not read."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @classmethod
    def like(cls, symbolic: Any) -> Zero:
        """For the symbolic zero that JAX hands to a pullback."""
        return cls(symbolic.shape, symbolic.dtype)

    def array(self) -> Any:
        """The zeros themselves; for integers something that has their type, since nobody reads it."""
        return np.zeros((), float0) if self.dtype == float0 else jnp.zeros(self.shape, self.dtype)


# JAX keeps one tree of residuals for all traces of a rule, whoever is frozen in them. So what is not kept leaves an
# array without elements in its place; its shape, (0, 1 and a bit for each operand that has a gradient, *shape of the
# residual), says what a tree may not.


def _emptied(residual: Any, wanted: tuple[bool, ...]) -> Array:
    digits = "".join("1" if flag else "0" for flag in wanted)
    return jnp.zeros((0, int(f"1{digits}", 2), *residual.shape), residual.dtype)


def _filled(residual: Any) -> Array:
    return residual if jnp.size(residual) else jnp.zeros(residual.shape[2:], residual.dtype)


def _wanted_by(kept: Any) -> tuple[bool, ...] | None:
    """Which gradients are wanted, None for all, from what is kept for them."""
    bits = next((a.shape[1] for a in jax.tree.leaves(kept) if jnp.size(a) == 0), None)
    return None if bits is None else tuple(digit == "1" for digit in f"{bits:b}"[1:])


def unify_varying_axes(*arrays: Array) -> tuple[Array, ...]:
    """Casts operands to the union of their varying mesh axes (`lax.pcast`).

    Its transpose is the psum of a shared kernel's gradient. lax does this itself, `jax.custom_vjp` does not.
    """
    every = frozenset[str]().union(*map(varying_axes, arrays))
    return tuple(_varying_over(every, a) for a in arrays)


def _varying_over(axes: frozenset[str], a: Array) -> Array:
    missing = tuple(sorted(axes - varying_axes(a)))
    return lax.pcast(a, missing, to="varying") if missing else a


def axis_in_front(*arrays: Any) -> tuple[Any, ...]:
    """The same arrays, under `vmap` with the mapped axis in front.

    If a rule's function and its `fwd` compute the output in different ways, `vmap` may leave its axis at different
    places in the two, but JAX notes it only once. So both say where it is: an axis that is added and taken away, which
    costs nothing, takes the mapped one to the front.
    """
    return tuple(lax.squeeze(lax.expand_dims(a, (0,)), (0,)) for a in arrays)
