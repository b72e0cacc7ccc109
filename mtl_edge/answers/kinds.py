"""The table of kinds of tasks: what a task's logits mean, and what is answered by them.

`values` are what logits become, `[n, outputs]`: probabilities, or a score. `decisions` are the
answers that follow, as right answers are given, too: of `single` the label's position, int64 `[n]`;
of `multi` which labels a text has, bool `[n, labels]`; of `score` the score, float64 `[n]`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_edge.answers.predictions import Answer, Prediction
from mtl_edge.answers.probabilities import sigmoid, softmax
from mtl_edge.bundle import Task, TaskKind

__all__ = ["KINDS", "Kind", "Values", "decided", "kind_of", "predictions_of", "same"]

Values = npt.NDArray[np.float32]
Decisions = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """
    Attributes:
        values: logits to probabilities or scores.
        decisions: values to answers.
        answers: values to what an app sees.
        certainty: how sure each answer is, float64 `[n]` from 0 to 1, for early exits; None where
            nothing says so.
        relative: whether logits count relative to each other alone.
    """

    values: Callable[[Task, Values], Values]
    decisions: Callable[[Task, Values], Decisions]
    answers: Callable[[Task, Values], list[Answer]]
    certainty: Callable[[Task, Values], npt.NDArray[np.float64]] | None
    relative: bool


def kind_of(task: Task) -> Kind:
    """The entry of the task's kind."""
    return KINDS[task.kind]


def predictions_of(
    tasks: Sequence[Task], values: Mapping[str, Values], depth: int, domain: Task | None = None
) -> list[Prediction]:
    """A prediction for each row of `values`, `[n, outputs]` per task, all of one depth.

    Args:
        domain: see `mtl_edge.bundle.Manifest`; its values are needed, too, then.
    """
    columns = [kind_of(task).answers(task, values[task.name]) for task in tasks]
    if domain is not None:
        columns = [
            _with_domain(task, answers, domain, values[domain.name])
            for task, answers in zip(tasks, columns, strict=True)
        ]
    names = [task.name for task in tasks]
    return [
        Prediction(dict(zip(names, answers, strict=True)), depth)
        for answers in zip(*columns, strict=True)
    ]


def _with_domain(task: Task, answers: list[Answer], domain: Task, values: Values) -> list[Answer]:
    """A task's answers with whether each text is in its domain, if that was fitted."""
    if task.name not in domain.labels:
        return answers
    place = domain.labels.index(task.name)
    reached = _reached(domain, values)[:, place].tolist()
    return [
        replace(answer, in_domain=own, domain_probability=probability)
        for answer, own, probability in zip(
            answers, reached, values[:, place].tolist(), strict=True
        )
    ]


def decided(task: Task, answers: Sequence[Answer]) -> Decisions:
    """The decisions that answers stand for."""
    if task.kind == "score":
        return np.array([answer.score for answer in answers], np.float64)
    if task.kind == "multi":
        return np.array(
            [[label in answer.labels for label in task.labels] for answer in answers], bool
        )
    place = {label: i for i, label in enumerate(task.labels)}
    return np.array([place[answer.label] for answer in answers], np.int64)


def same(one: Decisions, other: Decisions) -> npt.NDArray[np.bool_]:
    """Which rows' decisions are equal, of `multi` all labels of them."""
    equal: npt.NDArray[np.bool_] = np.asarray(one == other)
    return equal if equal.ndim == 1 else np.all(equal, axis=1)


def _probability_of_one(task: Task, logits: Values) -> Values:
    return softmax(logits, task.temperature)


def _probability_of_each(task: Task, logits: Values) -> Values:
    return sigmoid(logits, task.temperature)


def _score(task: Task, logits: Values) -> Values:
    assert task.scale is not None, "a manifest's score tasks have a scale"
    scale = task.scale
    found = np.clip(scale.center + scale.width * logits, scale.low, scale.high)
    return np.asarray(found, np.float32)


def _most_probable(task: Task, values: Values) -> Decisions:
    best: Decisions = np.argmax(values, axis=1)
    return best


def _reached(task: Task, values: Values) -> Decisions:
    # In float64, as in Python's floats: a threshold rounded to float32 would be another one.
    reached: Decisions = values.astype(np.float64) >= np.array(task.thresholds)
    return reached


def _one_label(task: Task, values: Values) -> list[Answer]:
    labels, thresholds = task.labels, task.thresholds
    answers = []
    rows: list[list[float]] = values.tolist()
    for row in rows:
        probability = max(row)
        best = row.index(probability)
        sure = not thresholds or probability >= thresholds[best]
        by_label = dict(zip(labels, row, strict=True))
        answers.append(Answer(labels[best], probability, by_label, sure, (labels[best],)))
    return answers


def _several_labels(task: Task, values: Values) -> list[Answer]:
    labels = task.labels
    answers = []
    rows: list[list[float]] = values.tolist()
    for row, reached in zip(rows, _reached(task, values).tolist(), strict=True):
        probability = max(row)
        by_label = dict(zip(labels, row, strict=True))
        found = tuple(label for label, has in zip(labels, reached, strict=True) if has)
        answers.append(Answer(labels[row.index(probability)], probability, by_label, True, found))
    return answers


def _number(task: Task, values: Values) -> list[Answer]:
    assert task.scale is not None
    spread = task.scale.spread
    return [Answer("", 0.0, {}, score=score, spread=spread) for score in values[:, 0].tolist()]


def _largest(task: Task, values: Values) -> npt.NDArray[np.float64]:
    return np.asarray(values.max(1), np.float64)


def _least_distance(task: Task, values: Values) -> npt.NDArray[np.float64]:
    """Of the label nearest to its threshold, by how much: log odds, as a probability."""
    thresholds = np.clip(np.array(task.thresholds), 1e-6, 1 - 1e-6)
    p = np.clip(values.astype(np.float64), 1e-6, 1 - 1e-6)
    distance = np.abs(np.log(p / (1 - p)) - np.log(thresholds / (1 - thresholds)))
    return sigmoid(distance.min(1))


KINDS: Mapping[TaskKind, Kind] = {
    "single": Kind(_probability_of_one, _most_probable, _one_label, _largest, True),
    "multi": Kind(
        _probability_of_each,
        _reached,
        _several_labels,
        _least_distance,
        False,
    ),
    "score": Kind(
        _score,
        lambda task, values: values[:, 0].astype(np.float64),
        _number,
        None,
        False,
    ),
}
