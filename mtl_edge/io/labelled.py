"""Labelled rows of a task, and texts alone, from whatever holds them."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from mtl_edge.errors import DataError
from mtl_edge.io.chunks import MERGED, UNLABELLED, OpenedTable, decoded, texts_of
from mtl_edge.io.folders import sha256_of
from mtl_edge.io.labels import label_of, listed, skeleton
from mtl_edge.io.read_options import ReadOptions
from mtl_edge.io.source import Source, open_table
from mtl_edge.io.text import lacks_column

__all__ = ["Rows", "read_rows", "read_texts"]


@dataclass(frozen=True, slots=True)
class Rows:
    """Labelled texts of one task.

    Attributes:
        source: file name and sha256, for the record.
        note: how many rows and lines of the file were passed over, by reason; None if there are
            none.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    source: Mapping[str, str]
    note: str | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, positions: Sequence[int]) -> Rows:
        return Rows(
            tuple(self.texts[i] for i in positions),
            tuple(self.labels[i] for i in positions),
            self.source,
        )


def read_rows(
    task: str,
    source: Source,
    options: ReadOptions = ReadOptions(),
    label_column: str | None = None,
    known: Sequence[str] | None = None,
) -> Rows:
    """Read a task's labelled rows; rows without a label are passed over and counted.

    Args:
        source: a path, `hub:NAME[:SUBSET][:SPLIT]`, or a data frame.
        label_column: default: `label`, or else the column of the task's name.
        known: the task's labels; None: whatever labels are found.

    Raises:
        DataError: the data are missing, malformed or empty, lack a column, or have a label that
            cannot be one or is not known.
        MissingPackageError: what reads them is not installed.
    """
    wanted = [label_column] if label_column else ["label", task]
    if options.text_column in wanted:
        raise DataError(
            f"column {options.text_column!r} would hold texts and labels; name two columns with "
            "--text-column and --label-column"
        )
    texts: list[str | None] = []
    found: dict[str, list[tuple[int, Any]]] = {name: [] for name in wanted}
    with open_table(source, options) as table:
        if table.columns is not None:
            wanted = [name for name in wanted if name in table.columns][:1]
            if not wanted:
                raise lacks_column(table.name, [*found], "--label-column", table.columns)
        for chunk in table.chunks:
            texts += texts_of(table, chunk, options)
            for name in wanted:
                found[name] += zip(chunk.places, chunk.values(name), strict=True)
    if not texts:
        raise DataError(f"{table.name} has no rows; expected labelled texts")
    column = next((n for n in wanted if any(v is not None for _, v in found[n])), wanted[0])
    labels = _labels(table, task, column, found[column], options, known)
    rows = [
        (text, label)
        for text, label in zip(texts, labels, strict=True)
        if text is not None and label is not None
    ]
    table.tally[UNLABELLED] += sum(text is not None for text in texts) - len(rows)
    if not rows:
        raise DataError(
            f"{table.name} has no labelled row; expected a label in column "
            f"{' or '.join(map(repr, wanted))}; name another with --label-column"
        )
    texts_kept, labels_kept = zip(*rows, strict=True)
    record = _record(source, table, rows)
    return Rows(texts_kept, labels_kept, record, table.tally.note())


def _labels(
    table: OpenedTable,
    task: str,
    column: str,
    values: Sequence[tuple[int, Any]],
    options: ReadOptions,
    known: Sequence[str] | None,
) -> list[str | None]:
    """Each row's label.

    Raises:
        DataError: one cannot be a label, or is not among those that are known; its place is named.
    """
    of_task = None if known is None else {unicodedata.normalize("NFC", k): k for k in known}

    def read(place: int, value: Any) -> str | None:
        if isinstance(value, bytes):
            value = decoded(value, table.at(place), column, options.encoding)
        try:
            label = label_of(value)
        except ValueError as error:
            raise DataError(f"{table.at(place)}: {column!r} is {error}") from None
        if label is None or of_task is None:
            return label
        if label not in of_task:
            raise _unknown(table.at(place), label, task, list(of_task.values()))
        return of_task[label]

    labels: list[str | None] = []
    before: dict[str, str | None] = {}  # there are few
    for place, value in values:
        if not isinstance(value, str):
            labels.append(read(place, value))
            continue
        if value not in before:
            before[value] = read(place, value)
        labels.append(before[value])
    ways = Counter(label for label in before.values() if label is not None)
    table.tally[MERGED] += sum(count > 1 for count in ways.values())
    return labels


def _unknown(where: str, label: str, task: str, known: Sequence[str]) -> DataError:
    like = next((k for k in known if skeleton(k) == skeleton(label)), None)
    hint = "" if like is None else f"; it looks like {like!r} and is written otherwise"
    return DataError(
        f"{where} has the label {label!r:.60}, which task {task!r} does not know; expected "
        f"{listed(known)}{hint}"
    )


def read_texts(
    source: Source, options: ReadOptions = ReadOptions()
) -> tuple[list[str], str | None]:
    """The texts of an input, whatever its labels, and a note as that of `Rows`.

    Raises:
        DataError: as for `read_rows`.
    """
    texts: list[str] = []
    with open_table(source, options) as table:
        for chunk in table.chunks:
            texts += [text for text in texts_of(table, chunk, options) if text is not None]
    if not texts:
        raise DataError(f"{table.name} has no rows; expected texts")
    return texts, table.tally.note()


def _record(source: Source, table: OpenedTable, rows: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Where rows come from: a file's name and checksum, or else that of the rows."""
    if isinstance(source, (str, PurePath)) and Path(source).is_file():  # a pipe is read once
        return {"file": Path(source).name, "sha256": sha256_of(Path(source))}
    content = json.dumps(rows).encode()
    return {"file": table.name, "sha256": hashlib.sha256(content).hexdigest()}
