"""Convolution, bias, activation and pool as one rule, which keeps neither the activation nor what came before it.

With u = x * k + b and a pool over f(u), an f that never falls commutes with the maximum, so that bias and activation
are computed on the pooled array alone, and the backward pass needs of it nothing but y and the winners t*:

    forward        y = f(max_t p[u, t] + b)         p gathers x * k,  because max f(u) = f(max u)
    activation     d = f'(u*) o delta               at the winners: from y, or for some f from u* = u[t*]
    bias grad      db = sum d                       every window has one winner
    winner         du = scatter(d[u] where t == t*[u])
    conv grads     dx, dk by `ops.conv.rule`, from du

What is kept, beside x and k, which the convolution's gradients need:

    pool           relu, leaky relu        identity   logistic, the tanhs   gelu, silu
    max, min       t*, y                   t*         t*, y                 t*, u*        all of the pooled size
    none           y                       nothing    y                     u
    mean           one bit a cell, [u > 0] nothing    f(u)                  u             of the size of u

y is what the next layer keeps as its x, so it costs nothing. An f that falls somewhere (gelu, silu, leaky relu with a
negative slope) is applied before the pool; leaky relu then keeps the bits of u*, or of u where there is no pool.

Ties. Where f is constant the layers one after another give delta to the first of the cells with the same f(u), this
rule to the cell with the largest u. Both give zero times delta where f is flat (relu below 0, a saturated tanh); where
only rounding made f(u) equal, this is the cell that exact arithmetic takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxcnnbp.geometry import Window
from jaxcnnbp.hand_written import hand_written
from jaxcnnbp.ops._dtypes import cast, on_channels, wide
from jaxcnnbp.ops._xla_cpu import compute_once
from jaxcnnbp.ops.activation import ActivationRule, rule_named
from jaxcnnbp.ops.conv.geometry import ConvGeometry
from jaxcnnbp.ops.conv.rule import forward, input_grad, kernel_grad
from jaxcnnbp.ops.dense import sum_to_channels
from jaxcnnbp.ops.pad import Border, pad_forward, pad_input_grad
from jaxcnnbp.ops.pool.max import read_winners, send_to_winners, where_cells, winners
from jaxcnnbp.ops.pool.mean import mean_forward, mean_input_grad
from jaxcnnbp.ops.pool.window_max import identity

# Their slope is one number above zero and another elsewhere: a bit says which.
TWO_SLOPES = ("relu", "leaky_relu")


@dataclass(frozen=True)
class Pool:
    """All that is static about the pool of a block.

    Attributes:
      window: where its taps fall on the output of the convolution.
      kind: `"max"`, `"min"` or `"mean"`.
      count_padding: whether a mean counts padding.
    """

    window: Window
    kind: str = "max"
    count_padding: bool = True


@dataclass(frozen=True)
class Block:
    """All that is static about a block.

    Attributes:
      geometry: of the convolution.
      use_bias: whether a bias is added.
      activation, argument: as `ops.activation.rule_named` takes them.
      pool: the pool, None for none.
      border: what the input is padded with, None for zeros, which the convolution adds itself.
    """

    geometry: ConvGeometry
    use_bias: bool
    activation: str = "relu"
    argument: float | bool | None = None
    pool: Pool | None = None
    border: Border | None = None

    @property
    def rule(self) -> ActivationRule:
        """The activation and its slope."""
        return rule_named(self.activation, self.argument)

    @property
    def slope_from(self) -> str:
        """What f' is written from: `"nothing"`, the `"output"` of f, the `"signs"` of u, or the `"input"` u."""
        if self.activation == "identity":
            return "nothing"
        is_alive = self.pool is None or self.pool.kind != "mean"
        if self.activation in TWO_SLOPES and not (is_alive and self.rule.from_output):
            return "signs"
        return "output" if self.rule.from_output else "input"


class BlockResiduals(NamedTuple):
    """What the backward pass needs."""

    x: Array  # for the kernel gradient
    kernel: Array  # for the input gradient
    winners: Array | None  # the winning tap of each window of a max or min pool, in the narrowest integer
    slope_from: Array | None  # what f' is written from, by `Block.slope_from`; pooled where there are winners


@hand_written
@partial(jax.custom_vjp, nondiff_argnums=(3,))
def block(x: Array, kernel: Array, bias: Array | None, plan: Block) -> Array:
    """`(batch, *spatial, in)` -> `(batch, *output, out)`."""
    return block_fwd(x, kernel, bias, plan)[0]


def block_fwd(x: Array, kernel: Array, bias: Array | None, plan: Block) -> tuple[Array, BlockResiduals]:
    """:: (x, kernel, bias) -> (y, residuals)."""
    terms = (forward(_with_border(x, plan), kernel, plan.geometry), *(() if bias is None else (bias,)))
    pool = plan.pool
    if pool is None:
        y, taps, kept = _activate(terms, plan)
    elif pool.kind == "mean":
        y, taps, kept = _activate_and_average(terms, plan, pool)
    elif plan.rule.from_output:  # one value of f, one slope: then f never falls, and commutes with the maximum
        y, taps, kept = _pool_and_activate(terms, plan, pool)
    else:
        y, taps, kept = _activate_and_pool(terms, plan, pool)
    return y, BlockResiduals(x, kernel, taps, kept)


