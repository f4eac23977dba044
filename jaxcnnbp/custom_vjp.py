"""`jax.custom_vjp` that has forward mode too: a rule is written once, backwards, and read in both directions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src.core import unmapped_aval
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Arrays = Sequence[Any]


class custom_vjp:
    def __init__(self, fun, nondiff_argnums=()):
        functools.update_wrapper(self, fun)
        self.fun, self.static = fun, tuple(nondiff_argnums)

    def defvjp(self, fwd, bwd):
        self.fwd, self.bwd = fwd, bwd
        self.call = jax.custom_jvp(self.fun, self.static)
        self.call.defjvp(self.jvp, symbolic_zeros=True)

    def __call__(self, *args):
        return self.call(*args)

    def jvp(self, *args):
        *static, primals, tangents = args
        y, kept = self.fwd(*primals, *static)
        kept, kept_tree = jax.tree.flatten(kept)
        ys, y_tree = jax.tree.flatten(y)
        ts, tree = jax.tree.flatten(tangents)
        perturbed = tuple(type(t) is not SymbolicZero for t in ts)
        outs = tuple(jax.typeof(a).to_tangent_aval() for a in ys)
        is_float = [a.dtype != jax.dtypes.float0 for a in outs]
        linear = Linear(self, tuple(static), tree, perturbed, kept_tree, y_tree, outs)
        found = iter(tangent_p.bind(*kept, *(t for t, p in zip(ts, perturbed) if p), linear=linear))
        dys = [next(found) if f else np.zeros(a.shape, a.dtype) for f, a in zip(is_float, outs)]
        return y, y_tree.unflatten(dys)


@dataclass(frozen=True)
class Linear:
    rule: Any
    static: tuple
    operands: Any
    perturbed: tuple
    kept: Any
    outputs: Any
    avals: tuple

    @property
    def num_kept(self):
        return self.kept.num_leaves

    @property
    def out_avals(self):
        return [a for a in self.avals if a.dtype != jax.dtypes.float0]

    def pull(self, kept, cts):
        rest = iter(cts)
        delta = [np.zeros(a.shape, a.dtype) if a.dtype == jax.dtypes.float0 else next(rest) for a in self.avals]
        found = self.rule.bwd(*self.static, self.kept.unflatten(kept), self.outputs.unflatten(delta))
        flat = self.operands.flatten_up_to(found)
        flat = []
        for sub, d in zip(self.operands.children(), found, strict=True):
            flat += [None] * sub.num_leaves if d is None else sub.flatten_up_to(d)
        return [d for d, p in zip(flat, self.perturbed, strict=True) if p]


@dataclass(frozen=True)
class Batched:
    inner: Any
    axes: tuple
    size: int
    axis_data: Any

    @property
    def num_kept(self):
        return self.inner.num_kept

    @property
    def out_avals(self):
        return [unmapped_aval(self.size, 0, a, self.axis_data.explicit_mesh_axis) for a in self.inner.out_avals]

    def pull(self, kept, cts):
        return jax.vmap(self.inner.pull, (list(self.axes), 0), 0, axis_name=self.axis_data.name, axis_size=self.size,
            spmd_axis_name=self.axis_data.spmd_name)(kept, cts)


@functools.partial(jax.jit, static_argnums=0, inline=True)
def pull(linear, kept, cts):
    return linear.pull(kept, cts)


def push(linear, kept, tangents):
    zeros = [jnp.zeros(a.shape, a.dtype) for a in linear.out_avals]
    return jax.vjp(lambda *cts: linear.pull(kept, list(cts)), *zeros)[1](list(tangents))


push_op = jax.jit(push, static_argnums=0, inline=True)

tangent_p = Primitive("tangent")
tangent_p.multiple_results = True


def split(linear, args):
    return list(args[: linear.num_kept]), list(args[linear.num_kept :])


@tangent_p.def_abstract_eval
def _(*args, linear):
    return linear.out_avals


@tangent_p.def_impl
def impl(*args, linear):
    return list(push_op(linear, *split(linear, args)))


mlir.register_lowering(tangent_p, mlir.lower_fun(lambda *args, linear: list(push(linear, *split(linear, args))), True))


def jvp(primals, dots, *, linear):
    kept, ts = split(linear, primals)
    kept_dot, t_dot = split(linear, dots)
    out = tangent_p.bind(*primals, linear=linear)
    total = [ad.Zero(a) for a in linear.out_avals]
    if any(type(t) is not ad.Zero for t in t_dot):
        total = tangent_p.bind(*kept, *map(ad.instantiate_zeros, t_dot), linear=linear)
    moving = [i for i, d in enumerate(kept_dot) if type(d) is not ad.Zero]
    if moving:
        def of_kept(*some):
            here = list(kept)
            for i, a in zip(moving, some):
                here[i] = a
            return push_op(linear, here, ts)
        more = jax.jvp(of_kept, [kept[i] for i in moving], [kept_dot[i] for i in moving])[1]
        total = [ad.add_tangents(a, b) for a, b in zip(total, more)]
    return out, total


ad.primitive_jvps[tangent_p] = jvp


def transpose(cts, *args, linear):
    kept, ts = split(linear, args)
    cts = [ad.instantiate_zeros(c) for c in cts]
    found = pull(linear, kept, cts)
    return [None] * len(kept) + [d if ad.is_undefined_primal(t) else None for d, t in zip(found, ts)]


ad.primitive_transposes[tangent_p] = transpose


def batch(axis_data, args, dims, *, linear):
    kept, ts = split(linear, args)
    axes, t_axes = split(linear, dims)
    ts = [batching.bdim_at_front(t, d, axis_data.size, axis_data.explicit_mesh_axis) for t, d in zip(ts, t_axes)]
    batched = Batched(linear, tuple(axes), axis_data.size, axis_data)
    outs = tangent_p.bind(*kept, *ts, linear=batched)
    return outs, [0] * len(outs)


batching.fancy_primitive_batchers[tangent_p] = batch
