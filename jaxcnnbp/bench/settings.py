"""What a run measures, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

from jaxcnnbp.bench.cases import CASES, PASSES, Case
from jaxcnnbp.bench.networks import NETWORKS, Network
from jaxcnnbp.bench.torch_side import why_no_torch

DTYPES = ("float32", "bfloat16", "float64")


@dataclass(frozen=True)
class Settings:
    """What to measure, and for how long.

    Attributes:
      cases: the layers.
      networks: those whose training steps are measured.
      passes: some of `PASSES`, for the layers.
      dtype: of everything.
      batch_scale: factor on the number of images.
      steps_a_call: how many training steps a call takes; more than one are a loop, `lax.scan` in JAX.
      seconds: to spend on the calls of one row; a slow function is called three times at least.
      torch: whether to measure PyTorch where it is installed.
      keep_memory: whether freed memory stays with the process, see `allocator`.

    Raises:
      ValueError: with the argument and its value.
    """

    cases: tuple[Case, ...] = CASES
    networks: tuple[Network, ...] = NETWORKS
    passes: tuple[str, ...] = PASSES
    dtype: str = "float32"
    batch_scale: float = 1.0
    steps_a_call: int = 1
    seconds: float = 2.0
    torch: bool = True
    keep_memory: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"`dtype` (={self.dtype!r}) must be one of {', '.join(DTYPES)}.")
        if unknown := set(self.passes) - set(PASSES):
            raise ValueError(f"`passes` (={sorted(unknown)}) must be among {', '.join(PASSES)}.")
        for name in ("seconds", "batch_scale", "steps_a_call"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` (={getattr(self, name)}) must be above 0.")

    @property
    def with_torch(self) -> bool:
        """Whether PyTorch is measured."""
        return self.torch and not why_no_torch()
