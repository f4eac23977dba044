"""Parameters as one plain `.npz` file: array names are `layer/parameter`."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnnbp.errors import InputError, check_output


def save_params(path: Path | str, params: dict[str, dict[str, Any]]) -> None:
    """Write parameters; the file appears whole or not at all.

    Args:
        path: the file to write, with any ending.
        params: layer name to parameter name to array.

    Raises:
        InputError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "params.npz"
        >>> save_params(path, {"dense1": {"bias": np.zeros(2)}})
        >>> load_params(path)
        {'dense1': {'bias': array([0., 0.])}}
    """
    check_output("save", path)
    path = Path(path).resolve()  # a link stays one
    arrays = {f"{layer}/{name}": leaves[name] for layer, leaves in params.items() for name in leaves}
    draft = path.with_name(path.name + ".part")
    try:
        with draft.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise InputError(f"`save` (={path}) cannot be written ({error.strerror}).") from error


def load_params(path: Path | str) -> dict[str, dict[str, np.ndarray]]:
    """Read what `save_params` wrote.

    Args:
        path: the file.

    Returns:
        Layer name to parameter name to array.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    params: dict[str, dict[str, np.ndarray]] = {}
    try:
        # Opened here: numpy leaves a file open that turns out not to be an archive.
        with Path(path).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            for name in file.files:
                layer, _, parameter = name.partition("/")
                params.setdefault(layer, {})[parameter] = file[name]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        # NumPy advises of what is no archive a way that runs whatever the file says.
        reason = "no .npz file of numbers" if "pickle" in str(error) else error
        raise InputError(f"{path}: no readable file of parameters ({reason}).") from error
    return params
