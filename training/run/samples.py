"""Rows that a checkpoint carries along for export: to calibrate int8 with, and to compare on."""

from __future__ import annotations

from collections.abc import Sequence

from mtl_edge.io.labelled import Rows
from mtl_edge.training.checkpoint import Sample
from mtl_edge.training.data import TaskData, spread, strata
from mtl_edge.training.kinds import hard_label

__all__ = ["CALIBRATION_ROWS", "export_samples"]

CALIBRATION_ROWS = 300


def export_samples(tasks: Sequence[TaskData], task_count: int) -> list[Sample]:
    """Some training rows to calibrate with, and all validation and dev rows to compare on.

    Where none are set aside and no dev rows are given, training rows stand in for them.

    Args:
        task_count: tasks that share `CALIBRATION_ROWS`, those without rows here included.
    """
    samples = []
    for task in tasks:
        calibration = _in_proportion(task.train, CALIBRATION_ROWS // task_count + 1)
        splits = {"calibration": calibration, "selection": task.validation, "dev": task.dev}
        if task.few and task.dev is None:
            splits["train"] = task.train
        for split, rows in splits.items():
            if rows is not None:
                samples += [
                    Sample(split, task.name, text, hard_label(task.task, label))
                    for text, label in zip(rows.texts, rows.labels, strict=True)
                ]
    return samples


def _in_proportion(rows: Rows, count: int) -> Rows:
    """`count` rows, or all, that have every label and length in proportion."""
    keys = strata(rows)
    order = sorted(range(len(rows)), key=lambda i: (keys[i], len(rows.texts[i])))
    return rows.take(spread(order, count))
