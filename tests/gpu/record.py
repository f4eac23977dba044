"""What a step found, in a file from the first finding on: a run that is killed loses nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any


class Record:
    """Rows of one step, each a dict with `name` and `ok`."""

    def __init__(self, folder: Path, name: str, about: dict[str, Any]):
        self.rows: list[dict[str, Any]] = []
        self.path = folder / f"{name}.json"
        self._about, self._lock = about, threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, **row: Any) -> None:
        """One more row; a failure is printed as well."""
        with self._lock:
            self.rows.append(row)
            self.path.write_text(json.dumps(self._about | {"rows": self.rows}, indent=0) + "\n", encoding="utf-8")
            if not row.get("ok", True):
                print(f"  WRONG {row}", flush=True)

    @property
    def failures(self) -> list[dict[str, Any]]:
        """The rows that are not as they must be."""
        return [row for row in self.rows if not row.get("ok", True)]


def side_by_side(jobs: Iterable[tuple[Callable[[], None], str]], workers: int, until: float, record: Record) -> None:
    """Jobs in threads, as compilers use few cores each; what has not begun by `until` is left out, by its name."""

    def begun_in_time(job: tuple[Callable[[], None], str]) -> None:
        run, name = job
        if monotonic() > until:
            record.add(name=name, left_out="no time")
            return
        try:
            run()
        except Exception as error:  # noqa: BLE001 - one that fails must not cost the results of all others
            record.add(name=name, ok=False, error=f"{type(error).__name__}: {str(error)[:600]}")

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(begun_in_time, jobs))
