"""The confusion matrix as text: the whole table, then the commonest mistakes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_MOST = 64  # classes of which a table is printed
_SHORT = 6  # characters of a name that heads a column


def confusion_summary(confusion: np.ndarray, worst: int = 5, names: Sequence[str] = ()) -> str:
    r"""The table, the commonest mistakes and the error rate.

    Example:
        >>> print(confusion_summary(np.array([[3, 1], [0, 4]])))
        true \ given   0   1   error
                   0   3   1  25.0 %
                   1   .   4   0.0 %
        0 taken for 1: 1 of 4 (25.0 %)
        error rate: 1 of 8 images, 12.50 %
    """
    mistakes = [_mistake(confusion, *pair, names) for pair in worst_confusions(confusion, worst)]
    total, wrong = int(confusion.sum()), int(confusion.sum() - np.trace(confusion))
    rate = f"error rate: {wrong:,} of {total:,} images, {100 * wrong / total:.2f} %"
    return "\n".join([confusion_table(confusion, names), *mistakes, rate])


def confusion_table(confusion: np.ndarray, names: Sequence[str] = ()) -> str:
    r"""Counts, row = the true class, column = the class given, and error rates by class; a dot stands for 0.

    Names head the columns, too, if they are short; otherwise numbers do.

    Example:
        >>> print(confusion_table(np.array([[3, 1], [0, 4]]), ["cat", "dog"]))
        true \ given cat dog   error
                 cat   3   1  25.0 %
                 dog   .   4   0.0 %
    """
    classes = range(len(confusion))
    if len(classes) > _MOST:
        return f"{len(classes):,} classes: too many for a table; --metrics has it."
    rows, columns = _labels(classes, names)
    width = max(4, len(str(confusion.max())) + 1, *(len(column) + 1 for column in columns))
    first = max(12, *(len(row) for row in rows))
    lines = ["true \\ given".rjust(first) + "".join(f"{column:>{width}}" for column in columns) + "   error"]
    for label, row in enumerate(confusion):
        cells = "".join(f"{count or '.':>{width}}" for count in row)
        lines.append(f"{rows[label]:>{first}}{cells}{100 * _share_wrong(row, label):6.1f} %")
    return "\n".join(lines)


def worst_confusions(confusion: np.ndarray, count: int) -> list[tuple[int, int]]:
    """The commonest mistakes, `count` at most: pairs (true class, class given), none that never happened.

    Example:
        >>> worst_confusions(np.array([[3, 1], [2, 4]]), count=1)
        [(1, 0)]
    """
    mistakes = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:count]
    rows, columns = np.unravel_index(order, mistakes.shape)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return [(true, given) for true, given in pairs if mistakes[true, given]]


def _share_wrong(row: np.ndarray, label: int) -> float:
    total = int(row.sum())
    return (total - int(row[label])) / total if total else 0.0


def _labels(classes: range, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Heads of rows and columns: names, where columns have room for them; numbers, which rows then explain."""
    numbers = [str(label) for label in classes]
    if not any(names):
        return numbers, numbers
    short = max(len(name) for name in names) <= _SHORT
    words = [_name(label, names) if short else f"{label} {_name(label, names)}" for label in classes]
    return words, words if short else numbers


def _name(label: int, names: Sequence[str]) -> str:
    return (names[label] if label < len(names) else "") or str(label)


def _mistake(confusion: np.ndarray, true: int, given: int, names: Sequence[str]) -> str:
    count, total = int(confusion[true, given]), int(confusion[true].sum())
    return f"{_name(true, names)} taken for {_name(given, names)}: {count:,} of {total:,} ({100 * count / total:.1f} %)"
