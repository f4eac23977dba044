"""Two real processes on this machine: the result of one, stopped together, never left hanging by a dead one."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from running import environment

from jaxcnnbp.train import InputError, Run, load_params
from jaxcnnbp.train.processes import LOST_EXIT_CODE

# Six steps an epoch of scikit-learn's digits; the toolbox's mistakes are not the point here.
TASK = ["--batch", "256", "--ema", "0.9", "--augment", "affine", "--quiet"]


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def start(count: int, *options: str, quick: bool = False) -> list[subprocess.Popen]:
    """`jaxcnnbp train` in `count` processes, or in one without a coordinator."""
    address = free_address()
    variables = environment(quick=quick, JAX_PLATFORMS="cpu")
    command = [sys.executable, "-m", "jaxcnnbp", "train", *TASK, *options]
    joined = ["--coordinator", address, "--num-processes", str(count), "--time-limit", "120"]
    own = [[*joined, "--process-id", str(number)] if count > 1 else [] for number in range(count)]
    return [
        subprocess.Popen([*command, *mine], env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for mine in own
    ]


def ended(processes: list[subprocess.Popen]) -> list[tuple[int, str]]:
    """Exit codes, and what stands on standard error."""
    outputs = [process.communicate(timeout=240) for process in processes]
    return [(process.returncode, errors) for process, (_, errors) in zip(processes, outputs, strict=True)]


def wait_for(path: Path, process: subprocess.Popen) -> None:
    while not path.exists():
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.05)


@pytest.mark.slow
def test_two_processes_stopped_by_one_and_resumed_train_what_one_trains(tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    # In float64: with float32 parameters differed by 1.5e-7 up to step 144 and by 4e-4 at step 180, as they do when
    # sums in another order tip a maximum between two nearly equal taps or the sign before a ReLU.
    task = ["--epochs", "12", "--dtype", "float64"]
    options = [*task, "--checkpoints", str(checkpoints), "--checkpoint-every", "6"]
    alone = start(1, *task, "--save", str(tmp_path / "one.npz"))
    assert ended(alone)[0][0] == 0

    two = start(2, *options)
    wait_for(checkpoints / "best.npz", two[0])
    two[1].send_signal(signal.SIGTERM)  # one of them is asked; both stop, after the same step
    codes = [code for code, _ in ended(two)]
    assert codes in ([75, 75], [0, 0])  # the end may come first on a slow day
    again = start(2, *options, "--resume", "--save", str(tmp_path / "two.npz"))
    assert [code for code, _ in ended(again)] == [0, 0]

    one, other = (jax.tree.leaves(load_params(tmp_path / f"{name}.npz")) for name in ("one", "two"))
    for ours, theirs in zip(one, other, strict=True):
        # 72 steps, each with sums of up to 256 images in another order; 3e-16 is what is seen.
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=72 * 16 * 2.0**-53)


@pytest.mark.slow
def test_nobody_waits_for_a_dead_process(tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    two = start(2, "--epochs", "2000", "--checkpoints", str(checkpoints), "--checkpoint-every", "6", quick=True)
    wait_for(checkpoints / "best.npz", two[0])
    two[1].kill()
    (code, errors), _ = ended(two)
    assert code == LOST_EXIT_CODE, errors
    assert "Error: Process 0 of 2 has" in errors
    assert "start all again with --resume." in errors


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_who_is_alone_says_so(number: int) -> None:
    """XLA would end the process by a trace of its own."""
    address = free_address()
    joined = ["--coordinator", address, "--num-processes", "2", "--time-limit", "2", "--process-id", str(number)]
    ((code, errors),) = ended(start(1, *joined))
    assert code == LOST_EXIT_CODE, errors
    assert (
        errors == f"Error: Process {number} of 2 did not find the others at {address} within 2 s; start all of them.\n"
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"coordinator": "here:1"}, "go together; give all three or none"),
        ({"coordinator": "here:1", "num_processes": 2, "process_id": 2}, r"`process_id` \(=2\) must be below"),
        ({"coordinator": "here", "num_processes": 2, "process_id": 1}, r"`coordinator` \(=here\) must be HOST:PORT"),
        ({"time_limit": None}, r"`time_limit` \(=None\) must be a positive number"),
        ({"num_processes": 0}, r"`num_processes` \(=0\) must be a whole number, at least 1"),
    ],
)
def test_processes_that_cannot_be_meant(options: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Run(**options)
