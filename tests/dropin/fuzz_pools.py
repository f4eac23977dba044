"""Random pools against PyTorch: values, recorded indices and gradients, over ties, NaN and infinities.

PyTorch computes in float64, from numbers that the narrower types hold exactly: what is wanted is the right answer,
rounded once.

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

KINDS = ("max", "max_pairs", "min", "avg", "avg_pairs", "lp", "adaptive_max", "adaptive_avg", "unpool")
DATA = ("ties", "normal", "special", "mostly -inf")
# Of each type, how far a sum of some terms that is rounded once may lie from that of PyTorch.
TOLERANCE = {
    "float64": dict(rtol=1e-11, atol=1e-11),
    "float32": dict(rtol=2e-5, atol=2e-5),
    "bfloat16": dict(rtol=2**-8, atol=2e-5),
    "float16": dict(rtol=2**-11, atol=2e-5),
}


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
    dtype: str


def draw(seed: int) -> Config:
    """The configuration of a seed, drawn again where a window lies wholly on the padding.

    There PyTorch records a cell that does not exist, and sends delta to the next channel.
    """
    dice = random.Random(seed)
    kind = KINDS[seed % len(KINDS)]
    rank = dice.choice([1, 2, 2, 3])
    most = dice.choice([4, 4, {1: 300, 2: 20, 3: 8}[rank]])  # taps by the hundred have forms of their own
    dilate, pairs = kind in ("max", "max_pairs", "min"), kind.endswith("pairs")
    adaptive = kind.startswith("adaptive")
    while True:
        size = tuple(dice.randint(1, 12 if adaptive else most) for _ in range(rank))
        dilation = tuple(dice.randint(1, 3) if dilate else 1 for _ in range(rank))
        stride = tuple(dice.choice([k, dice.randint(1, 4)]) for k in size)
        half = [k // 2 if kind in ("max", "min", "avg", "unpool") else 2 if pairs else 0 for k in size]
        low = tuple(dice.randint(0, min(h, 4)) for h in half)
        high = tuple(dice.randint(0, h) for h in half) if pairs else low
        extents = ((k - 1) * d + 1 for k, d in zip(size, dilation, strict=True))
        least = [1 if adaptive else max(e - a - b, 1) for e, a, b in zip(extents, low, high, strict=True)]
        spatial = tuple(dice.randint(n, n + 7) for n in least)
        rows = list(zip(spatial, size, stride, low, dilation, strict=True))
        if adaptive or pairs or not any(_off_input(*row) for row in rows):
            break
    return Config(
        kind=kind,
        seed=seed,
        spatial=spatial,
        size=size,
        stride=stride,
        low=low,
        high=high,
        dilation=dilation,
        ceil_mode=not pairs and kind != "unpool" and dice.random() < 0.5,
        count_include_pad=dice.random() < 0.5,
        norm=dice.choice([1.0, 1.5, 2.0, 3.0]),
        data=dice.choice(DATA),
        dtype=dice.choice(["float64", "float64", *TOLERANCE]),
    )


def _off_input(extent: int, taps: int, stride: int, low: int, dilation: int) -> bool:
    starts = range(-low, 0, stride)
    return any(not any(0 <= start + t * dilation < extent for t in range(taps)) for start in starts)


def arrays(config: Config) -> np.ndarray:
    """`(batch, channels, *spatial)`: of many equal values, or with NaN and infinities among them."""
    rng = np.random.default_rng(config.seed)
    x = rng.normal(size=(2, 2, *config.spatial))
    if config.data != "normal":
        x = np.round(x)
    if config.data in ("special", "mostly -inf") and config.kind != "lp":
        often = 1.0 if config.data == "special" else 2.5
        chance = rng.random(x.shape)
        # Unequal padding is -inf to PyTorch, which an infinity of the input must not meet.
        lowest = -100.0 if config.kind == "max_pairs" else -np.inf
        x[chance < 0.35 * often], x[chance < 0.1], x[chance < 0.05] = lowest, np.inf, np.nan
    return rounded(x, config)


def rounded(x: np.ndarray, config: Config) -> np.ndarray:
    """The nearest numbers that the type of `config` holds, in float64."""
    return x.astype(jnp.dtype(config.dtype)).astype(np.float64)


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
    if kind == "min":
        values = _op("max_pool", c)(-x, c.size, c.stride, c.low, c.dilation, c.ceil_mode)
        return -values, None
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
    if kind == "min":
        options = dict(window_dilation=c.dilation, ceil_mode=c.ceil_mode)
        return jaxcnnbp.min_pool(x, c.size, c.stride, padding, **options), None
    if kind == "unpool":
        return jaxcnnbp.max_unpool(*jaxcnnbp.max_pool_with_argmax(x, c.size, c.stride, padding), c.spatial), None
    if kind in ("avg", "avg_pairs"):
        return jaxcnnbp.avg_pool(x, c.size, c.stride, padding, c.count_include_pad, ceil_mode=c.ceil_mode), None
    if kind == "lp":
        return jaxcnnbp.lp_pool(x, c.norm, c.size, c.stride, c.ceil_mode), None
    if kind == "adaptive_max":
        return jaxcnnbp.adaptive_max_pool(x, c.size, return_argmax=True)
    return jaxcnnbp.adaptive_avg_pool(x, c.size), None


def has_one_gradient(config: Config) -> bool:
    """Of the values that meet in one cell here the last has a gradient, in PyTorch all: in windows apart none meet."""
    return config.kind != "unpool" or all(s >= k for s, k in zip(config.stride, config.size, strict=True))


def compare(config: Config) -> None:
    """Raises if values, indices or gradients differ."""
    given = arrays(config)
    tensor = torch.tensor(given, requires_grad=True)
    wanted, wanted_index = by_torch(config, tensor)
    delta = rounded(np.random.default_rng(config.seed + 1).normal(size=wanted.shape), config)
    (wanted_dx,) = torch.autograd.grad(wanted, tensor, torch.tensor(delta))

    @jax.jit
    def both(x: jax.Array, delta: jax.Array) -> tuple[Any, Any, Any]:
        values, pull, index = jax.vjp(functools.partial(by_jaxcnnbp, config), x, has_aux=True)
        assert values.shape == delta.shape, f"{values.shape} where PyTorch has {delta.shape}"
        return values, index, pull(delta)[0]

    values, index, dx = both(*(jnp.asarray(np.moveaxis(a, 1, -1), config.dtype) for a in (given, delta)))
    gradients = (dx, wanted_dx if has_one_gradient(config) else None)
    for found, expected in ((values, wanted), (index, wanted_index), gradients):
        if expected is not None:
            expected = np.moveaxis(expected.detach().numpy(), 1, -1)
            np.testing.assert_allclose(np.asarray(found, np.float64), expected, **TOLERANCE[config.dtype])
    assert values.dtype == dx.dtype == jnp.dtype(config.dtype)


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
