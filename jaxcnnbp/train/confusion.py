"""The confusion matrix as text: the whole table, then the commonest mistakes."""

from __future__ import annotations

import numpy as np

__all__ = ["confusion_summary", "confusion_table", "worst_confusions"]


def confusion_summary(confusion: np.ndarray, worst: int = 5) -> str:
    r"""The table, the commonest mistakes and the error rate.

    Args:
        confusion: `(classes, classes)` counts; row = the true class, column = the class given.
        worst: how many mistakes to list.

    Returns:
        Several lines of text.

    Example:
        >>> print(confusion_summary(np.array([[3, 1], [0, 4]])))
        true \ given   0   1   error
                   0   3   1  25.0 %
                   1   .   4   0.0 %
        0 taken for 1: 1 of 4 (25.0 %)
        error rate: 1 of 8 images, 12.50 %
    """
    mistakes = [_mistake(confusion, *pair) for pair in worst_confusions(confusion, worst)]
    total, wrong = int(confusion.sum()), int(confusion.sum() - np.trace(confusion))
    rate = f"error rate: {wrong:,} of {total:,} images, {100 * wrong / total:.2f} %"
    return "\n".join([confusion_table(confusion), *mistakes, rate])


def confusion_table(confusion: np.ndarray) -> str:
    r"""The matrix with its error rates by class; a dot stands for 0.

    Args:
        confusion: `(classes, classes)` counts; row = the true class, column = the class given.

    Returns:
        One line of heading and one line a class.

    Example:
        >>> print(confusion_table(np.array([[3, 1], [0, 4]])))
        true \ given   0   1   error
                   0   3   1  25.0 %
                   1   .   4   0.0 %
    """
    width = max(4, len(str(confusion.max())) + 1)
    heading = "true \\ given" + "".join(f"{label:{width}d}" for label in range(len(confusion))) + "   error"
    lines = [heading]
    for label, row in enumerate(confusion):
        cells = "".join(f"{count or '.':>{width}}" for count in row)
        lines.append(f"{label:12d}{cells}{100 * _share_wrong(row, label):6.1f} %")
    return "\n".join(lines)


def worst_confusions(confusion: np.ndarray, count: int) -> list[tuple[int, int]]:
    """The commonest mistakes.

    Args:
        confusion: `(classes, classes)` counts; row = the true class, column = the class given.
        count: how many to return at most.

    Returns:
        Pairs (true class, class given), the commonest first, none that never happened.

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


def _mistake(confusion: np.ndarray, true: int, given: int) -> str:
    count, total = int(confusion[true, given]), int(confusion[true].sum())
    return f"{true} taken for {given}: {count:,} of {total:,} ({100 * count / total:.1f} %)"
