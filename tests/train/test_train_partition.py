"""Over eight devices no rule moves an activation: the compiled gradient of every rule, read collective by collective.

Each case of `cases.py` is differentiated with its images spread over eight devices and all else on every device. What
the compiled program may exchange are gradients of what all devices share, in an all-reduce; anything as large as the
activations, and any other collective, is a gather in disguise.
"""

from __future__ import annotations

import json
import types
from pathlib import Path

import pytest
from cases import ALL, Case
from running import environment, python

DEVICES = 8

PROGRAM = """
import json, math, re, sys
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from test_train_partition import CASES, DEVICES, batch_axis, planted

assert len(jax.devices()) == DEVICES
mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(AxisType.Auto,))
COLLECTIVE = re.compile(
    r"= (.*?) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter|collective-broadcast)(?:-start)?[(]"
)

def sizes(shapes):
    return [math.prod(int(n) for n in dims.split(",") if n) for dims in re.findall(r"[a-z0-9]+[[]([0-9,]*)[]]", shapes)]

def faults(case):
    axis = batch_axis(case)
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in case.shapes]
    first = list(arrays[0].shape)
    first[axis] *= DEVICES
    spread, shared = NamedSharding(mesh, P(*[None] * axis, "data")), NamedSharding(mesh, P())
    arrays[0] = jax.ShapeDtypeStruct(tuple(first), jnp.float32)
    places = (spread, *[shared] * (len(arrays) - 1))

    def energy(*arrays):
        # A square, so that delta differs from cell to cell and nothing folds to a constant.
        outputs = [y for y in jax.tree.leaves(case(*arrays)) if jnp.issubdtype(y.dtype, jnp.floating)]
        return sum(jnp.sum(jnp.square(y)) for y in outputs)

    gradient = jax.jit(jax.grad(energy, argnums=tuple(range(len(arrays)))), in_shardings=places, out_shardings=places)
    text = gradient.lower(*arrays).compile().as_text()
    allowed = [math.prod(a.shape) for a in arrays[1:]] + [1]
    found = []
    for shapes, kind in COLLECTIVE.findall(text):
        if kind != "all-reduce" or any(size > max(allowed) for size in sizes(shapes)):
            found.append(kind + " " + shapes)
    return found

wanted = set(json.loads(sys.stdin.read()))
print(json.dumps(["planted", faults(planted)]))
for case in CASES:
    if str(case) in wanted:
        print(json.dumps([str(case), faults(case)]), flush=True)
"""


def batch_axis(case: Case) -> int:
    """Where the images of the first argument stand."""
    numbers = case.options.get("dimension_numbers")
    return numbers[0].index("N") if numbers and isinstance(numbers[0], str) else 0


# Beside the cases of all tests, what has tests of its own.
FURTHER = (
    Case("", "lp_pool", ((2, 6, 4, 2),), dict(norm_type=2.0, window_shape=(2, 2))),
    Case("", "adaptive_avg_pool", ((2, 7, 5, 2),), dict(output_shape=(3, 2))),
    Case("", "adaptive_max_pool", ((2, 7, 5, 2),), dict(output_shape=(3, 2))),
    Case("", "max_pool_with_argmax", ((2, 6, 4, 2),), dict(window_shape=(2, 2), strides=(2, 2))),
    Case("of 11x11 taps, strided", "correlate", ((2, 23, 23, 3), (11, 11, 3, 4)), dict(stride=4)),
    Case("of 32 groups", "correlate", ((2, 6, 6, 32), (3, 3, 1, 32)), dict(groups=32, padding="SAME")),
)
CASES = ALL + FURTHER


def spread(case: Case) -> bool:
    """Whether a case has images that may be spread: none without a batch, none whose groups mix images."""
    batchless = case.name.startswith("no batch") or case.op == "combination_entropy" or len(case.shapes[0]) == 1
    return not batchless and case.options.get("batch_group_count", 1) == 1 and all(case.shapes[0])


SPREAD = [str(case) for case in CASES if spread(case)]


class Planted:
    """A rule that takes every image from another device."""

    shapes = ((2, 3, 4),)
    options = types.MappingProxyType({})

    def __call__(self, x):
        return x[::-1] * x


planted = Planted()


@pytest.mark.slow
def test_no_activation_leaves_its_device() -> None:
    """One program for all of them: it takes half a minute to begin, and each worker would begin its own."""
    here = Path(__file__).parent
    done = python(
        "-c", PROGRAM, input=json.dumps(SPREAD), env=environment(here, here.parent, devices=DEVICES, quick=True)
    )
    assert done.returncode == 0, done.stderr[-3000:]
    exchanged = dict(map(json.loads, done.stdout.splitlines()))
    assert exchanged.pop("planted"), "the check does not see a gather"
    assert len(exchanged) == len(SPREAD) > 100
    assert {case: faults for case, faults in exchanged.items() if faults} == {}
