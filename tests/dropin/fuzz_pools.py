"""Random pools against PyTorch in float64: values, recorded indices and gradients, over ties, NaN and infinities.

    python tests/dropin/fuzz_pools.py --count 2000 --seed 1

tries that many configurations, prints those that differ and how many of each kind it tried; the suite runs a sample.
"""

from __future__ import annotations

import argparse
import functools
import random
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F

import jaxcnnbp

KINDS = ("max", "max_pairs", "avg", "avg_pairs", "lp", "adaptive_max", "adaptive_avg", "unpool")


@dataclass(frozen=True)
class Config:
    """One pool: what `kind` does not use is left at its neutral value."""

    kind: str
    seed: int
    spatial: tuple[int, ...]
    size: tuple[int, ...]
    stride: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool
    count_include_pad: bool
    norm: float
    data: str


def draw(seed: int) -> Config:
    """The configuration of a seed; one that PyTorch refuses is drawn again."""
    dice = random.Random(seed)
    kind = KINDS[seed % len(KINDS)]
    rank = dice.choice([1, 2, 2, 3])
    dilate, pairs = kind in ("max", "max_pairs"), kind.endswith("pairs")
    while True:
        size = tuple(dice.randint(1, 4) for _ in range(rank))
        dilation = tuple(dice.randint(1, 3) if dilate else 1 for _ in range(rank))
        stride = size if kind == "unpool" else tuple(dice.randint(1, 4) for _ in range(rank))
        half = [k // 2 if kind in ("max", "avg", "unpool") else 2 if pairs else 0 for k in size]
        low = tuple(dice.randint(0, h) for h in half)
        high = tuple(dice.randint(0, h) for h in half) if pairs else low
        spatial = tuple(dice.randint(1, 8) for _ in range(rank))
        extents = ((k - 1) * d + 1 for k, d in zip(size, dilation, strict=True))
        if all(n + a + b >= e for n, a, b, e in zip(spatial, low, high, extents, strict=True)):
            break
    return Config(
        kind,
        seed,
        spatial,
        size,
        stride,
        low,
        high,
        dilation,
        not pairs and kind != "unpool" and dice.random() < 0.5,
        dice.random() < 0.5,
        dice.choice([1.0, 1.5, 2.0, 3.0]),
        dice.choice(["ties", "normal", "special"]),
    )


def arrays(config: Config) -> np.ndarray:
    """`(batch, channels, *spatial)`: of many equal values, or with NaN and infinities among them."""
    rng = np.random.default_rng(config.seed)
    x = rng.normal(size=(2, 2, *config.spatial))
    if config.data == "normal" or config.kind == "unpool":
        return x
    x = np.round(x)
    if config.data == "special" and config.kind != "lp":
        chance = rng.random(x.shape)
        x[chance < 0.3], x[chance < 0.2], x[chance < 0.1] = -np.inf, np.inf, np.nan
    return x


# --- PyTorch --------------------------------------------------------------------------------------------------------


def _op(name: str, config: Config) -> Any:
    return getattr(F, f"{name}{len(config.size)}d")


def _sizes(values: tuple[int, ...]) -> Any:
    """`lp_pool1d` takes no tuples."""
    return values[0] if len(values) == 1 else values


def _padded(x: torch.Tensor, config: Config, value: float) -> torch.Tensor:
    pairs = zip(reversed(config.low), reversed(config.high), strict=True)
    return F.pad(x, [n for pair in pairs for n in pair], value=value)


def by_torch(config: Config, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Values, and indices where a pool has them; unequal padding is done beforehand."""
    c, kind = config, config.kind
    if kind in ("max", "unpool"):
        pooled = _op("max_pool", c)(x, c.size, c.stride, c.low, c.dilation, c.ceil_mode, return_indices=True)
        return (_op("max_unpool", c)(*pooled, c.size, c.stride, c.low, c.spatial), None) if kind == "unpool" else pooled
    if kind == "max_pairs":
        return _op("max_pool", c)(_padded(x, c, -torch.inf), c.size, c.stride, 0, c.dilation), None
    if kind == "avg":
        return _op("avg_pool", c)(x, c.size, c.stride, c.low, c.ceil_mode, c.count_include_pad), None
    if kind == "avg_pairs":
        mean = functools.partial(_op("avg_pool", c), kernel_size=c.size, stride=c.stride)
        counted = mean(_padded(torch.ones_like(x), c, 0.0))
        total = mean(_padded(x, c, 0.0))
        return (total if c.count_include_pad else torch.where(counted == 0, 0.0, total / counted)), None
    if kind == "lp":
        return _op("lp_pool", c)(x, c.norm, _sizes(c.size), _sizes(c.stride), c.ceil_mode), None
    if kind == "adaptive_max":
        return _op("adaptive_max_pool", c)(x, c.size, return_indices=True)
    return _op("adaptive_avg_pool", c)(x, c.size), None


# --- this package ---------------------------------------------------------------------------------------------------


def by_jaxcnnbp(config: Config, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """The same, `(batch, *spatial, channels)`."""
    c, kind = config, config.kind
    padding = list(zip(c.low, c.high, strict=True))
    if kind in ("max", "max_pairs"):
        options: dict[str, Any] = dict(window_dilation=c.dilation, ceil_mode=c.ceil_mode)
        values, argmax = jaxcnnbp.max_pool_with_argmax(x, c.size, c.stride, padding, **options)
        return values, argmax if kind == "max" else None
    if kind == "unpool":
        return jaxcnnbp.max_unpool(*jaxcnnbp.max_pool_with_argmax(x, c.size, c.stride, padding), c.spatial), None
    if kind in ("avg", "avg_pairs"):
        return jaxcnnbp.avg_pool(x, c.size, c.stride, padding, c.count_include_pad, ceil_mode=c.ceil_mode), None
    if kind == "lp":
        return jaxcnnbp.lp_pool(x, c.norm, c.size, c.stride, c.ceil_mode), None
    if kind == "adaptive_max":
        return jaxcnnbp.adaptive_max_pool(x, c.size, return_argmax=True)
    return jaxcnnbp.adaptive_avg_pool(x, c.size), None


def compare(config: Config) -> None:
    """Raises if values, indices or gradients differ."""
    given = arrays(config)
    tensor = torch.tensor(given, requires_grad=True)
    wanted, wanted_index = by_torch(config, tensor)
    delta = np.random.default_rng(config.seed + 1).normal(size=wanted.shape)
    (wanted_dx,) = torch.autograd.grad(wanted, tensor, torch.tensor(delta))

    @jax.jit
    def both(x: jax.Array, delta: jax.Array) -> tuple[Any, Any, Any]:
        values, pull, index = jax.vjp(functools.partial(by_jaxcnnbp, config), x, has_aux=True)
        return values, index, pull(delta)[0]

    values, index, dx = both(*(jnp.asarray(np.moveaxis(a, 1, -1)) for a in (given, delta)))
    for found, expected in ((values, wanted), (index, wanted_index), (dx, wanted_dx)):
        if expected is not None:
            # Both sum a few dozen float64 terms, in their own order.
            expected = np.moveaxis(expected.detach().numpy(), 1, -1)
            np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)


def main() -> None:
    """Tries `--count` configurations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    torch.set_num_threads(1)
    tried, failed = Counter(), []
    for seed in range(options.seed, options.seed + options.count):
        config = draw(seed)
        tried[config.kind] += 1
        try:
            compare(config)
        except RuntimeError:
            tried["refused by PyTorch"] += 1
        except AssertionError as error:
            failed.append(config)
            print(config, str(error)[:600], flush=True)
        if seed % 200 == 199:
            jax.clear_caches()  # or thousands of programs stay in memory
            print(f"{sum(tried.values())} tried, {len(failed)} differ", flush=True)
    print(f"{sum(tried.values())} tried ({dict(tried)}), {len(failed)} differ")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
