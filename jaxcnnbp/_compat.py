"""What this package needs of JAX that has no public name, one function each; it imports nothing of ours.

Each says why it is needed and what public name would take its place. `tests/test_compat.py` calls them all, so a
release of JAX that moves one of them shows there first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
from jax import Array
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Primitive, unmapped_aval
from jax.extend.core.primitives import convert_element_type_p
from jax.interpreters import ad, batching, mlir

# --- types of arrays


def varying_axes(x: Any) -> frozenset[str]:
    """The axes of the mesh over whose devices `x` differs, inside `jax.shard_map`.

    A rule must mark its operands as lax does. `jax.typeof(x).vma` was the name in earlier releases; `lax.pcast`, which
    sets them, is public, and reading them will have to be.
    """
    return jax.typeof(x).manual_axis_type.varying


def with_weak_type(y: Array, aval: Any) -> Array:
    """`y` with the type `aval`, weak where that is weak: two Python numbers are still one after a convolution.

    `lax.convert_element_type` makes every type a strong one; a `weak_type=` of it would do.
    """
    if jax.typeof(y).weak_type == aval.weak_type:
        return y
    return convert_element_type_p.bind(y, new_dtype=aval.dtype, weak_type=aval.weak_type, sharding=None)


def tangent_type(x: Any) -> Any:
    """The type of a tangent of `x`, with its sharding; `float0` for integers.

    `jax.extend.core.primal_dtype_to_tangent_dtype` says the dtype alone.
    """
    return jax.typeof(x).to_tangent_aval()


def zeros_of_type(aval: Any) -> Array:
    """Zeros of a type, with its sharding and the axes it varies over; `jnp.zeros` cannot be told the latter."""
    return ad.zeros_like_aval(aval)


def type_in_words(aval: Any) -> str:
    """A type as traces show it, `float32[8,28,28,1]`; the text of `jax.typeof(x)` says more of some."""
    return aval.str_short()


# --- rules of a primitive

# `jax.extend.core.Primitive` is public, what JAX does with one is not. A public `custom_jvp` whose linear part may have
# a transpose of its own would take the place of all of them.


def jvp_by(primitive: Primitive, rule: Callable[..., Any]) -> None:
    """Forward mode goes by `rule(primals, tangents, **params)`, some of whose tangents are `is_zero`."""
    ad.primitive_jvps[primitive] = rule


def transpose_by(primitive: Primitive, rule: Callable[..., Any]) -> None:
    """Transposition goes by `rule(deltas, *args, **params)`, some of whose arguments are `is_linear`."""
    ad.primitive_transposes[primitive] = rule


def batch_by(primitive: Primitive, rule: Callable[..., Any]) -> None:
    """`jax.vmap` goes by `rule(over, args, axes, **params)`, with `over` for `vmap_over`, `mapped_type`, `in_front`."""
    batching.fancy_primitive_batchers[primitive] = rule


def lower_as(primitive: Primitive, fun: Callable[..., Any]) -> None:
    """Under `jax.jit` the primitive is `fun(*args, **params)`, a function of JAX with several results."""
    mlir.register_lowering(primitive, mlir.lower_fun(fun, multiple_results=True))


def is_zero(tangent: Any) -> bool:
    """Whether a tangent is known to be zero, and is no array; `jax.custom_derivatives.SymbolicZero` is not this one."""
    return type(tangent) is ad.Zero


def zero_of_type(aval: Any) -> Any:
    """A tangent that is zero, in no array; `jax.custom_derivatives.SymbolicZero` is not taken here."""
    return ad.Zero(aval)


def tangent_array(tangent: Any) -> Array:
    """A tangent, or a delta, as an array, whether it is zero in no array or not."""
    return ad.instantiate_zeros(tangent)


def sum_of_tangents(one: Any, other: Any) -> Any:
    """One tangent and another, each of which may be zero in no array."""
    return ad.add_tangents(one, other)


def is_linear(arg: Any) -> bool:
    """Whether a transposition is by this argument."""
    return ad.is_undefined_primal(arg)


def vmap_over(over: Any, fun: Callable[..., Any], in_axes: Any) -> Callable[..., Any]:
    """`fun`, mapped over the axis that a batching rule is told: `jax.vmap` with its size and names."""
    return jax.vmap(fun, in_axes, 0, axis_name=over.name, axis_size=over.size, spmd_axis_name=over.spmd_name)


def mapped_type(over: Any, aval: Any) -> Any:
    """The type with the axis that a batching rule is told in front."""
    return unmapped_aval(over.size, 0, aval, over.explicit_mesh_axis)


def in_front(over: Any, x: Array, axis: int | None) -> Array:
    """`x` with its mapped axis in front, repeated along a new one if it has none; `jnp.moveaxis` knows no meshes."""
    return batching.bdim_at_front(x, axis, size=over.size, mesh_axis=over.explicit_mesh_axis)


# --- equations of a trace, which is public, while what stands in some of them is not


def context_of(eqn: JaxprEqn) -> AbstractContextManager[Any]:
    """The mesh and the metadata under which an equation was traced; a public `eval_jaxpr` that takes an interpreter
    would enter it by itself.
    """
    return eqn.ctx.manager


def name_of(jaxpr: Jaxpr) -> str:
    """The name of the function that was traced, for who traces it again; profiles show it."""
    return jaxpr.debug_info.func_name


def traced_from(jaxpr: Jaxpr) -> str:
    """The function that was traced and its place, `name at file:line`: by it one knows whose a custom derivative is.

    A name that `jax.custom_vjp` takes and its equation keeps would do.
    """
    return str(jaxpr.debug_info.func_src_info)


def scan_counts(eqn: JaxprEqn) -> tuple[int, int]:
    """How many operands of a scan are constants, and how many are carried: JAX 0.12 keeps them as trees."""
    if "num_consts" in eqn.params:
        return eqn.params["num_consts"], eqn.params["num_carry"]
    consts, carry, _ = eqn.params["ft_in"].unpack()
    return len(consts.vals), len(carry.vals)


def manual_axes(eqn: JaxprEqn) -> frozenset[str]:
    """The axes that a `jax.shard_map` names: its argument `axis_names`."""
    params = eqn.params
    return frozenset(params["newly_manual_axes"] if "newly_manual_axes" in params else params["manual_axes"])


def jvp_of(eqn: JaxprEqn, are_zero: Sequence[bool]) -> tuple[ClosedJaxpr, list[bool]]:
    """The derivative in an equation of `jax.custom_jvp`, and which of the tangents that it gives are known to be zero.

    Args:
      eqn: the equation.
      are_zero: for each operand whether its tangent is.
    """
    jaxpr, consts, zero = eqn.params["jvp_jaxpr_fun"].call_wrapped(*are_zero)
    return ClosedJaxpr(jaxpr, consts), list(zero)


def without_compiler_options(fun: Callable[..., Any]) -> tuple[Callable[..., Any], tuple[tuple[str, Any], ...]]:
    """A function made by `jax.jit(..., compiler_options=...)` as one without, which may be traced, and its options.

    JAX refuses to trace through one that has them. A public way to read what `jax.jit` was told would do.
    """
    info = getattr(fun, "_jit_info", None)
    options = getattr(info, "compiler_options_kvs", ())
    if info is None or not options:
        return fun, ()
    from jax._src.pjit import _cpp_pjit

    return _cpp_pjit(fun.__wrapped__, info._replace(compiler_options_kvs=())), options


def with_compiler_options(eqn: JaxprEqn, options: tuple[tuple[str, Any], ...]) -> JaxprEqn:
    """The call of a compiled function, to be compiled with `options`, as `jax.jit` alone can say it of a function."""
    return eqn.replace(params=eqn.params | {"compiler_options_kvs": options})
