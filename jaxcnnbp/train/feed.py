"""Keeps the step fed: a thread reads the next batches and puts them on the devices while the step runs.

The order follows from seed and epoch alone, however many threads, processes or devices there are; each process reads
only the rows that its devices hold.
"""

from __future__ import annotations

import collections
import concurrent.futures
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TypeVar

import numpy as np

from jaxcnnbp.train.data.split import Batch, Split, read_images
from jaxcnnbp.train.layout import Layout

_Item = TypeVar("_Item")
_DEPTH = 2  # batches that wait on the devices: one would do, if reading never took longer than a step
_END = object()


def batches(seed: int, epoch: int, count: int, batch: int) -> Iterator[np.ndarray]:
    """The batches of one epoch as indices: a permutation drawn from seed and epoch, cut into pieces.

    Example:
        >>> [len(indices) for indices in batches(seed=0, epoch=1, count=10, batch=4)]
        [4, 4, 2]
    """
    order = np.random.default_rng([seed, epoch]).permutation(count).astype(np.int32)
    yield from _cut(order, batch)


def in_order(count: int, batch: int) -> Iterator[np.ndarray]:
    """The batches of a test: all indices in order, cut into pieces."""
    yield from _cut(np.arange(count, dtype=np.int32), batch)


def feed(
    split: Split, indices: Iterable[np.ndarray], layout: Layout, stop: Callable[[], bool] | None = None
) -> Generator[Batch]:
    """Batches on the devices, read ahead of the step that takes them.

    Raises:
        DataError: an image that cannot be read, if the split is to stop at such.
    """
    return ahead(layout.put(host_batch(split, chosen, layout, stop)) for chosen in indices)


def host_batch(split: Split, indices: np.ndarray, layout: Layout, stop: Callable[[], bool] | None = None) -> Batch:
    """The rows of a batch that this process holds, filled up so that every device has as many."""
    rows = layout.rows(len(indices))
    first, last = layout.own_rows(rows)
    own = indices[first:last]
    images, readable = read_images(split.images, own)
    labels, fill = np.asarray(split.labels)[own], last - first - len(own)
    weights = readable
    if weights is None and rows > len(indices):  # the same on every process, as it chooses the program that is run
        weights = np.ones(len(own), np.float32)
    images, labels = _filled(images, fill), _filled(labels, fill)
    weights = None if weights is None else _filled(weights, fill)
    first, last = layout.own_rows(layout.data)  # a flag a device
    flags = None if stop is None else np.full(last - first, float(stop()), np.float32)
    return Batch(images, labels, weights, flags, count=len(indices))


def ahead(items: Iterable[_Item]) -> Generator[_Item]:
    """The items in their order, computed by a thread before they are asked for.

    Example:
        >>> list(ahead(iter("abc")))
        ['a', 'b', 'c']
    """
    iterator = iter(items)
    with concurrent.futures.ThreadPoolExecutor(1, "feed") as worker:
        waiting = collections.deque(worker.submit(next, iterator, _END) for _ in range(_DEPTH))
        try:
            while (item := waiting.popleft().result()) is not _END:
                waiting.append(worker.submit(next, iterator, _END))
                yield item  # pyright: ignore[reportReturnType]
        finally:
            for future in waiting:
                future.cancel()


def _cut(order: np.ndarray, batch: int) -> Iterator[np.ndarray]:
    for start in range(0, len(order), batch):
        yield order[start : start + batch]


def _filled(rows: np.ndarray, more: int) -> np.ndarray:
    return np.concatenate([rows, np.zeros((more, *rows.shape[1:]), rows.dtype)]) if more else rows
