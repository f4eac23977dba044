"""The examples on pictures run as a reader runs them."""

import re

import pytest
from running import ROOT, STRICT, environment, python

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
    done = python(*STRICT, str(ROOT / "examples" / f"{name}.py"), env=environment(quick=True))
    assert done.returncode == 0, done.stderr
    for pattern in PRINTED[name]:
        assert re.search(pattern, done.stdout, re.MULTILINE), f"{pattern!r} is not in:\n{done.stdout}"
