"""Logits and pooled states of a run's texts: from kept states, or from a model that changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mtl_edge.batches.planning import Tokens
from mtl_edge.training.batches import Labelled
from mtl_edge.training.fit import predict
from mtl_edge.training.heads import Head
from mtl_edge.training.model import MultiTaskModel, logits_of, means_of
from mtl_edge.training.states import States

__all__ = ["ModelPredictor", "Predictor", "StatesPredictor", "Values", "task_logits"]

Values = npt.NDArray[np.float32]


class Predictor(Protocol):
    """What figures are taken from after learning."""

    def logits(
        self, task: str, heads: Mapping[int, Head], texts: Sequence[int]
    ) -> dict[int, Values]:
        """By depth, logits `[texts, labels]` of the task's heads for texts by their positions."""
        ...

    def pooled(self, texts: Sequence[int], depth: int | None = None) -> Values:
        """Means over tokens of the last layer's states, `[texts, width]`.

        Args:
            depth: that heads have; None: the model's.
        """
        ...


class StatesPredictor:
    """Of a frozen backbone, whose states are kept.

    Args:
        depth: layers that the model uses.
    """

    def __init__(self, states: States, depth: int) -> None:
        self._states = states
        self._depth = depth

    def logits(
        self, task: str, heads: Mapping[int, Head], texts: Sequence[int]
    ) -> dict[int, Values]:
        return {depth: predict(head, self._states, texts).numpy() for depth, head in heads.items()}

    def pooled(self, texts: Sequence[int], depth: int | None = None) -> Values:
        return self._states.means(texts, self._depth if depth is None else depth)


class ModelPredictor:
    """Of a backbone that learned, with heads for one depth alone.

    Args:
        ids: tokens of all texts.
    """

    def __init__(self, model: MultiTaskModel, ids: Sequence[Tokens], depth: int) -> None:
        self._model, self._ids, self._depth = model, ids, depth

    def logits(
        self, task: str, heads: Mapping[int, Head], texts: Sequence[int]
    ) -> dict[int, Values]:
        return {self._depth: logits_of(self._model, [self._ids[text] for text in texts])[task]}

    def pooled(self, texts: Sequence[int], depth: int | None = None) -> Values:
        return means_of(self._model.encoder, [self._ids[text] for text in texts])


def task_logits(
    predictor: Predictor,
    heads: Mapping[int, Mapping[str, Head]],
    rows: Mapping[str, Labelled],
) -> dict[str, dict[int, Values]]:
    """By task and depth, logits of each task's rows.

    Args:
        heads: by depth and task.
        rows: by task.
    """
    return {
        task: predictor.logits(
            task, {depth: of_depth[task] for depth, of_depth in heads.items()}, own.rows
        )
        for task, own in rows.items()
    }
