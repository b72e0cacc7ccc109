"""Whether a column holds labels at all, or names each row: asked before anything is computed."""

from __future__ import annotations

from collections import Counter

from mtl_edge.errors import DataError
from mtl_edge.io.labels import listed, ordered

__all__ = ["require_labels", "seen_once"]

MOST_LABELS = 5_000
FEW_LABELS = 200  # up to which one row a label may be meant


def require_labels(task: str, counts: Counter[str], file: str) -> None:
    """
    Args:
        counts: rows of each label in `file`.

    Raises:
        DataError: there are more labels than a task can have, or nearly as many as rows.
    """
    labels, rows = len(counts), counts.total()
    if labels <= FEW_LABELS or (labels <= MOST_LABELS and rows >= 2 * labels):
        return
    raise DataError(
        f"task {task!r} has {labels:,} labels in {rows:,} rows of {file}, as a column of ids or of "
        f"texts has ({listed(list(counts)[:3])}, ...); expected at most {MOST_LABELS:,} and, beyond "
        f"{FEW_LABELS}, two or more rows of each: name the column of labels with --label-column"
    )


def seen_once(counts: Counter[str]) -> str | None:
    """A remark on labels of a single row; None if there is none."""
    once = ordered(label for label, count in counts.items() if count == 1)
    if not once:
        return None
    return f"{len(once)} of {len(counts)} labels stand in train once: {listed(once)}"
