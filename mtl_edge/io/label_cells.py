"""Labels from one column: a label, several, or a number a row."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from mtl_edge.errors import DataError
from mtl_edge.io.chunks import MERGED, OpenedTable, decoded
from mtl_edge.io.label_options import LabelOptions
from mtl_edge.io.labels import (
    Label,
    TaskKind,
    label_list,
    label_of,
    labels_of,
    names_in,
    score_of,
    skeleton,
)
from mtl_edge.io.read_options import ReadOptions

__all__ = ["LabelCells", "unknown_label"]

Cells = Sequence[tuple[int, Any]]  # each row's place and value

MOST_MARKS = 10  # numbers with fractions that may be marks; with more, they are a scale


class LabelCells:
    """Reads the column of a task's labels.

    Args:
        known: the task's labels; None: whatever labels are found.
        kind: of the task, if it is known from elsewhere.
    """

    def __init__(
        self,
        table: OpenedTable,
        task: str,
        column: str,
        how: LabelOptions,
        options: ReadOptions,
        known: Sequence[str] | None,
        kind: TaskKind | None,
    ) -> None:
        self._table, self._task, self._column = table, task, column
        self._how, self._options = how, options
        self._known = None if known is None else {unicodedata.normalize("NFC", k): k for k in known}
        self._kind = how.kind or kind

    def read(self, cells: Cells) -> tuple[TaskKind, list[Label | None]]:
        """The task's kind, and each row's label.

        Raises:
            DataError: one cannot be a label, or is not known; its place is named.
        """
        kind = self._kind or _kind_of([value for _, value in cells])
        if self._how.separator is not None:
            kind = "multi"
        parse: dict[TaskKind, Callable[[Any], Label | None]] = {
            "single": label_of,
            "multi": lambda value: labels_of(value, self._how.separator),
            "score": score_of,
        }
        labels: list[Label | None] = []
        before: dict[Hashable, Label | None] = {}  # there are few
        for place, value in cells:
            if not isinstance(value, str):
                labels.append(self._read(place, value, parse[kind]))
                continue
            if value not in before:
                before[value] = self._read(place, value, parse[kind])
            labels.append(before[value])
        if kind == "single":
            ways = Counter(label for label in before.values() if label is not None)
            self._table.tally[MERGED] += sum(count > 1 for count in ways.values())
        return kind, labels

    def _read(self, place: int, value: Any, parse: Callable[[Any], Label | None]) -> Label | None:
        where = self._table.at(place)
        if isinstance(value, bytes):
            value = decoded(value, where, self._column, self._options.encoding)
        try:
            label = parse(value)
        except ValueError as error:
            said = str(error).replace("TASK", self._task)
            raise DataError(f"{where}: {self._column!r} is {said}") from None
        if label is None or self._known is None:
            return label
        for name in names_in(label):
            if name not in self._known:
                raise unknown_label(where, name, self._task, list(self._known.values()))
        if isinstance(label, tuple):
            return tuple(self._known[name] for name in label)
        return self._known[label] if isinstance(label, str) else label


def _kind_of(values: Sequence[Any]) -> TaskKind:
    """The kind that values speak for where it is clear, else `single`."""
    if any(isinstance(value, (list, tuple, set)) or getattr(value, "ndim", 0) for value in values):
        return "multi"
    present = [value for value in values if value is not None and value != ""]
    try:
        numbers = {float(value) for value in present}
    except (TypeError, ValueError):
        return "single"
    fractions = any(not number.is_integer() for number in numbers if number == number)
    return "score" if fractions and len(numbers) > MOST_MARKS else "single"


def unknown_label(where: str, label: str, task: str, known: Sequence[str]) -> DataError:
    """The error of a label that a task does not have."""
    like = next((k for k in known if skeleton(k) == skeleton(label)), None)
    hint = "" if like is None else f"; it looks like {like!r} and is written otherwise"
    return DataError(
        f"{where} has the label {label!r:.60}, which task {task!r} does not know; expected "
        f"{label_list(known)}{hint}"
    )
