"""What the machine can do: the best matrix product and the best copy that any library here reaches."""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnnbp.bench.torch_side import device_of, synchronised, torch_module
from jaxcnnbp.timing import SYSTEM, Call, Clock, Plan, call_of, side_by_side

# Rows of a square matrix and bytes of an array: beyond the caches, and some ten milliseconds.
_SIZES = {"cpu": (2048, 2**27), "gpu": (8192, 2**30)}


@dataclass(frozen=True)
class Limit:
    """The roofline."""

    gflops: float  # 10^9 floating-point operations a second, of the best matrix product
    gbytes: float  # 10^9 bytes a second, read and written, of the best copy
    each: dict[str, float] = field(default_factory=dict)  # the same figures, one for each library that tried

    def seconds(self, flops: float, moved: float) -> float:
        """The time below which no algorithm of so many operations and bytes can come.

        Example:
          >>> Limit(gflops=100.0, gbytes=10.0).seconds(flops=1e9, moved=1e9)
          0.1
        """
        return max(flops / (1e9 * self.gflops), moved / (1e9 * self.gbytes))


def measure_limit(dtype: str, with_torch: bool, seconds: float = 3.0, clock: Clock = SYSTEM) -> Limit:
    """The limit of this machine in one dtype."""
    rows, size = _SIZES.get(jax.default_backend(), _SIZES["gpu"])
    products = _products(rows, dtype, with_torch)
    copies = _copies(size, with_torch)
    # The better moments count: a limit is what the machine does when nothing disturbs it.
    plan = Plan(seconds=seconds / 2)
    product_times = side_by_side([{name: call} for name, call in products.items()], plan, clock)
    copy_times = side_by_side([{name: call} for name, call in copies.items()], plan, clock)
    gflops = {name: 2e-9 * rows**3 / time.low for name, time in product_times.items()}
    gbytes = {name: 2e-9 * size / time.low for name, time in copy_times.items()}
    return Limit(max(gflops.values()), max(gbytes.values()), gflops | gbytes)


def _products(rows: int, dtype: str, with_torch: bool) -> dict[str, Call]:
    values = np.random.default_rng(0).standard_normal((rows, rows), np.float32)
    matrix = jnp.asarray(values, jnp.dtype(dtype))
    calls = {"matmul, JAX": call_of(jax.jit(jnp.matmul).lower(matrix, matrix).compile(), (matrix, matrix))}
    if with_torch:
        torch = torch_module()
        other = torch.from_numpy(values).to(device_of(), getattr(torch, dtype))
        calls["matmul, PyTorch"] = synchronised(lambda: torch.mm(other, other))
    return calls


def _copies(size: int, with_torch: bool) -> dict[str, Call]:
    values = np.ones(size // 4, np.float32)
    array = jnp.asarray(values)
    negate = jax.jit(jnp.negative).lower(array).compile()  # XLA may leave out what only copies
    calls: dict[str, Call] = {"copy to a new array, JAX": call_of(negate, (array,))}
    if jax.default_backend() == "cpu":
        target = np.empty_like(values)
        calls["copy, NumPy"] = lambda: np.copyto(target, values)
    if with_torch:
        torch = torch_module()
        there = torch.from_numpy(values).to(device_of())
        room = torch.empty_like(there)
        calls["copy, PyTorch"] = synchronised(lambda: room.copy_(there))
    return calls
