"""What a checkpoint must agree with to be resumed: format, options, data, the version of the package."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxcnnbp.errors import InputError
from jaxcnnbp.machine import versions
from jaxcnnbp.ops.conv import measured
from jaxcnnbp.ops.conv.tuning import in_force
from jaxcnnbp.ops.processor import cpu_kind
from jaxcnnbp.train.data.split import Data, fingerprint
from jaxcnnbp.train.optimizer import Extension, same_rates
from jaxcnnbp.train.options import EXTENSIONS, Options
from jaxcnnbp.train.program import LOSSES, choose_model, steps_per_epoch
from jaxcnnbp.train.run_state import RunState

FORMAT = 1  # of what a checkpoint holds; counted up when an older one can no longer be read
_WHERE = ("data", "data_dir")  # where the data lie may change, as long as they are the same
_RATE = ("epochs", "schedule", "learning_rate", "warmup", "final_rate")  # judged by the rates that they give
_AS_IT_WAS = "give the options of that run, or name another folder to start anew"
_LATER = ("patience",)  # changes no step, only how many there are


@dataclasses.dataclass(frozen=True)
class Identity:
    """Of which run a checkpoint is."""

    options: Options
    data: dict[str, str]  # name and fingerprint of the data set
    devices: dict[str, int]  # devices along the batch and along the height of images
    versions: dict[str, str]  # of Python, the packages that figures depend on, and what implementations are chosen by
    note: Callable[[str], None]  # told of differences that change the last bits of the result at most
    steps: int = 1  # steps of an epoch
    image_shape: tuple[int, ...] = ()  # of one image, which the default model depends on
    extend: str | None = None  # what happens to the rate if the number of epochs has changed; None refuses that
    tuning: str = ""  # digest of the `Tuning` in force, empty for none: other implementations round differently

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint records."""
        options = dataclasses.asdict(self.options)
        parts = {"options": options, "data": self.data, "devices": self.devices, "versions": self.versions}
        return {"format": FORMAT, **parts, "tuning": self.tuning}

    def require_same(self, found: dict[str, Any], run_state: RunState, place: Path) -> RunState:
        """Refuse a checkpoint of another run.

        Raises:
            InputError: another format, version, option or data set; says which, and what to do.
        """
        theirs, ours = found["versions"]["jaxcnnbp"], self.versions["jaxcnnbp"]
        if found["format"] != FORMAT or _release(theirs) != _release(ours):
            fault = f"{place}: was written by jaxcnnbp {theirs}, and this is {ours}"
            raise InputError(f"{fault}; resume with that version, or name another folder to start anew.")
        theirs = _options(found["options"])
        self._require_options(theirs, place)
        if found["data"]["fingerprint"] != self.data["fingerprint"]:
            fault = f"{place}: was made from other data ({found['data']['name']}) than these ({self.data['name']})"
            raise InputError(f"{fault}; give the data of that run, or name another folder to start anew.")
        if (tuned := found.get("tuning", "")) != self.tuning:
            fault = f"`JAXCNNBP_TUNING` (tuning {self.tuning or 'none'}) is {tuned or 'none'} in {place}"
            raise InputError(f"{fault}; name the file of that run, or another folder to start anew.")
        extensions = self._extensions(theirs, run_state, place)
        self._note_differences(found, place)
        return dataclasses.replace(run_state, extensions=extensions)

    def require_arrays(self, found: dict[str, Any], wanted: dict[str, Any], place: Path) -> None:
        """Refuse a checkpoint whose arrays are not those of this run's network.

        Raises:
            InputError: a network of the same name but another shape.
        """
        ours = {name: (list(a.shape), a.dtype.name) for name, a in wanted.items()}
        theirs = {name: (kind["shape"], kind["dtype"]) for name, kind in found.items()}
        if ours != theirs:
            name = next(iter(sorted({*ours} ^ {*theirs}) or [n for n in ours if ours[n] != theirs[n]]))
            fault = f"{place}: holds another network (its `{name}` is {theirs.get(name)}, this one's {ours.get(name)})"
            raise InputError(f"{fault}; name another folder to start anew.")

    def _require_options(self, theirs: Options, place: Path) -> None:
        """Refuse options that would have made the steps taken other steps."""
        before, now = (_meaning(options, self.image_shape) for options in (theirs, self.options))
        if (theirs.corrupt, self.options.corrupt) == ("stop", "skip"):
            before["corrupt"] = "skip"  # no picture was unreadable so far, or the run would have ended
        # If only one of them has `rotate`, say, then `augment`, which stands before it, differs.
        for name, value in before.items():
            if value != now[name]:
                fault = f"`{name}` (={getattr(self.options, name)}) is {getattr(theirs, name)} in {place}"
                raise InputError(f"{fault}; {_AS_IT_WAS}.")

    def _extensions(self, theirs: Options, run_state: RunState, place: Path) -> list[Extension]:
        """The changes of the number of epochs, with that of this run if it is one."""
        ours = self.options
        if ours.epochs * self.steps < run_state.step or ours.epochs < run_state.epoch - 1:
            done = f"`epochs` (={ours.epochs}) are fewer than {place} has done ({run_state.step:,} steps)"
            raise InputError(f"{done}; give more, or name another folder to start anew.")
        if ours.epochs == theirs.epochs:
            self._require_rates(theirs, ours, run_state, place)
            how = run_state.extensions[-1].how if run_state.extensions else self.extend
            if self.extend not in (None, how):
                raise InputError(f"`extend` (={self.extend}) is {how} in {place}; {_AS_IT_WAS}.")
            return run_state.extensions
        alike = dataclasses.replace(ours, epochs=theirs.epochs)
        if not run_state.extensions and same_rates(theirs, ours, self.steps, run_state.step):
            return []
        self._require_rates(theirs, alike, run_state, place)
        fault = f"`epochs` (={ours.epochs}) is {theirs.epochs} in {place}"
        if self.extend is None:
            schedule = f"and the {ours.schedule} schedule would have given the steps taken other rates"
            raise InputError(f"{fault}, {schedule}; give --extend {', '.join(EXTENSIONS[:-1])} or {EXTENSIONS[-1]}, "
                             f"or {_AS_IT_WAS}.")  # fmt: skip
        if self.extend == "restart" and ours.epochs < theirs.epochs:
            raise InputError(f"{fault}, and `extend` (=restart) adds epochs after that; give more of them, or stretch.")
        extension = Extension(self.extend, run_state.step, theirs.epochs, ours.epochs)
        self.note(f"{place}: {extension} (--extend {self.extend}).")
        return [*run_state.extensions, extension]

    def _require_rates(self, theirs: Options, ours: Options, run_state: RunState, place: Path) -> None:
        """Refuse another schedule of the same length that gives other rates."""
        names = [name for name in _RATE if getattr(theirs, name) != getattr(ours, name)]
        if names and (run_state.extensions or not same_rates(theirs, ours, self.steps, run_state.step)):
            fault = f"`{names[0]}` (={getattr(ours, names[0])}) is {getattr(theirs, names[0])} in {place}"
            raise InputError(f"{fault}; {_AS_IT_WAS}.")

    def _note_differences(self, found: dict[str, Any], place: Path) -> None:
        other = [f"{name} {found['versions'].get(name)}" for name in self.versions
                 if found["versions"].get(name) != self.versions[name]]  # fmt: skip
        if found["devices"] != self.devices:
            other.append(f"{found['devices']['data']} x {found['devices']['height']} devices")
        if other:
            self.note(f"{place}: was written with {', '.join(other)}: the result may differ in its last digits.")


