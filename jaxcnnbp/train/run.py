"""How a run is carried out: on which devices and processes, and what is kept of it. None of it changes the task."""

from __future__ import annotations

import dataclasses

from jaxcnnbp.errors import InputError
from jaxcnnbp.train.extension import EXTENSIONS
from jaxcnnbp.train.fields import AT_LEAST_ONE, COUNT, POSITIVE, check_fields, option

__all__ = ["Run"]


@dataclasses.dataclass(frozen=True)
class Run:
    """Devices, processes and checkpoints of one run; the help of each field says what it means.

    What is trained stands in `Options`. A run on other devices gives the same result within rounding, a run that was
    interrupted and resumed on the same devices the same bits.

    Raises:
        InputError: a value outside its range, or values that do not go together, named in one sentence.

    Example:
        >>> Run(resume=True)
        Traceback (most recent call last):
        jaxcnnbp.errors.InputError: `resume` (=True) needs `checkpoints`, the folder to resume from.
    """

    devices: int | None = option(None, "Devices to train on; default: all there are.", AT_LEAST_ONE)
    shard_params: bool = option(False, "Keep each parameter in parts, one a device, instead of whole on all.")
    spatial: int = option(1, "Devices that share one image, each a band of its rows.", AT_LEAST_ONE)
    workers: int = option(4, "Threads that decode pictures.", AT_LEAST_ONE)
    checkpoints: str | None = option(None, "Folder of checkpoints; made if absent.")
    checkpoint_every: int = option(0, "Steps between two checkpoints; 0: one after every epoch.", COUNT)
    keep: int = option(3, "Newest checkpoints that are kept.", AT_LEAST_ONE)
    resume: bool = option(False, "Go on from the last good checkpoint in --checkpoints.")
    extend: str | None = option(
        None,
        "What the rate does if --resume changes --epochs: hold its last value, stretch the schedule from here on,"
        " or restart it after its end.",
        choices=EXTENSIONS,
    )
    profile: str | None = option(None, "Folder of a JAX trace of steps 11 to 15, and of the time each rule took.")
    coordinator: str | None = option(None, "HOST:PORT of process 0, for a run of several processes.")
    num_processes: int | None = option(None, "Number of processes.", AT_LEAST_ONE)
    process_id: int | None = option(None, "Number of this process, from 0.", COUNT)
    time_limit: float = option(300.0, "Seconds to wait for the other processes before giving up.", POSITIVE)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.resume and self.checkpoints is None:
            raise InputError("`resume` (=True) needs `checkpoints`, the folder to resume from.")
        if self.extend is not None and not self.resume:
            raise InputError(f"`extend` (={self.extend}) needs `resume`: only a run that is resumed is extended.")
        given = [part is not None for part in (self.coordinator, self.num_processes, self.process_id)]
        if any(given) and not all(given):
            raise InputError("`coordinator`, `num_processes` and `process_id` go together; give all three or none.")
        if self.process_id is not None and self.process_id >= (self.num_processes or 0):
            bound = f"must be below `num_processes` (={self.num_processes})"
            raise InputError(f"`process_id` (={self.process_id}) {bound}; processes count from 0.")
