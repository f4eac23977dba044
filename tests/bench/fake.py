"""A clock that does not wait, and functions that take as long as they are told."""

from __future__ import annotations

from collections.abc import Callable

from jaxcnnbp.bench import Clock


class Machine:
    """Time that passes only in calls and sleeps.

    `speed(now)` is how much longer everything takes at that time. A call of `spinner` makes everybody else `slowdown`
    times slower until `spins` seconds later, as threads do that have not gone to sleep.
    """

    def __init__(self, speed: Callable[[float], float] = lambda _: 1.0, spins: float = 0.0, slowdown: float = 10.0):
        self.now, self.speed, self.spins, self.slowdown = 0.0, speed, spins, slowdown
        self.busy_until, self.log = -1.0, []
        self.clock = Clock(lambda: self.now, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.log.append(f"sleep {seconds}")
        self.now += seconds

    def function(self, name: str, seconds: float, first: float | None = None) -> Callable[..., None]:
        costs = iter([] if first is None else [first])

        def call(*_: object) -> None:
            self.log.append(name)
            busy = self.slowdown if self.now < self.busy_until else 1.0
            self.now += next(costs, seconds) * self.speed(self.now) * busy

        return call

    def spinner(self, name: str, seconds: float) -> Callable[[], None]:
        def call() -> None:
            self.log.append(name)
            self.now += seconds
            self.busy_until = self.now + self.spins

        return call
