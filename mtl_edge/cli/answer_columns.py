"""The columns that `mtl-edge predict --out` adds to a file: their names and a row's values."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mtl_edge.bundle import Task
from mtl_edge.classifier import Prediction
from mtl_edge.errors import OptionError
from mtl_edge.io.chunks import Kind

__all__ = ["added_columns", "values_of"]


def added_columns(tasks: Sequence[Task], args: argparse.Namespace) -> Mapping[str, Kind]:
    """Names and kinds of the columns that hold what `values_of` gives.

    These are TASK, TASK_probability, TASK_sure and, if asked for, one per label, and the depth of
    the stage that answered.

    Raises:
        OptionError: two of them would have the same name.
    """
    columns: list[tuple[str, Kind]] = []
    for task in tasks:
        name = args.prefix + task.name
        columns += [(name, "text"), (f"{name}_probability", "number"), (f"{name}_sure", "truth")]
        if args.probabilities:
            columns += [(f"{name}_probability_{label}", "number") for label in task.labels]
    if args.depth_column:
        columns.append((f"{args.prefix}depth", "whole"))
    if twice := [name for name, count in Counter(name for name, _ in columns).items() if count > 1]:
        raise OptionError(
            f"the answers would take two columns {twice[0]!r}; ask for less: choose --tasks, or "
            "leave --depth-column out"
        )
    return dict(columns)


def values_of(prediction: Prediction | None, args: argparse.Namespace) -> list[Any] | None:
    """A row's values; probabilities to six digits."""
    if prediction is None:
        return None
    values: list[Any] = []
    for answer in prediction.values():
        values += [answer.label, round(answer.probability, 6), answer.sure]
        if args.probabilities:
            values += [round(value, 6) for value in answer.probabilities.values()]
    if args.depth_column:
        values.append(prediction.depth)
    return values
