"""One network on eight devices in three ways, and what they exchange in a step; a CPU plays all eight.

`jaxcnnbp train` takes all the GPUs of a machine; `--devices`, `--shard-params` and `--spatial` choose.
Over several machines, each runs

    jaxcnnbp train --coordinator HOST:PORT --num-processes N --process-id I ...
"""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import re

import jax
import numpy as np

from jaxcnnbp.train import Options, Run, initial_state, load, make_step, train
from jaxcnnbp.train.feed import host_batch
from jaxcnnbp.train.layout import make_layout
from jaxcnnbp.train.program import build_program

COLLECTIVE = re.compile(r"= .*? (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(")
WAYS = {
    "one device": Run(devices=1),
    "images over eight": Run(),
    "and parameters": Run(shard_params=True),
    "bands of rows over two": Run(spatial=2),
}
options = Options(epochs=1, batch=240, learning_rate=0.02)
data = load(options)
program = build_program(options, data)

first = None
for name, run in WAYS.items():
    layout = make_layout(run, options.batch, height=8)
    state = layout.place(initial_state(program, options.seed, (options.batch, 8, 8, 1)))
    batch = layout.put(host_batch(data.train, np.arange(options.batch), layout))
    exchanged = COLLECTIVE.findall(make_step(program, layout).lower(state, batch).compile().as_text())
    counts = ", ".join(f"{exchanged.count(kind)} {kind}" for kind in sorted(set(exchanged))) or "nothing"
    params = jax.tree.leaves(train(options, data, run=run).params)
    first = params if first is None else first
    farthest = max(float(np.abs(a - b).max()) for a, b in zip(params, first, strict=True))
    print(f"{name:23} {layout.data} x {layout.height}  a step exchanges {counts}")
    print(f"{'':23} farthest from one device: {farthest:.0e}")
