"""The figures that `docs/scaling.md` starts from, on this machine: decoding pictures, writing and reading checkpoints.

python docs/measure_scaling.py
"""

from __future__ import annotations

import io
import shutil
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxcnnbp.train import Data, Options, Split, TrainState
from jaxcnnbp.train.checkpoints.identity import identity_of
from jaxcnnbp.train.checkpoints.store import Checkpoints
from jaxcnnbp.train.data.pictures import Pictures
from jaxcnnbp.train.layout import ONE_DEVICE
from jaxcnnbp.train.run_state import Best, RunState

PARAMETERS = 25_600_000  # of ResNet-50


def decoding(folder: Path) -> None:
    """JPEGs of 500x375, as ImageNet's are on average, decoded and resized to 224x224 by one thread."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize((500, 375), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=95)
    paths = [folder / f"{number}.jpg" for number in range(200)]
    for path in paths:
        path.write_bytes(stream.getvalue())
    pictures = Pictures(paths, (224, 224), "RGB", skip=False, resize=True, workers=1)
    started = time.perf_counter()
    pictures.read(np.arange(len(paths)))
    print(f"decoding: {len(paths) / (time.perf_counter() - started):,.0f} pictures/s a thread")


def checkpoints(folder: Path) -> None:
    """Parameters, average, momentum and best model of ResNet-50's size: four times its parameters."""
    params = {
        f"layer{n}": {"kernel": jax.random.normal(jax.random.key(n), (PARAMETERS // 16 // 1000, 1000))}
        for n in range(16)
    }
    state = TrainState(params, *[jax.tree.map(jnp.copy, params) for _ in "ao"], jnp.int32(0), jax.random.key(0))
    blank = Split(np.zeros((1, 8, 8, 1), np.uint8), np.zeros(1, np.int32))
    identity = identity_of(Options(), Data("blank", blank, blank, 255, 10), 1, 1, print)
    kept = Checkpoints(folder / "checkpoints", 2, ONE_DEVICE, identity, print)
    kept.save(state, params, RunState(step=1))  # compiles the check sums
    kept.wait()
    started = time.perf_counter()
    kept.save(state, params, RunState(step=2, best=Best(1, 0.5, 1.0)))
    blocked = time.perf_counter() - started
    kept.wait()
    size = sum(path.stat().st_size for path in (folder / "checkpoints" / "2").rglob("*") if path.is_file())
    written = time.perf_counter() - started
    print(f"checkpoint: {size / 1e6:,.0f} MB, training waits {blocked:.2f} s, written after {written:.2f} s")
    started = time.perf_counter()
    kept.restore(state, params)
    print(f"restored and checked in {time.perf_counter() - started:.2f} s")
    kept.close()


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        decoding(folder)
        checkpoints(folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
