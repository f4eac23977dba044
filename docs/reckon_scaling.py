"""The tables on paper of `docs/scaling.md`: bytes and operations of training steps, over what data sheets promise.

python docs/reckon_scaling.py

Counted in the traced forward pass; nothing is compiled or run. The times are least ones: all products at the peak, each
of them reading its operands from memory and writing its result there once, and everything between them free.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxprs_in_params

from jaxcnnbp.bench.flax_models import FlaxModel
from jaxcnnbp.bench.networks import NETWORKS, Conv, Dense, Layers, MaxPool, MeanGlobal, Network, Norm, Relu, Residual

FLOAT = 4  # bytes
DEVICES = 8
# Arrays of the parameters' size that an update reads and writes: gradient, parameters and moments; parameters, moments.
UPDATE = {"sgd": 3 + 2, "adam": 4 + 3}


@dataclass(frozen=True)
class Device:
    """What a data sheet promises: operations/s of float32 products as JAX computes them by default, bytes/s."""

    name: str
    operations: float
    memory: float


GPU = Device("H100", 494.5e12, 3.35e12)
CHIPS = (GPU, Device("TPU v5e", 197e12, 819e9), Device("TPU v5p", 459e12, 2765e9))
LINKS = {"NVLink": 450e9, "400 Gbit/s": 50e9}  # of one device, bytes/s each way


@dataclass(frozen=True)
class Product:
    """A convolution or dense layer, or a pool, which has no operations here.

    Attributes:
      operations: multiplications and additions of its forward pass, without those by zeros between the cells.
      x, kernel, y: numbers in its arrays.
      halo: numbers that cross the border of two bands of rows, forward (of x) and backward (of delta).
    """

    operations: int
    x: int
    kernel: int
    y: int
    halo: int


def products(jaxpr: Any) -> Iterator[Product]:
    """What the forward pass multiplies and pools, in order."""
    for eqn in jaxpr.eqns:
        (x, *others), y = [v.aval for v in eqn.invars], eqn.outvars[0].aval
        p: dict[str, Any] = eqn.params
        if eqn.primitive.name == "conv_general_dilated":
            numbers, kernel = p["dimension_numbers"], others[0]
            taps = kernel.size // kernel.shape[numbers.rhs_spec[0]]
            operations = 2 * y.size * taps // math.prod(p["lhs_dilation"])
            size = kernel.shape[numbers.rhs_spec[2]]
            halo = _halo(x, y, numbers.lhs_spec[2], size, p["window_strides"][0]) if max(p["lhs_dilation"]) == 1 else 0
            yield Product(operations, x.size, kernel.size, y.size, halo)
        elif eqn.primitive.name == "dot_general":
            (contracted, _), _ = p["dimension_numbers"]
            depth = math.prod(x.shape[axis] for axis in contracted)
            yield Product(2 * y.size * depth, x.size, others[0].size, y.size, 0)
        elif eqn.primitive.name == "reduce_window_max":
            yield Product(0, 0, 0, 0, _halo(x, y, 1, p["window_dimensions"][1], p["window_strides"][1]))
        for inner in jaxprs_in_params(p):
            yield from products(inner)


def _halo(x: Any, y: Any, rows: int, size: int, stride: int) -> int:
    """Rows of x that windows share with the next band, and rows of delta that reach into it."""
    return max(size - stride, 0) * x.size // x.shape[rows] + (size - 1) // stride * y.size // y.shape[rows]


@dataclass(frozen=True)
class Step:
    """One training step of a network on one device."""

    name: str
    parameters: int
    operations: int
    bytes: int
    halo_bytes: int
    exchanges: int

    def seconds(self, device: Device) -> float:
        """At least."""
        return max(self.operations / device.operations, self.bytes / device.memory)

    def bound(self, device: Device) -> str:
        """What the lower bound comes from."""
        return "products" if self.operations / device.operations > self.bytes / device.memory else "memory"


def step_of(network: Network) -> Step:
    """Both gradients cost what the forward pass costs; that of the images is left out."""
    model, images = FlaxModel(network.layers), jax.ShapeDtypeStruct(network.shape, jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    traced = jax.make_jaxpr(lambda v, x: model.apply(v, x, mutable=["batch_stats"])[0])(variables, images)
    found = list(products(traced.jaxpr))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    first = next(p for p in found if p.operations)
    return Step(
        f"{network.name}, {'x'.join(map(str, network.shape))}",
        parameters,
        3 * sum(p.operations for p in found) - first.operations,
        FLOAT
        * (
            sum(3 * (p.x + p.kernel + p.y) for p in found)
            - (first.x + first.kernel + first.y)
            + UPDATE[network.optimizer] * parameters
        ),
        FLOAT * sum(p.halo for p in found),
        2 * sum(p.halo > 0 for p in found),
    )


def resnet50() -> Network:
    """ResNet-50 on 64 images of 224x224."""

    def normed(features: int, window: int, stride: int = 1) -> Layers:
        return Conv(features, window, stride, window // 2, bias=False), Norm()

    layers: Layers = (*normed(64, 7, 2), Relu(), MaxPool(3, 2, 1))
    for features, stride, count in ((64, 1, 3), (128, 2, 4), (256, 2, 6), (512, 2, 3)):
        for number in range(count):
            own = stride if number == 0 else 1
            body = (*normed(features, 1), Relu(), *normed(features, 3, own), Relu(), *normed(4 * features, 1))
            layers += (Residual(body, normed(4 * features, 1, own) if number == 0 else ()), Relu())
    return Network("resnet-50", (64, 224, 224, 3), (*layers, MeanGlobal(), Dense(1000)))


def ring(size: float, link: float) -> float:
    """Seconds of an all-reduce over `DEVICES`: 2 (n - 1) / n of the bytes pass every link."""
    return 2 * (DEVICES - 1) / DEVICES * size / link


def table(head: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    """Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *lines))


def several(steps: list[Step]) -> str:
    """What several GPUs exchange in a step, beside the time that it computes for at least."""
    head = ("batch a device", "gradients", f"step on {GPU.name}", *(f"all-reduce, {link}" for link in LINKS))
    head += ("halo of two bands", "exchanges", *(f"halo, {link}" for link in LINKS))
    return table(head, [_exchanged(s) for s in steps])


def _exchanged(s: Step) -> tuple[str, ...]:
    gradients = FLOAT * s.parameters
    reduced = (ms(ring(gradients, link)) for link in LINKS.values())
    halos = (ms(s.halo_bytes / 2 / link) for link in LINKS.values())  # half of it goes each way
    return s.name, mb(gradients), ms(s.seconds(GPU)), *reduced, mb(s.halo_bytes), str(s.exchanges), *halos


def single(steps: list[Step]) -> str:
    """The least time of a step on one chip."""
    head = ("", "operations", "bytes", *(chip.name for chip in CHIPS))
    rows = [
        (s.name, f"{s.operations / 1e9:,.1f} G", mb(s.bytes), *(f"{ms(s.seconds(c))}, {s.bound(c)}" for c in CHIPS))
        for s in steps
    ]
    return table(head, rows)


def ms(seconds: float) -> str:
    """For reading."""
    return f"{1e3 * seconds:.3g} ms"


def mb(size: float) -> str:
    """For reading."""
    return f"{size / 1e6:,.3g} MB" if size < 1e9 else f"{size / 1e9:.3g} GB"


def main() -> None:
    steps = [step_of(network) for network in (*NETWORKS, resnet50())]
    print(several(steps), single(steps), sep="\n\n")


if __name__ == "__main__":
    main()
