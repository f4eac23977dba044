"""PyTorch's call for a row, in the memory format that suits it better."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jaxcnnbp.timing import Call, Clock, Plan, Timing

_TRIALS = 3


@dataclass(frozen=True)
class Opponent:
    """What PyTorch is measured by."""

    block: dict[str, Call]  # the call under its name, or nothing
    layout: str = ""  # the memory format
    note: str = ""  # why there is no call


def better_layout(candidates: Callable[[], Mapping[str, Call]], clock: Clock) -> Opponent:
    """The fastest of some calls, by a few trials of each; a note if PyTorch refuses, for instance a dtype."""
    try:
        calls = candidates()
        times = {name: _median_of_trials(call, clock) for name, call in calls.items()}
    except (NotImplementedError, RuntimeError) as error:
        return Opponent({}, note=str(error).partition("\n")[0])
    layout = min(times, key=times.__getitem__)
    return Opponent({"torch": calls[layout]}, layout)


def blocks(calls: Mapping[str, Call], other: Opponent) -> list[Mapping[str, Call]]:
    """The JAX sides, which alternate call by call; PyTorch in a block of its own, and this package once more in one."""
    return [calls, *([{"alone": calls["jaxcnnbp"]}, other.block] if other.block else [])]


def _median_of_trials(call: Call, clock: Clock) -> float:
    clock.sleep(Plan().pause)
    call()
    times: list[float] = []
    for _ in range(_TRIALS):
        begin = clock.now()
        call()
        times.append(clock.now() - begin)
    return Timing.of(times).median
