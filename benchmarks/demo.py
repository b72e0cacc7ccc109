"""The demo data as tasks, for figures that anyone can make again."""

from __future__ import annotations

from pathlib import Path

from mtl_edge.io.labelled import read_rows
from mtl_edge.training.data import TaskData, build_task

__all__ = ["demo_tasks"]

DATA = Path(__file__).parent.parent / "training" / "demo"


def demo_tasks() -> list[TaskData]:
    """Sentiment and topic of the reviews that ship with the package."""
    return [
        build_task(
            task, read_rows(task, DATA / "train.csv"), read_rows(task, DATA / "dev.csv"), seed=0
        )
        for task in ("sentiment", "topic")
    ]
