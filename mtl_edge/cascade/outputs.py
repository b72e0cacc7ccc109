"""What a stage computed for some texts of a call, and all of a call's as its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtl_edge.answers.kinds import predictions_of
from mtl_edge.answers.predictions import Prediction
from mtl_edge.bundle import Task
from mtl_edge.cascade.stage import Probabilities, Stage
from mtl_edge.engines import Logits

__all__ = ["Rows", "StageOutput", "in_order", "predictions"]

Rows = Sequence[int] | npt.NDArray[np.int64]
Arrays = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class StageOutput:
    """One stage's logits and probabilities of some texts.

    Attributes:
        rows: the texts' positions in the call, `[n]`.
        logits, probabilities: by task, `[n, outputs]`; of a score task the score. Those of
            `Stage.domain` under its name.
    """

    stage: Stage
    rows: Rows
    logits: Logits
    probabilities: Probabilities

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, which: npt.NDArray[np.int64]) -> StageOutput:
        """The same of some of the texts, by their position in here."""
        return StageOutput(
            self.stage,
            np.asarray(self.rows)[which],
            {name: values[which] for name, values in self.logits.items()},
            {name: values[which] for name, values in self.probabilities.items()},
        )


def predictions(outputs: Iterable[StageOutput]) -> list[Prediction]:
    """A prediction for each text of a call, in the call's order.

    Args:
        outputs: in which each text is once.
    """
    found: dict[int, Prediction] = {}
    for output in outputs:
        stage = output.stage
        made = predictions_of(stage.tasks, output.probabilities, stage.depth, stage.domain)
        found.update(zip(map(int, output.rows), made, strict=True))
    return [found[row] for row in range(len(found))]


def in_order(
    outputs: Sequence[StageOutput],
    tasks: Sequence[Task],
    values: Callable[[StageOutput], Arrays],
) -> dict[str, npt.NDArray[np.float32]]:
    """The outputs' arrays as one per task, `[n, labels]`, in the call's order.

    Args:
        values: the arrays of an output, by task: its logits or its probabilities.
    """
    if len(outputs) == 1 and isinstance(outputs[0].rows, range):  # in order, and all of them
        found = values(outputs[0])
        return {task.name: found[task.name] for task in tasks}
    count = sum(map(len, outputs))
    result = {task.name: np.empty((count, task.outputs), np.float32) for task in tasks}
    for output in outputs:
        found = values(output)
        for name, array in result.items():
            array[output.rows] = found[name]
    return result