def identity_of(
    options: Options,
    data: Data,
    data_devices: int,
    height_devices: int,
    note: Callable[[str], None],
    extend: str | None = None,
) -> Identity:
    """The identity of a run."""
    named = {"name": data.name, "fingerprint": fingerprint(data)}
    devices = {"data": data_devices, "height": height_devices}
    steps, shape = steps_per_epoch(options, data), data.train.images.shape[1:]
    digest = tuning.digest if (tuning := in_force()) else ""
    choice = {"tables of measurements": measured.digest(), "processor": cpu_kind()}
    return Identity(options, named, devices, versions() | choice, note, steps, shape, extend, digest)


def _options(values: dict[str, Any]) -> Options:
    """Recorded options; those that did not exist yet have their defaults."""
    known = {field.name for field in dataclasses.fields(Options)}
    return Options(**{name: value for name, value in values.items() if name in known})


def _meaning(options: Options, image_shape: tuple[int, ...]) -> dict[str, Any]:
    """What options mean, but for the rate: defaults by name, and nothing of what is not used."""
    name, spec = choose_model(options, image_shape)
    unused = {*_WHERE, *_RATE, *_LATER}
    unused |= {"none": {"shift", "rotate", "scale", "shear"}, "shift": {"rotate", "scale", "shear"}}.get(
        options.augment, set()
    )
    unused |= {"sgd": {"momentum", "beta2"}, "momentum": {"beta2"}}.get(options.optimizer, set())
    values = {"model": name, "loss": LOSSES[options.loss] if options.loss else spec.loss}
    return {field: values.get(field, value) for field, value in dataclasses.asdict(options).items()
            if field not in unused}  # fmt: skip


def _release(version: str) -> list[str]:
    """The part of a version that says whether results may differ: before 1.0 the first two numbers, then the first."""
    numbers = version.split(".")
    return numbers[:2] if numbers[0] == "0" else numbers[:1]
