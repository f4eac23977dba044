"""The instrument on a machine that is simulated: what it must see, and what must not move it."""

import sys
from pathlib import Path

import pytest

from jaxcnnbp.bench import Plan, Timing, measure, side_by_side
from jaxcnnbp.bench.self_check import SelfCheck, check_of

sys.path.insert(0, str(Path(__file__).parent))
from fake import Machine

MS = 1e-3


@pytest.mark.parametrize("slower", [1.0, 1.05, 1.5, 100.0])
def test_planted_slowdown_is_seen(slower):
    machine = Machine()
    calls = {"a": machine.function("a", MS), "b": machine.function("b", slower * MS)}
    times = side_by_side([calls], Plan(0.1), machine.clock)
    assert times["b"].median / times["a"].median == pytest.approx(slower)


@pytest.mark.parametrize("blocks", [1, 2])
def test_machine_that_slows_down_does_not_move_the_ratio(blocks):
    machine = Machine(speed=lambda now: 1 + now)
    calls = {"a": machine.function("a", MS), "b": machine.function("b", MS)}
    groups = [calls] if blocks == 1 else [{name: call} for name, call in calls.items()]
    times = side_by_side(groups, Plan(1.0, rounds=10, pause=0.0), machine.clock)
    assert times["b"].median / times["a"].median == pytest.approx(1, abs=0.05)


def test_one_after_the_other_would_be_moved():
    """What the test before this one sees if nothing alternates."""
    machine = Machine(speed=lambda now: 1 + now)
    single = [side_by_side([{"a": machine.function("a", MS)}], Plan(1.0), machine.clock)["a"].median for _ in "ab"]
    assert single[1] / single[0] > 1.2


def test_calls_alternate_and_each_goes_first_in_turn():
    machine = Machine()
    calls = {"a": machine.function("a", MS), "b": machine.function("b", MS)}
    side_by_side([calls], Plan(seconds=3 * MS, least=2, warm=0, rouse=0.0), machine.clock)
    assert [entry for entry in machine.log if "sleep" not in entry] == [*"ab", *"abba"]


def test_blocks_take_turns_behind_pauses():
    machine = Machine()
    blocks = [{"a": machine.function("a", MS)}, {"b": machine.function("b", MS)}]
    side_by_side(blocks, Plan(seconds=MS, rounds=2, least=2, warm=0, rouse=0.0, pause=0.5), machine.clock)
    assert machine.log == [
        "sleep 0.5",
        "a",
        "sleep 0.5",
        "b",
        *["sleep 0.5", "a", "sleep 0.5", "b"],
        *["sleep 0.5", "b"],
        *["sleep 0.5", "a"],
    ]


def test_first_calls_do_not_count():
    machine = Machine()
    times = side_by_side([{"a": machine.function("a", MS, first=50.0)}], Plan(0.05), machine.clock)
    assert times["a"].high == pytest.approx(MS)


def test_slow_function_is_called_three_times_and_a_fast_one_not_for_ever():
    machine = Machine()
    times = side_by_side([{"slow": machine.function("slow", 30.0)}], Plan(1.0), machine.clock)
    assert times["slow"].calls == 3
    times = side_by_side([{"fast": machine.function("fast", 1e-9)}], Plan(1.0, most=500), machine.clock)
    assert times["fast"].calls == 500


def test_quartiles():
    timing = Timing.of([1.0, 2.0, 3.0, 4.0, 50.0])
    assert (timing.low, timing.median, timing.high, timing.calls) == (2.0, 3.0, 4.0, 5)
    assert timing.spread == pytest.approx(2 / 3)


def test_names_must_differ():
    with pytest.raises(ValueError, match="blocks"):
        side_by_side([{"a": lambda: None}, {"a": lambda: None}])
    with pytest.raises(ValueError, match="blocks"):
        side_by_side([{}])


@pytest.mark.parametrize(("spins", "ok"), [(0.05, True), (0.2, False), (1e9, False)])
def test_threads_that_spin_are_noticed_unless_the_pause_outlasts_them(spins, ok):
    machine = Machine(spins=spins)
    call = machine.function("a", 2 * MS)
    check = check_of(call, call, machine.spinner("torch", 2 * MS), 0.1, machine.clock)
    assert check.ok is ok
    assert check.interleaved == pytest.approx(1)


def test_call_that_is_not_itself_is_noticed():
    machine = Machine()
    check = check_of(machine.function("a", MS), machine.function("b", 1.04 * MS), None, 0.1, machine.clock)
    assert check.interleaved == pytest.approx(1.04)
    assert not check.ok
    assert "do not believe" in str(check)
    assert "as it must be" in str(SelfCheck(1.01, 0.98))


def test_measure_answers_with_its_noise():
    machine = Machine()
    found = measure(machine.function("a", MS), machine.function("b", 3 * MS), 1.0, jit=False, clock=machine.clock)
    assert found.ratio == pytest.approx(3)
    assert found.noise == pytest.approx(1)
    assert found.ok
    assert "3.00 times as long" in str(found)
    with pytest.raises(TypeError, match="fun_b"):
        measure(len, 3, [])


def test_measure_doubts_itself_on_a_restless_machine():
    machine = Machine(speed=lambda now: 1 + (int(now * 1e5) * 7919 % 13))
    found = measure(machine.function("a", MS), machine.function("b", MS), seconds=0.1, jit=False, clock=machine.clock)
    assert ("do not believe" in str(found)) is not found.ok
