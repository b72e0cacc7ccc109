"""Predictions as columns: TASK, TASK_probability, TASK_sure and, if asked for, more.

These are one per label, and the depth of the stage that answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mtl_edge.bundle import Task
from mtl_edge.classifier import EdgeClassifier, Prediction
from mtl_edge.errors import OptionError, TextError
from mtl_edge.limits import Limits
from mtl_edge.rows.model import Chunk, Kind

__all__ = ["added_columns", "predictions_of", "values_of"]


def added_columns(
    tasks: Sequence[Task], *, prefix: str = "", probabilities: bool = False, depth: bool = False
) -> Mapping[str, Kind]:
    """Names and kinds of the columns that hold what `values_of` gives.

    Raises:
        OptionError: two of them would have the same name.
    """
    columns: list[tuple[str, Kind]] = []
    for task in tasks:
        name = prefix + task.name
        columns += [(name, "text"), (f"{name}_probability", "number"), (f"{name}_sure", "truth")]
        if probabilities:
            columns += [(f"{name}_probability_{label}", "number") for label in task.labels]
    if depth:
        columns.append((f"{prefix}depth", "whole"))
    if twice := [name for name, count in Counter(name for name, _ in columns).items() if count > 1]:
        raise OptionError(
            f"the answers would take two columns {twice[0]!r}; ask for less: choose --tasks, or "
            "leave --depth-column out"
        )
    return dict(columns)


def values_of(
    prediction: Prediction | None, *, probabilities: bool = False, depth: bool = False
) -> list[Any] | None:
    """A row's values; probabilities to six digits."""
    if prediction is None:
        return None
    values: list[Any] = []
    for answer in prediction.values():
        values += [answer.label, round(answer.probability, 6), answer.sure]
        if probabilities:
            values += [round(value, 6) for value in answer.probabilities.values()]
    if depth:
        values.append(prediction.depth)
    return values


def predictions_of(classifier: EdgeClassifier, chunk: Chunk) -> list[Prediction | None]:
    """A prediction for each row, None for those that are passed over.

    Raises:
        TextError: a text cannot be classified; its row, or those that it is among, are named.
    """
    try:
        found = iter(classifier.predict([text for text in chunk.texts if text is not None]))
    except TextError as error:
        chunk.require_within(Limits())  # the classifier counts neither nulls nor chunks before
        last = chunk.mark.rows
        raise TextError(f"among rows {last - len(chunk.texts) + 1} to {last}: {error}") from None
    return [None if text is None else next(found) for text in chunk.texts]
