"""Every text of a run once, encoded, and each split's rows as positions among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl_edge.batches.planning import Tokens
from mtl_edge.tokens.encoder import TextEncoder
from mtl_edge.training.batches import Labelled
from mtl_edge.training.data import TaskData, spread
from mtl_edge.training.kinds import described, targets_of

__all__ = ["Corpus", "training_sample"]

TRAIN_ROWS_SCORED = 1000
TEXTS_AT_ONCE = 10_000


class Corpus:
    """The texts of all tasks, each once.

    Attributes:
        texts: in the order in which they come first.
        ids: token ids of each text.
        max_tokens: of a text.
        cut: how many texts are longer.
        training, validation, reported, described: by task, rows of these splits.
    """

    def __init__(self, tasks: Sequence[TaskData], encoder: TextEncoder) -> None:
        place: dict[str, int] = {}
        self.training: dict[str, Labelled] = {}
        self.validation: dict[str, Labelled] = {}
        self.reported: dict[str, Labelled] = {}
        self.described: dict[str, Labelled] = {}
        self._tasks = {task.name: task.task for task in tasks}
        self._with_dev = {task.name for task in tasks if task.dev is not None}
        for task in tasks:
            for split, rows in (
                (self.training, task.train),
                (self.validation, task.validation),
                (self.reported, task.report[1]),
                (self.described, task.described or task.train.take([])),
            ):
                positions = [place.setdefault(text, len(place)) for text in rows.texts]
                split[task.name] = Labelled(
                    task.task, positions, targets_of(task.task, rows.labels)
                )
        self.texts = list(place)
        self.ids, self.cut = _encoded(encoder, self.texts)
        self.max_tokens = encoder.max_tokens

    def ask_out_of_fold(self, rows: Mapping[str, Labelled]) -> None:
        """Let training rows stand in for the validation rows, and for dev rows, that tasks lack."""
        for task, own in rows.items():
            self.validation[task] = own
            if task not in self._with_dev:
                self.reported[task] = own

    def describe_row(self, task: str, text: int, target: Any) -> dict[str, Any]:
        """A row as a user knows it."""
        label = described(self._tasks[task], target)
        return {"task": task, "text": self.texts[text], "label": label}


def training_sample(training: Labelled) -> Labelled:
    """Training rows of every label: enough to see overfitting."""
    targets = training.targets
    key = targets if targets.ndim == 1 else targets.argmax(1)
    by_label = np.argsort(key, kind="stable").tolist()
    return training.take(np.array(spread(by_label, TRAIN_ROWS_SCORED), np.int64))


def _encoded(encoder: TextEncoder, texts: Sequence[str]) -> tuple[list[Tokens], int]:
    """Token ids of each text, and how many texts are longer than the limit."""
    ids: list[Tokens] = []
    truncated = 0
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        found, longer = encoder.ids_and_truncated(texts[start : start + TEXTS_AT_ONCE])
        ids += [np.array(tokens, np.int32) for tokens in found]  # a tenth of a list's memory
        truncated += longer
    return ids, truncated