def block_bwd(plan: Block, kept: BlockResiduals, delta: Array) -> tuple[Array, Array, Array | None]:
    """:: (residuals, CT y) -> (CT x, CT kernel, CT bias); what nobody asked for is dead code to the compiler."""
    pool = plan.pool
    if pool is not None and pool.kind == "mean":
        delta = mean_input_grad(delta, pool.window, pool.count_padding)
    d = through_activation(delta, kept.slope_from, plan)
    du = d
    if pool is not None and kept.winners is not None:
        d = where_cells(pool.window, d, 0)
        du = send_to_winners(d, kept.winners, pool.window)
    dx, dk = input_grad(du, kept.kernel, plan.geometry), kernel_grad(_with_border(kept.x, plan), du, plan.geometry)
    dx = dx if plan.border is None else pad_input_grad(dx, plan.border)
    return dx, dk, sum_to_channels(d) if plan.use_bias else None


def through_activation(delta: Array, kept: Array | None, plan: Block) -> Array:
    """d = f'(u) o delta."""
    if kept is None or delta.size == 0:  # JAX 0.10 cannot unpack the bits of no cell
        return delta
    if plan.slope_from == "signs":
        kept = _unpack_signs(kept, delta)
    return plan.rule.bwd(kept, delta)[0]


def _with_border(x: Array, plan: Block) -> Array:
    return x if plan.border is None else pad_forward(x, plan.border)


# --- forward, by where the activation stands

Stage = tuple[Array, Array | None, Array | None]  # y, the winners, what f' is written from
Terms = tuple[Array, ...]  # of u: x * k, and the bias if there is one


def _activate(terms: Terms, plan: Block) -> Stage:
    f = _activation(terms, plan)
    return f, None, _kept(f, terms, plan)


def _activate_and_average(terms: Terms, plan: Block, pool: Pool) -> Stage:
    f = _activation(terms, plan)
    return mean_forward(f, pool.window, pool.count_padding), None, _kept(f, terms, plan)


def _pool_and_activate(terms: Terms, plan: Block, pool: Pool) -> Stage:
    best, taps = winners(terms[0], pool.window, pool.kind)
    f = _activation((best, *terms[1:]), plan)
    return where_cells(pool.window, f, identity(f.dtype, pool.kind)), taps, f if plan.slope_from == "output" else None


def _activate_and_pool(terms: Terms, plan: Block, pool: Pool) -> Stage:
    best, taps = winners(_activation(terms, plan), pool.window, pool.kind)
    won = compute_once(lambda sums, taps: read_winners(sums, taps, pool.window), terms[0], taps)
    return best, taps, _kept(best, (won, *terms[1:]), plan)


def _u(sums: Array, *bias: Array) -> Array:
    """u = x * k + b, held wide."""
    u = cast(sums, wide(sums.dtype))
    return u + on_channels(cast(bias[0], u.dtype), u) if bias else u


def _activation(terms: Terms, plan: Block) -> Array:
    """f(u), cast once."""

    def f(*terms: Array) -> Array:
        return cast(plan.rule.f(_u(*terms)), terms[0].dtype)

    return compute_once(f, *terms) if plan.slope_from == "output" else f(*terms)


def _kept(f: Array, terms: Terms, plan: Block) -> Array | None:
    """What f' is written from."""
    if plan.slope_from == "output":
        return f
    if plan.slope_from == "signs":
        return compute_once(lambda *terms: _pack_signs(cast(_u(*terms), terms[0].dtype)), *terms)
    return cast(_u(*terms), terms[0].dtype) if plan.slope_from == "input" else None


def _pack_signs(u: Array) -> Array:
    """[u > 0], eight cells of a spatial axis in a byte."""
    return jnp.packbits(u > 0, axis=_packed_axis(u))


def _unpack_signs(bits: Array, like: Array) -> Array:
    """1 where u > 0, -1 elsewhere, in the shape of `like`."""
    axis = _packed_axis(like)
    positive = jnp.unpackbits(bits, axis=axis, count=like.shape[axis]) == 1
    return jnp.where(positive, jnp.ones((), like.dtype), jnp.asarray(-1, like.dtype))


def _packed_axis(u: Array) -> int:
    """The spatial axis that leaves the fewest bits unused; batch and channels may lie on several devices."""
    return min(range(1, u.ndim - 1), key=lambda axis: -(-u.shape[axis] // 8) * 8 / max(u.shape[axis], 1))


block.defvjp(block_fwd, block_bwd, shared=("kernel",))
