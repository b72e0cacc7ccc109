"""Labelled rows to tasks: checked, and split into training rows and validation rows."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from mtl_edge.bundle import Task
from mtl_edge.bundle.schema import INPUTS, TASK_NAME
from mtl_edge.errors import DataError
from mtl_edge.io.labelled import Rows
from mtl_edge.io.labels import Label, SoftLabel, label_list, names_in, ordered
from mtl_edge.training.kinds import blank_task, scale_of

__all__ = [
    "CROSS_VALIDATION",
    "TaskData",
    "build_task",
    "conflicts",
    "names_of",
    "spread",
    "strata",
]

T = TypeVar("T")
VALIDATION_SHARE = 0.1
VALIDATION_LIMIT = 1000
CROSS_VALIDATION = "cross-validation"  # of training rows, each asked of heads that had not seen it
VALIDATION_LIMIT_A_LABEL = 150  # of many labels some are rare
STRATA = 10


@dataclass(frozen=True, slots=True)
class TaskData:
    """One task's rows.

    Attributes:
        task: before anything is fitted.
        train: that weights are fitted to.
        validation: set aside from the training file; they choose epochs, temperatures, thresholds.
            None are where there are but a few rows: see `mtl_edge.training.few`.
        dev: that figures are reported on, if there are some.
        described: descriptions of labels, which are learned from as training rows are.
    """

    task: Task
    train: Rows
    validation: Rows
    dev: Rows | None
    described: Rows | None = None

    @property
    def few(self) -> bool:
        """Whether no rows are set aside, so that cross-validation has to stand in for them."""
        return not len(self.validation)

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def labels(self) -> tuple[str, ...]:
        return self.task.labels

    @property
    def report(self) -> tuple[str, Rows]:
        """The split that figures are reported on, as records name it, and its rows."""
        if self.dev is not None:
            return "dev", self.dev
        return (CROSS_VALIDATION, self.train) if self.few else ("selection", self.validation)


def build_task(
    name: str,
    train: Rows,
    dev: Rows | None,
    seed: int,
    labels: Sequence[str] | None = None,
    *,
    described: Rows | None = None,
    set_aside: bool = True,
) -> TaskData:
    """Check a task's rows and set a part of them aside as validation rows.

    The split keeps each label's share and repeats for a given seed; rows of the same text are on
    the same side.

    Args:
        labels: in the order that they shall have; none: see `mtl_edge.io.labels.ordered`.
        described: descriptions of some of the labels.
        set_aside: whether there are validation rows at all.

    Raises:
        DataError: the name cannot be an output's, train has one label or too few rows to split, or
            dev or a description has a label that train lacks.
    """
    if not TASK_NAME.fullmatch(name) or name in INPUTS:
        raise DataError(
            f"{name!r} cannot name a task, whose name is also that of the graph's output; expected "
            "letters, digits, '_' and '-', and not the name of an input"
        )
    if train.kind == "score":
        task = blank_task(name, (), "score", scale_of(name, train.labels))
    else:
        others = [rows for rows in (dev, described) if rows is not None]
        task = blank_task(name, _labels(name, train, others, labels), train.kind)
    if not set_aside:
        return TaskData(task, train, train.take([]), dev, described)
    training, validation = _split(train, len(task.labels), seed)
    if not validation:
        raise DataError(
            f"task {name!r} has {len(train)} rows, too few to set some aside for choosing; "
            "expected 5 or more texts of some label, all different; or --head normalized, which "
            "can do without"
        )
    return TaskData(task, train.take(training), train.take(validation), dev, described)


def names_of(rows: Rows) -> set[str]:
    """The labels that the rows speak of."""
    return {name for label in set(rows.labels) for name in names_in(label)}


def _labels(
    name: str, train: Rows, others: Sequence[Rows], labels: Sequence[str] | None
) -> tuple[str, ...]:
    """The task's labels in order.

    Raises:
        DataError: too few, or those of train, of other rows and of `labels` do not fit together.
    """
    found = ordered(names_of(train))
    labels = found if labels is None else tuple(labels)
    if unmatched := sorted(set(labels) ^ set(found)):
        raise DataError(
            f"task {name!r}: the label {unmatched[0]!r} is in one of --labels and "
            f"{train.source['file']} alone; name the labels that the rows have"
        )
    if train.kind == "single" and len(labels) < 2:
        raise DataError(
            f"task {name!r} has the one label {labels[0]!r} in {train.source['file']}; "
            "expected two or more: check the label column"
        )
    if not labels:
        raise DataError(
            f"task {name!r}: no row of {train.source['file']} has a label; expected one or more"
        )
    for rows in others:
        if unknown := sorted(names_of(rows) - set(labels)):
            raise DataError(
                f"task {name!r}: {rows.source['file']} has the label {unknown[0]!r}, which "
                f"{train.source['file']} lacks; expected {label_list(labels)}"
            )
    return labels


def strata(rows: Rows) -> list[str]:
    """What each row is grouped by, so that a part of them is like the whole.

    Its label; of several the rarest, of probabilities the largest; of scores a tenth of them.
    """
    if rows.kind == "score":
        order = np.argsort(np.array(rows.labels, np.float64), kind="stable")
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(len(order))
        return [str(rank * STRATA // len(ranks)) for rank in ranks.tolist()]
    counts = Counter(name for label in rows.labels for name in names_in(label))

    def key(label: Label) -> str:
        if isinstance(label, SoftLabel):
            return label.labels[int(np.argmax(label.shares))]
        return min(names_in(label), key=lambda name: (counts[name], name), default="")

    return [key(label) for label in rows.labels]


def _split(rows: Rows, labels: int, seed: int) -> tuple[list[int], list[int]]:
    """Positions of training rows and of validation rows, in order."""
    by_label: dict[str, dict[str, None]] = {}  # each text once, in order
    for text, label in zip(rows.texts, strata(rows), strict=True):
        by_label.setdefault(label, {})[text] = None
    most = max(VALIDATION_LIMIT, VALIDATION_LIMIT_A_LABEL * labels)
    share = min(VALIDATION_SHARE, most / sum(map(len, by_label.values())))
    chosen: set[str] = set()
    generator = random.Random(seed)
    for label in sorted(by_label):
        texts = list(by_label[label])
        count = max(round(share * len(texts)), 1 if len(texts) >= 5 else 0)
        chosen.update(generator.sample(texts, count))
    for own in by_label.values():
        if chosen.issuperset(own):  # chosen for other labels; one has to train this one
            chosen.remove(next(iter(own)))
    training = [i for i, text in enumerate(rows.texts) if text not in chosen]
    return training, [i for i, text in enumerate(rows.texts) if text in chosen]


def spread(ordered: Sequence[T], count: int) -> list[T]:
    """`count` items, or all if there are fewer, at even distances."""
    count = min(count, len(ordered))
    return [ordered[(2 * i + 1) * len(ordered) // (2 * count)] for i in range(count)]


def conflicts(rows: Rows) -> int:
    """How many texts stand in `rows` with more than one label."""
    pairs = Counter(text for text, _ in set(zip(rows.texts, rows.labels, strict=True)))
    return sum(count > 1 for count in pairs.values())
