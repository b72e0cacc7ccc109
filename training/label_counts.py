"""Whether a column holds labels at all, or names each row: asked before anything is computed."""

from __future__ import annotations

from collections import Counter

from mtl_edge.errors import DataError
from mtl_edge.io.labelled import Rows
from mtl_edge.io.labels import label_list, names_in, ordered

__all__ = ["require_labels", "seen_once"]

MOST_LABELS = 5_000
FEW_LABELS = 200  # up to which one row a label may be meant


def require_labels(task: str, train: Rows) -> None:
    """
    Raises:
        DataError: there are more labels than a task can have, or nearly as many as rows.
    """
    counts, rows = _counts(train), len(train)
    labels = len(counts)
    if labels <= FEW_LABELS or (labels <= MOST_LABELS and rows >= 2 * labels):
        return
    raise DataError(
        f"task {task!r} has {labels:,} labels in {rows:,} rows of {train.source['file']}, as a "
        f"column of ids or of texts would ({', '.join(list(counts)[:3])}, ...); expected at most "
        f"{MOST_LABELS:,}, and two or more rows a label beyond {FEW_LABELS} labels: name the "
        "column of labels with --label-column"
    )


def seen_once(train: Rows) -> str | None:
    """A remark on labels of a single row; None if there is none."""
    counts = _counts(train)
    once = ordered(label for label, count in counts.items() if count == 1)
    if not once:
        return None
    return f"{len(once)} of {len(counts)} labels stand in train once: {label_list(once)}"


def _counts(train: Rows) -> Counter[str]:
    """Rows of each label."""
    return Counter(name for label in train.labels for name in names_in(label))
