"""A run that is killed in the middle, and resumed to the same bits as one that nobody disturbed.

The same on the command line, as a scheduler would have it (exit code 75 says: stopped by SIGTERM, saved, run me again):

    jaxcnnbp train --checkpoints runs/digits --checkpoint-every 20 --resume
"""

import itertools
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax

from jaxcnnbp.train import Options, Run, Stopped, load_params, train

options = Options(epochs=4, batch=128, ema=0.9, augment="affine")


def bits(params):
    return [bytes(memoryview(jax.device_get(leaf)).cast("B")) for leaf in jax.tree.leaves(params)]


undisturbed = train(options)
with tempfile.TemporaryDirectory() as folder:
    # From Python: `stop` is asked after every step. Here it says yes after a while, again and again.
    run, asked, starts = Run(checkpoints=f"{folder}/asked", resume=True), itertools.count(1), 0

    def tired():
        return next(asked) % 20 == 0

    while True:
        starts += 1
        try:
            result = train(options, run=run, stop=tired)
            break
        except Stopped as stopped:
            print(f"start {starts}: {stopped}")
    print(f"start {starts}: finished; the same bits: {bits(result.params) == bits(undisturbed.params)}")
    best = load_params(Path(folder) / "asked" / "best.npz")
    print(f"best model, of epoch {result.best.epoch}, kept: {bits(best) == bits(undisturbed.best_params)}")

    # From outside: kill -9 as soon as there is a checkpoint.
    command = [sys.executable, "-m", "jaxcnnbp", "train", "--epochs", "4", "--batch", "128", "--ema", "0.9"]
    command += ["--augment", "affine", "--checkpoints", f"{folder}/killed", "--checkpoint-every", "5", "--quiet"]
    process = subprocess.Popen(command)
    while not (Path(folder) / "killed" / "10").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    result = train(options, run=Run(checkpoints=f"{folder}/killed", checkpoint_every=5, resume=True))
    print(f"after kill -9: the same bits: {bits(result.params) == bits(undisturbed.params)}")
