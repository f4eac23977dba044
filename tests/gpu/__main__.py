"""Look at an accelerator: right, deterministic, fast, which form, trained; in this order, each into a file of its own.

    make gpu                                     on a machine with an accelerator, with the interpreter at hand
    python -m tests.gpu --dry                    the same on small shapes, on any machine, in a minute or two

Results go to $OUT, or to build/gpu, as they are found: a run that is killed loses nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from time import monotonic

# On one GPU JAX would take three quarters of the memory for itself, and PyTorch runs in the same process.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
if "--dry" in sys.argv:  # what is computed counts there, not how fast
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
sys.path.insert(0, str(Path(__file__).parents[1]))  # the cases and the check of the tests

import jax

from jaxcnnbp.machine import machine, versions
from tests.gpu import deterministic, fast, forms, right, trained
from tests.gpu.problems import chosen
from tests.gpu.record import Record

# The shares of the time that the steps may take; what is not begun by then is left out.
STEPS = {"right": 4, "deterministic": 1, "fast": 4, "forms": 2, "trained": 1}


def main() -> int:
    """0 if nothing is wrong."""
    arguments = _arguments()
    folder = Path(arguments.out or os.environ.get("OUT") or "build/gpu")
    about = {"machine": machine(), "versions": versions("flax", "torch"), "dry": arguments.dry}
    print(f"{about['machine']['device']} ({about['machine']['platform']}), JAX {jax.__version__}: {folder}", flush=True)
    if about["machine"]["platform"] == "cpu" and not arguments.dry:
        print("JAX sees no accelerator here: --dry looks at small shapes on any machine.", file=sys.stderr)
        return 2
    names, failures, until = arguments.steps.split(","), 0, monotonic()
    for name in names:
        until += 60 * arguments.minutes * STEPS[name] / sum(map(STEPS.__getitem__, names))
        record, started = Record(folder, name, about), monotonic()
        try:
            _step(name, record, arguments, until)
        except Exception as error:  # noqa: BLE001 - the steps to come may still find something
            record.add(name=name, ok=False, error=f"{type(error).__name__}: {error}")
        left_out = sum("left_out" in row for row in record.rows)
        failures += len(record.failures)
        print(
            f"{name}: {len(record.rows)} rows, {len(record.failures)} wrong, {left_out} left out, "
            f"{monotonic() - started:.0f} s",
            flush=True,
        )
    return 1 if failures else 0


def _step(name: str, record: Record, arguments: argparse.Namespace, until: float) -> None:
    dry, workers = arguments.dry, min(16, os.cpu_count() or 1)
    layers, networks = chosen(arguments.layers, dry)
    chip = str(jax.devices()[0].device_kind).lower().replace(" ", "-")
    run: dict[str, Callable[[], None]] = {
        "right": lambda: right.run(record, layers, dry, workers, until),
        "deterministic": lambda: deterministic.run(record, layers, dry, workers, until),
        "fast": lambda: fast.run(record, layers, networks, dry, workers, until, record.path.with_name(f"{chip}.json")),
        "forms": lambda: forms.run(record, layers, dry, workers, until),
        "trained": lambda: trained.run(record, dry, arguments.data),
    }
    run[name]()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--dry", action="store_true", help="small shapes, on any machine")
    parser.add_argument("--steps", default=",".join(STEPS), help=f"some of {', '.join(STEPS)} [default: all]")
    parser.add_argument("--layers", help="names or shell patterns of layers and networks, after commas [default: all]")
    parser.add_argument("--minutes", type=float, default=7.0, help="time for all steps [default: %(default)s]")
    parser.add_argument("--data", help="folder of MNIST-format files to train on [default: scikit-learn's digits]")
    parser.add_argument("--out", help="folder of the results [default: $OUT, or build/gpu]")
    arguments = parser.parse_args()
    if unknown := set(arguments.steps.split(",")) - set(STEPS):
        parser.error(f"--steps (={arguments.steps}) must be among {', '.join(STEPS)}; unknown: {', '.join(unknown)}")
    return arguments


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="Some donated buffers were not usable")
    raise SystemExit(main())
