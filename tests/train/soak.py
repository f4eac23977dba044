"""Kill a run at random, again and again, and compare what it ends with, bit by bit, with a run nobody disturbed.

    python tests/train/soak.py --kills 40 --seed 0

prints one line a kill and, at the end, whether parameters, best model and metrics are the same. With `--signal TERM`
the run is asked to stop instead, and has to end with exit code 75 each time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN = ["--data", "digits", "--epochs", "24", "--batch", "128", "--ema", "0.9", "--augment", "affine"]
STOPPED = 75


def command(folder: Path, options: list[str]) -> list[str]:
    """The run with everything it writes in one folder."""
    files = [
        "--checkpoints",
        folder / "checkpoints",
        "--metrics",
        folder / "metrics.jsonl",
        "--save",
        folder / "end.npz",
    ]
    return [sys.executable, "-m", "jaxcnnbp", "train", *RUN, *options, "--quiet", *map(str, files)]


def environment(cache: Path) -> dict[str, str]:
    """Compiled programs are kept, so that a run that is killed soon gets further than compiling."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    keep = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return os.environ | keep | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}


def undisturbed(folder: Path, options: list[str], cache: Path) -> float:
    """A run to its end; returns how long it took."""
    folder.mkdir()
    started = time.monotonic()
    subprocess.run(command(folder, options), env=environment(cache), check=True, capture_output=True)
    return time.monotonic() - started


def disturbed(folder: Path, options: list[str], cache: Path, numbers: list[int], longest: float) -> list[str]:
    """A run that gets a signal again and again, then is left alone; returns a line for each of its starts."""
    folder.mkdir()
    lines = []
    for number in [*numbers, None]:
        again = [*command(folder, options), "--resume"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(again, env=environment(cache), **pipes)
        if number is not None:
            time.sleep(random.uniform(0.0, longest))
            process.send_signal(number)
        _, errors = process.communicate()
        found = [int(path.name) for path in (folder / "checkpoints").glob("[0-9]*") if path.name.isdigit()]
        lines.append(f"start {len(lines) + 1}: exit {process.returncode}, newest checkpoint {max(found, default=None)}")
        # A signal that comes after the end, or before Python listens to it, is none of our doing.
        if process.returncode not in ({0} if number is None else {0, -number, STOPPED}):
            raise SystemExit(f"{lines[-1]}\n{errors.decode()}")
    return lines


def differences(ours: Path, theirs: Path) -> list[str]:
    """What two runs do not end with alike."""
    files = ("end.npz", "checkpoints/best.npz")
    found = [name for name in files if (ours / name).read_bytes() != (theirs / name).read_bytes()]
    return found + (["metrics"] if metrics(ours) != metrics(theirs) else [])


def metrics(folder: Path) -> list[dict]:
    """Figures of the epochs and of the end, without what the clock says."""
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    clock = {"seconds", "images_per_second"}
    return [
        {name: value for name, value in event.items() if name not in clock}
        for event in events
        if event["event"] in ("epoch", "end")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL")
    parser.add_argument("--every", default="5", help="steps between two checkpoints")
    given = parser.parse_args()
    random.seed(given.seed)
    options = ["--checkpoint-every", given.every]
    with tempfile.TemporaryDirectory() as home:
        cache, quiet, restless = (Path(home) / name for name in ("cache", "quiet", "restless"))
        undisturbed(Path(home) / "warm", options, cache)
        longest = undisturbed(quiet, options, cache)
        print(f"undisturbed: {longest:.1f} s", flush=True)
        numbers = [signal.Signals[f"SIG{given.signal}"]] * given.kills
        for line in disturbed(restless, options, cache, numbers, longest):
            print(line)
        found = differences(quiet, restless)
    print(f"differs: {', '.join(found)}" if found else f"the same bits after {given.kills} times SIG{given.signal}")
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
