"""Labels from a column each: 0 or 1, or how probable the label is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl_edge.errors import DataError
from mtl_edge.io.chunks import Chunk, OpenedTable
from mtl_edge.io.label_cells import unknown_label
from mtl_edge.io.label_options import LabelOptions
from mtl_edge.io.labels import Label, SoftLabel, TaskKind, label_of

__all__ = ["LabelColumns", "combined"]

TOLERANCE = 0.02  # that probabilities may miss a sum of 1 by, as rounded ones do
WORDS = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}


class LabelColumns:
    """Reads the columns of a task's labels; without `how.columns` there are none.

    Args:
        known: the task's labels; None: those that the columns name.
    """

    def __init__(
        self, table: OpenedTable, task: str, how: LabelOptions, known: Sequence[str] | None
    ) -> None:
        self._table, self._task, self._how, self._known = table, task, how, known
        self._rows: list[tuple[int, Mapping[str, Any]]] = []
        self._labels: dict[str, None] = {}

    def add(self, chunk: Chunk) -> None:
        """Take in a chunk's rows."""
        if self._how.columns is None:
            return
        names: Mapping[str, Any] | None = self._table.columns
        if names is None:
            names = dict.fromkeys(name for record in chunk.records() for name in record)
        labels = self._matching(names)
        self._labels |= dict.fromkeys(labels.values())
        columns = {label: chunk.values(name) for name, label in labels.items()}
        for i, place in enumerate(chunk.places):
            self._rows.append((place, {label: values[i] for label, values in columns.items()}))

    def _matching(self, names: Mapping[str, Any]) -> dict[str, str]:
        """Columns and the labels that they are of.

        Raises:
            DataError: there is none, one is missing, or a label cannot be one or is not known.
        """
        pattern = self._how.columns or ""
        if "*" in pattern:
            head, tail = pattern.split("*")
            found = {
                name: name[len(head) : len(name) - len(tail)]
                for name in names
                if name.startswith(head) and name.endswith(tail) and len(name) > len(head + tail)
            }
        else:
            found = {name.strip(): name.strip() for name in pattern.split(",")}
        absent = [name for name in found if name not in names]
        if absent or len(found) < 2:
            raise DataError(
                f"{self._table.name}: --label-columns {pattern} "
                + (f"names {absent[0]!r}, which is not there" if absent else "fits no two columns")
                + f"; there are {', '.join(map(str, names))}"
            )
        labels: dict[str, str] = {}
        for name, label in found.items():
            try:
                labels[name] = label_of(label) or ""
            except ValueError as error:
                raise DataError(f"{self._table.name}: a column's label is {error}") from None
            if self._known is not None and labels[name] not in self._known:
                raise unknown_label(self._table.name, label, self._task, self._known)
        return labels

    def result(self) -> tuple[TaskKind | None, list[Label | None]]:
        """The task's kind, None if these columns do not say it, and each row's label.

        Raises:
            DataError: a value is no number, or a row's do not fit the kind; its place is named.
        """
        if self._how.columns is None:
            return None, []
        labels = tuple(self._labels)
        rows = [(place, self._shares(place, row, labels)) for place, row in self._rows]
        given = [shares for _, shares in rows if shares is not None]
        kind = self._how.kind or _kind_of(given, logits=self._how.logits)
        found: list[Label | None] = []
        for place, shares in rows:
            if shares is None:
                found.append(None)
                continue
            self._require_fit(place, shares, kind)
            found.append(_label(labels, shares, kind, logits=self._how.logits))
        return kind, found

    def _shares(
        self, place: int, row: Mapping[str, Any], labels: Sequence[str]
    ) -> tuple[float, ...] | None:
        values = [_number(row.get(label)) for label in labels]
        if all(value is None for value in values):
            return None
        for label, value in zip(labels, values, strict=True):
            if value is None or not math.isfinite(value):
                raise DataError(
                    f"{self._table.at(place)}: the column of label {label!r} holds "
                    f"{row.get(label)!r:.40}; expected a number"
                )
        return tuple(value for value in values if value is not None)

    def _require_fit(self, place: int, shares: Sequence[float], kind: TaskKind) -> None:
        if self._how.logits:
            return
        where = self._table.at(place)
        if min(shares) < 0 or max(shares) > 1:
            raise DataError(
                f"{where} has {min(shares):g} to {max(shares):g} for its labels; expected "
                f"probabilities from 0 to 1; pass --logits {self._task} if they are logits"
            )
        if kind == "single" and abs(sum(shares) - 1) > TOLERANCE:
            raise DataError(
                f"{where}: the probabilities of its labels sum to {sum(shares):.3g}, expected 1; "
                f"pass --kind {self._task}=multi if each label is by itself, or --logits "
                f"{self._task} if they are logits"
            )


def combined(one: Label | None, other: Label | None) -> Label | None:
    """The label of a row that may have one of its own and probabilities: the mean of both."""
    if not isinstance(other, SoftLabel) or one is None or isinstance(one, float):
        return one if one is not None else other
    if isinstance(one, SoftLabel):
        return one
    own = {one} if isinstance(one, str) else set(one)
    labels = tuple(dict.fromkeys([*other.labels, *sorted(own)]))
    soft = dict(zip(other.labels, other.shares, strict=True))
    return SoftLabel(labels, tuple((soft.get(n, 0.0) + (n in own)) / 2 for n in labels))


def _number(value: Any) -> float | None:
    """A cell as a number; None where there is none, and infinite where it is something else."""
    if value is None or value != value:
        return None
    if isinstance(value, str):
        value = value.strip().lower()
        if not value:
            return None
        value = WORDS.get(value, value)
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.inf


def _kind_of(rows: Sequence[Sequence[float]], *, logits: bool) -> TaskKind:
    """One label a text, unless every value is 0 or 1 and some rows do not sum to 1."""
    whole = all(value in (0.0, 1.0) for row in rows for value in row)
    return "multi" if not logits and whole and any(sum(row) != 1 for row in rows) else "single"


def _label(
    labels: tuple[str, ...], shares: Sequence[float], kind: TaskKind, *, logits: bool
) -> Label:
    values = np.array(shares, np.float64)
    if logits:
        if kind == "single":
            values = np.exp(values - values.max())
            values /= values.sum()
        else:
            values = (np.tanh(values / 2) + 1) / 2
    elif kind == "single":
        values /= values.sum()
    if np.isin(values, (0.0, 1.0)).all():
        found = tuple(label for label, value in zip(labels, values, strict=True) if value)
        return found[0] if kind == "single" else found
    return SoftLabel(labels, tuple(values.tolist()))
