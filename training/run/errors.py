"""Where a task's answers are wrong, as its kind shows it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from mtl_edge.bundle import Task
from mtl_edge.training.data import spread

__all__ = ["errors_of"]

Answers = npt.NDArray[Any]  # decisions, see `mtl_edge.answers.kinds`
POINTS = 500  # of a score task, that a picture shows
MOST_IN_FULL = 100  # labels up to which the whole matrix of confusion is kept
MOST_CONFUSED = 200  # pairs of labels, of more labels than that


def errors_of(task: Task, right: Answers, answers: Answers) -> dict[str, Any]:
    """For a report, of `single` `confusion`, `[labels, labels]` rows by right label and answer, or
    `confused`, the most frequent errors; of `multi` `by_label`; of `score` `points`, pairs of right
    scores and answers.
    """
    if task.kind == "single":
        count = range(len(task.labels))
        confusion = confusion_matrix(right, answers, labels=count)
        if len(count) <= MOST_IN_FULL:
            return {"confusion": confusion.tolist()}
        return {"confused": _most_confused(confusion)}
    if task.kind == "score":
        pairs = spread(sorted(zip(right.tolist(), answers.tolist(), strict=True)), POINTS)
        return {"points": [list(pair) for pair in pairs]}
    names = ("precision", "recall", "f1", "rows")
    found = precision_recall_fscore_support(right, answers, average=None, zero_division=0)
    return {
        "by_label": {
            label: dict(zip(names, map(float, values), strict=True))
            for label, *values in zip(task.labels, *found, strict=True)
        }
    }


def _most_confused(confusion: npt.NDArray[np.int64]) -> list[list[int]]:
    """Pairs of a right label and a wrong answer with their rows, the most frequent first."""
    wrong = confusion - np.diag(np.diag(confusion))
    pairs = np.argwhere(wrong).tolist()
    found = [[right, answer, int(wrong[right, answer])] for right, answer in pairs]
    return sorted(found, key=lambda pair: -pair[2])[:MOST_CONFUSED]
