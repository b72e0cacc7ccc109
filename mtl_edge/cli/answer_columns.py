"""The columns that `mtl-edge predict --out` adds to a file: their names and a row's values."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mtl_edge.bundle import Task, TaskKind
from mtl_edge.classifier import Answer, Prediction
from mtl_edge.errors import OptionError
from mtl_edge.io.chunks import Kind

__all__ = ["added_columns", "values_of"]

# Of each kind of task: a column's ending, its kind, and an answer's value there.
COLUMNS: Mapping[TaskKind, Sequence[tuple[str, Kind, Callable[[Answer], Any]]]] = {
    "single": (
        ("", "text", lambda answer: answer.label),
        ("_probability", "number", lambda answer: round(answer.probability, 6)),
        ("_sure", "truth", lambda answer: answer.sure),
    ),
    "multi": (("", "json", lambda answer: list(answer.labels)),),
    "score": (
        ("", "number", lambda answer: round(answer.score or 0.0, 6)),
        ("_spread", "number", lambda answer: round(answer.spread or 0.0, 6)),
    ),
}


def added_columns(
    tasks: Sequence[Task], args: argparse.Namespace, domain: Task | None = None
) -> Mapping[str, Kind]:
    """Names and kinds of the columns that hold what `values_of` gives.

    These are TASK, then TASK_probability and TASK_sure of one label a text, TASK_spread of a score;
    TASK_in_domain, where that was fitted; if asked for, one per label, and the depth of the stage
    that answered. TASK of several labels is a list.

    Args:
        domain: see `mtl_edge.bundle.Manifest`.

    Raises:
        OptionError: two of them would have the same name.
    """
    columns: list[tuple[str, Kind]] = []
    for task in tasks:
        name = args.prefix + task.name
        columns += [(f"{name}{ending}", kind) for ending, kind, _ in COLUMNS[task.kind]]
        if domain is not None and task.name in domain.labels:
            columns.append((f"{name}_in_domain", "truth"))
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


def values_of(
    prediction: Prediction | None, tasks: Sequence[Task], args: argparse.Namespace
) -> list[Any] | None:
    """A row's values; probabilities and scores to six digits."""
    if prediction is None:
        return None
    values: list[Any] = []
    for task in tasks:
        answer = prediction[task.name]
        values += [value(answer) for _, _, value in COLUMNS[task.kind]]
        if answer.domain_probability is not None:
            values.append(answer.in_domain)
        if args.probabilities:
            values += [round(value, 6) for value in answer.probabilities.values()]
    if args.depth_column:
        values.append(prediction.depth)
    return values
