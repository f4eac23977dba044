"""A JAX trace of a few steps, in which every operation stands under its layer and rule, and the time each rule took."""

from __future__ import annotations

import collections
import gzip
import json
import math
import re
from pathlib import Path
from typing import Any

import jax

from jaxcnnbp.errors import InputError

_FIRST, _STEPS = 10, 5  # steps before the trace: the first ones compile and fill the caches; steps in it
_INSTRUCTION = re.compile(r"%?([\w.-]+) = .*?metadata=\{[^}]*op_name=\"([^\"]+)\"")
_ANY_INSTRUCTION = re.compile(r"^ *(?:ROOT )?%?([\w.-]+) = \w+\[([\d,]*)\]\S* ([\w-]+)\((.*?)\)", re.MULTILINE)
_READ = re.compile(r"%([\w.-]+)")
_RULE = re.compile(r"^[a-z_]+\.[a-z_]+$")


class Profiler:
    """Traces steps 11 to 15 of a run, fewer if an epoch ends before.

    XLA names what it runs after its own operations; the compiled step tells which layer and rule each comes from. The
    trace is written twice, as JAX has it (for TensorBoard and XProf) and with these names (for Perfetto), beside a
    table of the time that each layer and rule took.

    Args:
        folder: where to; None traces nothing.

    Raises:
        InputError: the folder cannot be made.
    """

    def __init__(self, folder: str | None) -> None:
        self._folder = None if folder is None else Path(folder)
        self._first: int | None = None
        self._running = False
        self._program: dict[str, str] = {}
        if self._folder is not None:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"`profile` (={folder}) cannot be made ({error.strerror}).") from error

    def before_step(self, step: int) -> None:
        """Begin the trace if it is time."""
        if self._folder is None:
            return
        self._first = step if self._first is None else self._first
        if step == self._first + _FIRST:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # Python's own calls would fill the trace
            jax.profiler.start_trace(self._folder, profiler_options=options)
            self._running = True

    def after_step(self, step: int, function: Any, *arguments: Any) -> None:
        """End the trace if it is time."""
        if not self._running:
            return
        if not self._program:
            lowered = function.lower(*arguments)
            self._program = named_program(lowered.compile().as_text(), lowered.as_text(dialect="hlo", debug_info=True))
        if step == (self._first or 0) + _FIRST + _STEPS - 1:
            jax.block_until_ready(arguments)
            self.end()

    def end(self) -> None:
        """Write what there is."""
        if not self._running or self._folder is None:
            return
        jax.profiler.stop_trace()
        self._running = False
        _write_named(self._folder, self._program)


def places_in(program: str) -> dict[str, str]:
    """Where each instruction of a compiled program comes from.

    Example:
        >>> places_in('%dot.1 = f32[] dot(x), metadata={op_name="jit(f)/transpose(jvp(conv1))/conv.kernel_grad/dot"}')
        {'dot.1': 'conv1 conv.kernel_grad'}
    """
    return {name: place_of(path) for name, path in _INSTRUCTION.findall(program)}


def named_program(compiled: str, lowered: str) -> dict[str, str]:
    """`places_in` of a compiled program, with what XLA forgets filled in.

    XLA's rewrite of convolutions for CPUs drops where they come from. Such a convolution takes the place of the one
    before the rewrite that has as many outputs, if there is a single such place; any other instruction takes that of
    its last reader.
    """
    places = places_in(compiled)
    before = collections.defaultdict(set)
    for shape, path in re.findall(r"= \w+\[([\d,]*)\]\S* convolution\(.*?op_name=\"([^\"]+)\"", lowered):
        before[_elements(shape)].add(place_of(path))
    unnamed = [row for row in _ANY_INSTRUCTION.findall(compiled) if row[0] not in places]
    for name, shape, kind, _ in unnamed:
        if kind == "convolution" and len(found := before[_elements(shape)]) == 1:
            places[name] = next(iter(found))
    readers = {
        name: reader for reader, _, _, read in _ANY_INSTRUCTION.findall(compiled) for name in _READ.findall(read)
    }
    for name, *_ in reversed(unnamed):
        if name not in places and readers.get(name) in places:
            places[name] = places[readers[name]]
    return places


def _elements(shape: str) -> int:
    return math.prod(int(n) for n in shape.split(",") if n)


def place_of(path: str) -> str:
    """Layer and rule from the path of scopes that JAX keeps of an operation.

    Example:
        >>> place_of("jit(train_step)/jvp(conv2)/conv.forward/dot_general")
        'conv2 conv.forward'
    """
    layer = re.search(r"(?:jvp\(|/)([a-z]+\d+)[)/]", path)
    rule = next((part for part in re.split(r"[/()]", path) if _RULE.match(part)), None)
    other = "optimizer" if "/optimizer/" in path else "elsewhere"
    return " ".join(filter(None, (layer and layer[1], rule))) or other


def _write_named(folder: Path, places: dict[str, str]) -> None:
    traces = sorted(folder.glob("plugins/profile/*/*.trace.json.gz"), key=lambda path: path.stat().st_mtime)
    if not traces:
        return
    with gzip.open(traces[-1], "rt", encoding="utf-8") as file:
        trace = json.load(file)
    times: collections.Counter[str] = collections.Counter()
    for event in trace["traceEvents"]:
        operation = event.get("args", {}).get("hlo_op")
        if operation is None or event.get("ph") != "X":
            continue
        # Some of XLA's rewrites forget where an operation came from: its own name is all that is left.
        place = places.get(operation, f"unnamed {operation}")
        event["name"] = f"{place}: {event['name']}"
        times[place] += event.get("dur", 0.0)
    with gzip.open(folder / "rules.trace.json.gz", "wt", encoding="utf-8") as file:
        json.dump(trace, file)
    total = sum(times.values()) or 1.0
    rows = [f"{time / _STEPS / 1e3:10.3f}  {100 * time / total:6.1f} %  {place}" for place, time in times.most_common()]
    (folder / "rules.txt").write_text("\n".join(["ms a step   share  layer and rule", *rows]) + "\n", encoding="utf-8")
