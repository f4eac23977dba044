"""Checkpoints by Orbax: written while training goes on, whole or not at all, read only if their check sums are right.

    FOLDER/STEP/state     every array of the run by name, whole or each device's part of it
    FOLDER/STEP/about     JSON: options, data, versions, position, history, and a check sum of every array
    FOLDER/best.npz       the parameters of the best epoch, for `load_params`
    FOLDER/damaged/STEP   what could not be read, moved aside
    FOLDER/lock           locked while a run writes here

The best model is part of every checkpoint too: going back to an older one cannot lose it, as the epochs that follow
are repeated bit by bit.

Reference: Orbax, https://orbax.readthedocs.io.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnnbp.errors import InputError, SaveFailed, require
from jaxcnnbp.train.checkpoints.arrays import check_sums, flatten, unflatten
from jaxcnnbp.train.checkpoints.identity import Identity
from jaxcnnbp.train.checkpoints.lock import first_line, hush, locked
from jaxcnnbp.train.checkpoints.npz import save_params
from jaxcnnbp.train.layout import Layout, whole
from jaxcnnbp.train.processes import is_lost
from jaxcnnbp.train.run_state import RunState

# Orbax raises the bare class where a damaged file makes TensorStore fail, and whatever its parsers come upon elsewhere.
_UNREADABLE: tuple[type[Exception], ...] = (Exception,)
_UNWRITABLE = (OSError, ValueError, RuntimeError)
_ROOM = 128 * 1024  # what a checkpoint takes beside the bytes of its arrays


class _Damaged(ValueError):
    """Content that is not what was written."""


@dataclasses.dataclass(frozen=True)
class Restored:
    """What a checkpoint gave back."""

    state: Any
    best: Any  # parameters of the best epoch, or None
    run_state: RunState


class Checkpoints:
    """The checkpoints of one run in one folder.

    Args:
        folder: where they lie; made if absent.
        keep: how many of the newest are kept.
        layout: which device holds what.
        identity: what a checkpoint must agree with to be resumed.
        note: told, in sentences, of what goes wrong without ending the run.

    Raises:
        InputError: Orbax is not installed, or the folder cannot be used.
    """

    def __init__(
        self, folder: Path | str, keep: int, layout: Layout, identity: Identity, note: Callable[[str], None]
    ) -> None:
        self._orbax = require("orbax.checkpoint", "orbax-checkpoint", "train")
        hush()
        self.folder, self._keep, self._layout = Path(folder).absolute(), keep, layout
        if self.folder.name.isdigit() and (self.folder / "state").is_dir():
            fault = f"`checkpoints` (={folder}) is one checkpoint of a run"
            raise InputError(f"{fault}; give the folder of the run, {Path(folder).parent}.")
        self._identity, self._note = identity, note
        self._last_good: int | None = None
        self._pending: int | None = None
        self._fault: str | None = None  # of the last checkpoint, if it could not be written
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = locked(self.folder) if jax.process_index() == 0 else None
            self._manager = self._open()
        except OSError as error:
            raise InputError(f"`checkpoints` (={folder}) cannot be used ({error.strerror or error}).") from error

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there, the newest first."""
        return sorted(self._manager.all_steps(), reverse=True)

    def save(self, state: Any, best: Any, run_state: RunState) -> None:
        """Begin to write a checkpoint; only the copy of the arrays is waited for."""
        self._settle()
        step = run_state.step
        if step in self._manager.all_steps():
            return
        # Copies of our own: the next step takes the state's memory for its own.
        arrays = jax.tree.map(jnp.copy, flatten({"state": state, "best": best}))
        sums, finite = check_sums(arrays)
        if not bool(finite):
            raise ArithmeticError("the state holds values that are not finite")
        about, args = self._about(arrays, sums, run_state), self._orbax.args
        try:
            self._require_room(arrays)
            self._manager.save(step, args=args.Composite(state=args.StandardSave(arrays), about=args.JsonSave(about)))
        except _UNWRITABLE as error:
            self._failed(step, error)
        else:
            self._pending = step

    def wait(self) -> None:
        """Wait until the last checkpoint is written.

        Raises:
            SaveFailed: it could not be; the sentence says why, and which is the last good one.
        """
        self._settle(quiet=True)
        if self._fault is not None:
            raise SaveFailed(self._fault)

    def restore(self, state: Any, best: Any) -> Restored | None:
        """The last good checkpoint; damaged ones that are newer are moved aside and named in notes.

        Raises:
            InputError: the checkpoint is of another run, or none can be read.
        """
        steps, damaged = self.steps(), []
        for step in steps:
            try:
                about = self._read_about(step)
                run_state = RunState.from_json(about["course"])
                run_state = self._identity.require_same(about["identity"], run_state, self.folder / str(step))
                restored = self._read_state(step, about, run_state, state, best)
            except InputError:
                raise
            except _UNREADABLE as error:
                damaged.append(step)
                self._note(f"{self.folder / str(step)}: damaged ({first_line(error)}).")
                continue
            self._move_aside(damaged)
            self._last_good = step
            return restored
        if steps:
            several = f"none of its {len(steps)} checkpoints can be read"
            raise InputError(f"`checkpoints` (={self.folder}): {several}; name another folder to start anew.")
        return None

    def write_best(self, params: Any) -> None:
        """The best model as a file of its own beside the checkpoints."""
        parameters = jax.tree.map(whole, params)
        if jax.process_index() == 0:
            try:
                save_params(self.folder / "best.npz", parameters)
            except InputError as error:
                self._note(f"The best model is in the checkpoints alone: {error}")

    def close(self) -> None:
        """End the threads that write; what is being written is finished."""
        self._settle(quiet=True)
        with contextlib.suppress(*_UNWRITABLE):
            self._manager.close()
        if self._lock is not None:
            self._lock.close()

    def _open(self, clear: bool = True) -> Any:
        settings = self._orbax.CheckpointManagerOptions(max_to_keep=self._keep, cleanup_tmp_directories=clear)
        return self._orbax.CheckpointManager(self.folder, options=settings)

    def _reopened(self) -> Any:
        """A fresh manager, which clears what was half written once its threads have let go of it."""
        for _ in range(20):
            with contextlib.suppress(OSError):
                return self._open()
            time.sleep(0.1)
        return self._open(clear=False)

    def _require_room(self, arrays: dict[str, jax.Array]) -> None:
        """Refuse at once what a full disk would refuse half-way."""
        wanted, free = sum(a.nbytes for a in arrays.values()) + _ROOM, shutil.disk_usage(self.folder).free
        if free < wanted:
            raise OSError(
                errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {free:,} bytes are free, about {wanted:,} wanted"
            )

    def _settle(self, quiet: bool = False) -> None:
        """Wait for the checkpoint that is being written."""
        try:
            self._manager.wait_until_finished()
        except _UNWRITABLE as error:
            self._failed(self._pending or 0, error, quiet)
        if self._pending is not None:
            self._last_good, self._pending, self._fault = self._pending, None, None

    def _failed(self, step: int, error: Exception, quiet: bool = False) -> None:
        if jax.process_count() > 1 and is_lost(error):
            raise error
        self._pending = None
        last = "there is none yet" if self._last_good is None else f"the last good one is of step {self._last_good:,}"
        place = f"The checkpoint of step {step:,} could not be written to {self.folder}"
        self._fault = f"{place} ({first_line(error)}); {last}."
        if jax.process_count() > 1:  # the others may have written their parts: all have to start again
            raise SaveFailed(self._fault) from error
        if not quiet:
            self._note(self._fault)
        with contextlib.suppress(*_UNWRITABLE):  # it says once more what went wrong
            self._manager.close()
        self._manager = self._reopened()

    def _about(self, arrays: dict[str, jax.Array], sums: dict[str, jax.Array], run_state: RunState) -> dict[str, Any]:
        kinds = {
            name: {"shape": list(a.shape), "dtype": a.dtype.name, "sum": np.asarray(sums[name]).tolist()}
            for name, a in arrays.items()
        }
        content = {"identity": self._identity.to_json(), "course": run_state.to_json(), "arrays": kinds}
        return {"content": content, "sum": _sum_of(content)}

    def _read_about(self, step: int) -> dict[str, Any]:
        args = self._orbax.args
        about = self._manager.restore(step, args=args.Composite(about=args.JsonRestore())).about
        if about["sum"] != _sum_of(about["content"]):
            raise _Damaged("its description is not what was written")
        return about["content"]

    def _read_state(self, step: int, about: dict[str, Any], run_state: RunState, state: Any, best: Any) -> Restored:
        like = {"state": state, "best": None if run_state.best is None else best}
        wanted = flatten(like)
        self._identity.require_arrays(about["arrays"], wanted, self.folder / str(step))
        places = map(self._layout.sharding, jax.tree.leaves(like))  # of the leaves themselves: keys are numbers by now
        abstract = {
            name: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place)
            for (name, a), place in zip(wanted.items(), places, strict=True)
        }
        args = self._orbax.args
        found = self._manager.restore(step, args=args.Composite(state=args.StandardRestore(abstract))).state
        arrays = {name: found[name] for name in wanted}
        sums, _ = check_sums(arrays)
        wrong = [name for name in wanted if np.asarray(sums[name]).tolist() != about["arrays"][name]["sum"]]
        if wrong:
            raise _Damaged(f"the check sum of {wrong[0]} is wrong")
        return Restored(**unflatten(arrays, like), run_state=run_state)

    def _move_aside(self, steps: list[int]) -> None:
        if steps and jax.process_index() == 0:
            home = self.folder / "damaged"
            home.mkdir(exist_ok=True)
            for step in steps:
                taken = sum(path.name.split("-")[0] == str(step) for path in home.iterdir())
                (self.folder / str(step)).rename(home / (f"{step}-{taken}" if taken else str(step)))
        if steps:
            self._orbax.multihost.sync_global_processes("damaged checkpoints are moved aside")
            self._manager.reload()


def _sum_of(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
