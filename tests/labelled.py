"""Labelled rows as training has them, for tests that need no files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtl_edge.training.batches import Labelled
from mtl_edge.training.kinds import blank_task

__all__ = ["labelled"]


def labelled(rows: Sequence[int], labels: Sequence[int], count: int = 2) -> Labelled:
    """Rows of a task with so many labels, given by position."""
    task = blank_task("task", [f"label {i}" for i in range(count)])
    return Labelled(task, rows, np.array(labels, np.int64))
