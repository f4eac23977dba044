"""Several processes as one run, through `jax.distributed`, and the signals that a run heeds."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import jax

from jaxcnnbp.errors import Lost
from jaxcnnbp.train.options import Run

LOST_EXIT_CODE = 69  # EX_UNAVAILABLE of sysexits.h
_MARKS = ("Gloo", "UNAVAILABLE", "DEADLINE_EXCEEDED", "coordination service")
_HEARTBEAT = 100  # seconds without a sign of life after which JAX's coordinator gives a process up


@contextlib.contextmanager
def joined(run: Run) -> Iterator[Callable[[], None]]:
    """Join the other processes of a run, if it has any, and leave them at the end.

    Raises:
        Lost: the others did not come, or one of them is gone.
    """
    if run.coordinator is None:
        yield lambda: None
        return
    limit = max(1, round(run.time_limit))
    who = f"Process {run.process_id} of {run.num_processes}"
    _join(run, limit, who)
    dog = Watchdog(run.time_limit, f"{who} has waited {limit} s for the others; start all again with --resume.")
    try:
        yield dog.beat
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if not is_lost(error):
            raise
        first = str(error).strip().splitlines()[0][:200]
        raise Lost(f"{who} has lost another one ({first}); start all again with --resume.") from error
    finally:
        dog.close()


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another process is gone; JAX raises it as one kind or another.

    Example:
        >>> is_lost(ValueError("UNKNOWN: Gloo AllGather failed")), is_lost(ValueError("no such file"))
        (True, False)
    """
    return isinstance(error, jax.errors.JaxRuntimeError) or any(mark in str(error) for mark in _MARKS)


def _join(run: Run, limit: int, who: str) -> None:
    if jax.distributed.is_initialized():
        return
    alone = f"{who} did not find the others at {run.coordinator} within {limit} s; start all of them."
    dog = Watchdog(limit, alone)
    try:
        jax.distributed.initialize(
            run.coordinator,
            run.num_processes,
            run.process_id,
            initialization_timeout=2 * limit + 10,  # after which XLA would abort the process with a trace of its own
            heartbeat_timeout_seconds=min(limit, _HEARTBEAT),
            shutdown_timeout_seconds=min(limit, _HEARTBEAT),
        )
    except jax.errors.JaxRuntimeError as error:
        raise Lost(alone) from error
    finally:
        dog.close()


class Watchdog:
    """Ends the process, with a sentence, if nobody says for `limit` seconds that it is alive.

    The main thread may be inside a collective that nobody answers, where no exception reaches it: hence the hard exit.
    """

    def __init__(self, limit: float, sentence: str) -> None:
        self._limit, self._sentence = limit, sentence
        self._last, self._closed = time.monotonic(), threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def beat(self) -> None:
        """Say that it is alive."""
        self._last = time.monotonic()

    def close(self) -> None:
        """Watch no longer."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(min(1.0, self._limit / 4)):
            if time.monotonic() - self._last > self._limit:
                sys.stderr.write(f"Error: {self._sentence}\n")
                sys.stderr.flush()
                os._exit(LOST_EXIT_CODE)


@contextlib.contextmanager
def heeded() -> Iterator[Callable[[], bool]]:
    """Take SIGTERM and SIGINT as a wish to stop, in the main thread of a program; gives whether there was one.

    A signal only sets a mark, which is looked at between two steps: a program that is being compiled, a step on its way
    and a checkpoint half written are finished first. A second SIGINT ends the process at once.
    """
    asked = False

    def note(number: int, _: FrameType | None) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked = True

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
