"""What a checkpoint must agree with to be resumed: format, options, data, the version of the package."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxcnnbp.train.data import Data, fingerprint
from jaxcnnbp.train.errors import InputError
from jaxcnnbp.train.options import Options
from jaxcnnbp.train.watch import versions

__all__ = ["FORMAT", "Identity", "identity_of"]

FORMAT = 1  # of what a checkpoint holds; counted up when an older one can no longer be read
_WHERE = ("data", "data_dir")  # where the data lie may change, as long as they are the same


@dataclasses.dataclass(frozen=True)
class Identity:
    """Of which run a checkpoint is.

    Args:
        options: all options.
        data: name and fingerprint of the data set.
        devices: devices along the batch and along the height of images.
        versions: of Python and the packages that figures depend on.
        note: told of differences that change the last bits of the result at most.
    """

    options: dict[str, Any]
    data: dict[str, str]
    devices: dict[str, int]
    versions: dict[str, str]
    note: Callable[[str], None]

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint records."""
        parts = {"options": self.options, "data": self.data, "devices": self.devices, "versions": self.versions}
        return {"format": FORMAT, **parts}

    def require_same(self, found: dict[str, Any], place: Path) -> None:
        """Refuse a checkpoint of another run.

        Args:
            found: what the checkpoint recorded.
            place: the checkpoint, for the message.

        Raises:
            InputError: another format, version, option or data set; says which, and what to do.
        """
        theirs, ours = found["versions"]["jaxcnnbp"], self.versions["jaxcnnbp"]
        if found["format"] != FORMAT or _release(theirs) != _release(ours):
            fault = f"{place}: was written by jaxcnnbp {theirs}, and this is {ours}"
            raise InputError(f"{fault}; resume with that version, or name another folder to start anew.")
        self._require_options(found["options"], place)
        if found["data"]["fingerprint"] != self.data["fingerprint"]:
            fault = f"{place}: was made from other data ({found['data']['name']}) than these ({self.data['name']})"
            raise InputError(f"{fault}; give the data of that run, or name another folder to start anew.")
        self._note_differences(found, place)

    def require_arrays(self, found: dict[str, Any], wanted: dict[str, Any], place: Path) -> None:
        """Refuse a checkpoint whose arrays are not those of this run's network.

        Args:
            found: name to shape and type, as recorded.
            wanted: arrays by name.
            place: the checkpoint, for the message.

        Raises:
            InputError: a network of the same name but another shape.
        """
        ours = {name: (list(a.shape), a.dtype.name) for name, a in wanted.items()}
        theirs = {name: (kind["shape"], kind["dtype"]) for name, kind in found.items()}
        if ours != theirs:
            name = next(iter(sorted({*ours} ^ {*theirs}) or [n for n in ours if ours[n] != theirs[n]]))
            fault = f"{place}: holds another network (its `{name}` is {theirs.get(name)}, this one's {ours.get(name)})"
            raise InputError(f"{fault}; name another folder to start anew.")

    def _require_options(self, found: dict[str, Any], place: Path) -> None:
        names = [name for name in {**found, **self.options} if name not in _WHERE]
        other = [name for name in names if found.get(name, ...) != self.options.get(name, ...)]
        if other:
            name = other[0]
            fault = f"`{name}` (={self.options.get(name)}) is {found.get(name)} in {place}"
            raise InputError(f"{fault}; give the options of that run, or name another folder to start anew.")

    def _note_differences(self, found: dict[str, Any], place: Path) -> None:
        other = [f"{name} {found['versions'].get(name)}" for name in self.versions
                 if found["versions"].get(name) != self.versions[name]]  # fmt: skip
        if found["devices"] != self.devices:
            other.append(f"{found['devices']['data']} x {found['devices']['height']} devices")
        if other:
            self.note(f"{place}: was written with {', '.join(other)}: the result may differ in its last digits.")


def identity_of(
    options: Options, data: Data, data_devices: int, height_devices: int, note: Callable[[str], None]
) -> Identity:
    """The identity of a run.

    Args:
        options: its options.
        data: its data set; all of it is read for the fingerprint.
        data_devices: devices along the batch.
        height_devices: devices along the height of images.
        note: as `Identity` has it.

    Returns:
        The identity.
    """
    named = {"name": data.name, "fingerprint": fingerprint(data)}
    devices = {"data": data_devices, "height": height_devices}
    return Identity(dataclasses.asdict(options), named, devices, versions(), note)


def _release(version: str) -> list[str]:
    """The part of a version that says whether results may differ: before 1.0 the first two numbers, then the first."""
    numbers = version.split(".")
    return numbers[:2] if numbers[0] == "0" else numbers[:1]
