"""What a classifier says of a text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtl_edge.bundle import Task
from mtl_edge.cascade.stages import Answered

__all__ = ["Answer", "Prediction", "in_order", "predicted", "predictions"]

Arrays = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Answer:
    """One task's answer to one text.

    Attributes:
        label: the most probable one.
        probability: the label's.
        probabilities: of every label, in the task's order; they sum to 1.
        sure: false where the probability is below the threshold that was fitted for the label: an
            app should rather abstain. Always true if none was.
    """

    label: str
    probability: float
    probabilities: Mapping[str, float]
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Prediction(Mapping[str, Answer]):
    """All tasks' answers to one text, by the task's name.

    Attributes:
        depth: layers of the encoder that the stage has run which answered.
    """

    answers: Mapping[str, Answer]
    depth: int

    def __getitem__(self, task: str) -> Answer:
        return self.answers[task]

    def __iter__(self) -> Iterator[str]:
        return iter(self.answers)

    def __len__(self) -> int:
        return len(self.answers)


def predictions(parts: Iterable[Answered]) -> list[Prediction]:
    """A prediction for each text, in the texts' order, of the parts that all of them are in."""
    found: dict[int, Prediction] = {}
    for part in parts:
        made = predicted(part.stage.tasks, part.probabilities, part.stage.depth)
        found.update(zip(map(int, part.rows), made, strict=True))
    return [found[row] for row in range(len(found))]


def predicted(tasks: Sequence[Task], probabilities: Arrays, depth: int) -> list[Prediction]:
    """A prediction for each row of `probabilities`, `[n, labels]` per task, all of one depth."""
    columns = [_answers(task, probabilities[task.name]) for task in tasks]
    names = [task.name for task in tasks]
    return [
        Prediction(dict(zip(names, answers, strict=True)), depth)
        for answers in zip(*columns, strict=True)
    ]


def in_order(
    parts: Sequence[Answered], tasks: Sequence[Task], values: Callable[[Answered], Arrays]
) -> dict[str, npt.NDArray[np.float32]]:
    """The parts' arrays as one per task, `[n, labels]`, in the texts' order.

    Args:
        values: the arrays of a part, by task: its logits or its probabilities.
    """
    if len(parts) == 1 and isinstance(parts[0].rows, range):  # in order, and all of them
        return dict(values(parts[0]))
    count = sum(map(len, parts))
    result = {task.name: np.empty((count, len(task.labels)), np.float32) for task in tasks}
    for part in parts:
        for name, array in values(part).items():
            result[name][part.rows] = array
    return result


def _answers(task: Task, probabilities: npt.NDArray[np.float32]) -> list[Answer]:
    """One task's answer for each row."""
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
