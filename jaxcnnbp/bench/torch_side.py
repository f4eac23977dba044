"""A case in PyTorch, which is compared with where it is installed and never required."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxcnnbp.bench.cases import Case
from jaxcnnbp.timing import Call, Queued


def why_no_torch() -> str:
    """Why PyTorch is not measured, or nothing if it can be."""
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed."
    if jax.default_backend() == "gpu" and not importlib.import_module("torch").cuda.is_available():
        return "JAX runs on a GPU and this PyTorch on none."
    if jax.default_backend() not in ("cpu", "gpu"):
        return f"PyTorch has no {jax.default_backend()} to compare with."
    return ""


@functools.cache
def torch_module() -> Any:
    """PyTorch, with as many threads as there are cores, and on GPUs as free as JAX is to use TF32."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    return torch


def device_of() -> str:
    """Where JAX runs, in PyTorch's word."""
    return "cuda" if jax.default_backend() == "gpu" else "cpu"


def layouts(rank: int) -> dict[str, Any]:
    """The memory formats that PyTorch is measured in; the better one is reported."""
    torch = torch_module()
    last = {2: torch.channels_last, 3: torch.channels_last_3d}
    return {"channels first": torch.contiguous_format} | ({"channels last": last[rank]} if rank in last else {})


def to_torch(array: jax.Array, layout: Any) -> Any:
    """`(batch, *spatial, channels)` as PyTorch has it, `(batch, channels, *spatial)`, in a memory format."""
    torch = torch_module()
    values = torch.from_numpy(np.array(array, np.float64 if array.dtype == np.float64 else np.float32))
    moved = values.to(device_of(), getattr(torch, array.dtype.name)).movedim(-1, 1)
    return moved.contiguous(memory_format=layout)


def _kernel_to_torch(kernel: jax.Array, case: Case, layout: Any) -> Any:
    """`(*window, in, out)` as `(out, in, *window)`, or as `(in, out, *window)`, flipped, for the transposed."""
    if case.op == "conv_transpose":
        kernel = jax.numpy.flip(kernel, tuple(range(case.rank)))
    order = (case.rank, *range(case.rank), case.rank + 1)  # in, *window, out: as an image whose channels are `out`
    weights = to_torch(kernel.transpose(order), layout)
    return weights if case.op == "conv_transpose" else weights.transpose(0, 1).contiguous(memory_format=layout)


def torch_layer(case: Case) -> Callable[..., Any]:
    """The layer in PyTorch: `f(x, kernel)`, or `f(x)` for a pool."""
    function = getattr(torch_module().nn.functional, f"{case.op}{case.rank}d")
    if case.op == "max_pool":
        return lambda x: function(x, case.window, case.stride, case.padding, case.dilation)
    if case.op == "avg_pool":
        return lambda x: function(x, case.window, case.stride, case.padding)
    if case.op == "conv_transpose":
        return lambda x, kernel: function(x, kernel, None, case.stride, case.padding)
    return lambda x, kernel: function(x, kernel, None, case.stride, case.padding, case.dilation, case.groups)


def synchronised(function: Callable[[], Any]) -> Call:
    """A call that returns when the result is there; of a GPU as many as keep it busy."""
    if device_of() == "cpu":
        return function
    torch = torch_module()
    return Queued(function, lambda _: torch.cuda.synchronize())


def torch_calls(case: Case, operands: tuple[jax.Array, ...], step: str) -> dict[str, Call]:
    """One pass in each memory format, ready to be timed."""
    return {name: synchronised(_pass(case, operands, step, layout)) for name, layout in layouts(case.rank).items()}


def _pass(case: Case, operands: tuple[jax.Array, ...], step: str, layout: Any) -> Callable[[], Any]:
    torch = torch_module()
    layer, x, delta = torch_layer(case), to_torch(operands[0], layout), to_torch(operands[2], layout)
    inputs = (x,) if case.is_pool else (x, _kernel_to_torch(operands[1], case, layout))
    if step == "forward":
        return lambda: _without_graph(torch, layer, inputs)
    wanted = {"input grad": inputs[:1], "kernel grad": inputs[1:], "together": inputs}[step]
    for tensor in wanted:
        tensor.requires_grad_(True)
    if step == "together":

        def both() -> Any:
            y = layer(*inputs)
            return y, torch.autograd.grad(y, wanted, delta)

        return both
    y = layer(*inputs)
    return lambda: torch.autograd.grad(y, wanted, delta, retain_graph=True)


def _without_graph(torch: Any, layer: Callable[..., Any], inputs: tuple[Any, ...]) -> Any:
    with torch.no_grad():
        return layer(*inputs)
