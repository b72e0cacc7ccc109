"""Two models' answers to the same rows, side by side, for each kind of task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, wilcoxon

from mtl_edge.answers.kinds import kind_of
from mtl_edge.bundle import Task
from mtl_edge.io.labels import Label
from mtl_edge.training.kinds import figures_of, headline, right_answers

__all__ = ["agreement", "compared"]

Values = npt.NDArray[np.float32]
SMALL_CHANGE = 0.25  # of a score's spread: two scores nearer than this agree


def agreement(task: Task, one: Values, other: Values) -> npt.NDArray[np.bool_]:
    """Where logits `[n, outputs]` give the same answer.

    Returns:
        `[n]`; of a task with several labels `[n, labels]`.
    """
    kind = kind_of(task)
    first, second = (kind.decisions(task, kind.values(task, logits)) for logits in (one, other))
    if task.kind != "score":
        same: npt.NDArray[np.bool_] = first == second
        return same
    assert task.scale is not None
    near = SMALL_CHANGE * (task.scale.spread or task.scale.width)
    close: npt.NDArray[np.bool_] = np.abs(first - second) <= near
    return close


def compared(
    task: Task, labels: Sequence[Label], before: Values, after: Values
) -> dict[str, float]:
    """A model against the one before, row by row.

    Args:
        labels: the right ones.
        before, after: logits `[rows, outputs]`.

    Returns:
        `compared_on`: rows; `agreement`: share of the same answers, of several labels over rows and
        labels, and `lowest_agreement`, of the label that agrees least; `max_probability_change`, of
        a score in units of its spread; `rows_lost`, `rows_won`: rows with more and with fewer wrong
        labels than before, of a score with a larger and a smaller error; `paired_p`: the exact
        sign test of these (of one label a text McNemar's, 1947), of a score Wilcoxon's signed-rank
        test (1945); `points_lost` of the figure that counts most.
    """
    kind, right = kind_of(task), right_answers(task, labels)
    old, new = (_cost(task, right, logits) for logits in (before, after))
    lost, won = int((new > old).sum()), int((new < old).sum())
    same = agreement(task, before, after)
    change = float(np.abs(kind.values(task, before) - kind.values(task, after)).max())
    scores = [headline(task, figures_of(task, right, logits)) for logits in (before, after)]
    return {
        "compared_on": len(right),
        "agreement": float(same.mean()),
        **({"lowest_agreement": float(same.mean(0).min())} if same.ndim > 1 else {}),
        "max_probability_change": change / (task.scale.spread or 1.0) if task.scale else change,
        "rows_lost": lost,
        "rows_won": won,
        "paired_p": _p(task, old, new, lost, won),
        "points_lost": 100 * (scores[0] - scores[1]),
    }


def _cost(task: Task, right: Any, logits: Values) -> npt.NDArray[np.float64]:
    """How wrong each row's answer is: wrong labels, or the error of a score."""
    kind = kind_of(task)
    answers = kind.decisions(task, kind.values(task, logits))
    if task.kind == "score":
        errors: npt.NDArray[np.float64] = np.abs(answers - right)
        return errors
    wrong = np.asarray(answers != right, np.float64)
    return wrong if wrong.ndim == 1 else np.sum(wrong, axis=1)


def _p(
    task: Task,
    old: npt.NDArray[np.float64],
    new: npt.NDArray[np.float64],
    lost: int,
    won: int,
) -> float:
    if not lost + won:
        return 1.0
    if task.kind == "score":
        return float(wilcoxon(new, old).pvalue)
    return float(binomtest(lost, lost + won).pvalue)
