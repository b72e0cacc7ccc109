"""`Answer` and `Prediction`: what a classifier returns for a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtl_edge.bundle import Task

__all__ = ["Answer", "Prediction", "predictions_of"]

Arrays = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Answer:
    """One task's answer to one text.

    Attributes:
        label: the most probable one.
        probability: the label's.
        probabilities: of every label, in the task's order; they sum to 1.
        sure: false where the probability is below the threshold that was fitted for the label: an
            app should abstain then. Always true if no threshold was fitted.
    """

    label: str
    probability: float
    probabilities: Mapping[str, float]
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Prediction(Mapping[str, Answer]):
    """All tasks' answers to one text, by the task's name.

    Attributes:
        depth: layers of the encoder that the answering stage ran.
    """

    answers: Mapping[str, Answer]
    depth: int

    def __getitem__(self, task: str) -> Answer:
        return self.answers[task]

    def __iter__(self) -> Iterator[str]:
        return iter(self.answers)

    def __len__(self) -> int:
        return len(self.answers)


def predictions_of(tasks: Sequence[Task], probabilities: Arrays, depth: int) -> list[Prediction]:
    """A prediction for each row of `probabilities`, `[n, labels]` per task, all of one depth."""
    columns = [_answers(task, probabilities[task.name]) for task in tasks]
    names = [task.name for task in tasks]
    return [
        Prediction(dict(zip(names, answers, strict=True)), depth)
        for answers in zip(*columns, strict=True)
    ]


def _answers(task: Task, probabilities: npt.NDArray[np.float32]) -> list[Answer]:
    """One task's answer for each row of its probabilities, `[n, labels]`."""
    labels, thresholds = task.labels, task.thresholds
    answers = []
    rows: list[list[float]] = probabilities.tolist()
    for values in rows:
        probability = max(values)
        best = values.index(probability)
        sure = not thresholds or probability >= thresholds[best]
        by_label = dict(zip(labels, values, strict=True))
        answers.append(Answer(labels[best], probability, by_label, sure))
    return answers
