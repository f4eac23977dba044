"""The examples on pictures run as a reader runs them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRINTED = {
    "21_look_at_a_layer": [
        r"^dk\[0,2\] = .* = ",
        r"^dx\[2,2\] = ",
        r"^y\[1,1\] = max\(2, 0, 4, 3\) = 4",
        r"\d+ kB: .*html",
    ],
    "22_a_report_to_hand_on": [r"x +48 of 384 elements wrong", r"kernel +right", r"\d+ kB: "],
}


@pytest.mark.parametrize("name", PRINTED)
def test_example_prints(name: str) -> None:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / f"{name}.py")]
    environment = os.environ | {"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    for pattern in PRINTED[name]:
        assert re.search(pattern, done.stdout, re.MULTILINE), f"{pattern!r} is not in:\n{done.stdout}"
