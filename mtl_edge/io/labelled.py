"""Labelled rows of a task, and texts alone, from whatever holds them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from mtl_edge.errors import DataError
from mtl_edge.io.chunks import UNLABELLED, OpenedTable, texts_of
from mtl_edge.io.folders import sha256_of
from mtl_edge.io.label_cells import LabelCells
from mtl_edge.io.label_columns import LabelColumns, combined
from mtl_edge.io.label_options import LabelOptions
from mtl_edge.io.labels import Label, TaskKind
from mtl_edge.io.read_options import ReadOptions
from mtl_edge.io.source import Source, open_table
from mtl_edge.io.text import lacks_column

__all__ = ["Rows", "read_rows", "read_texts"]


@dataclass(frozen=True, slots=True)
class Rows:
    """Labelled texts of one task.

    Attributes:
        labels: as the task's kind has them, see `mtl_edge.io.labels.Label`.
        source: file name and sha256, for the record.
        note: how many rows and lines of the file were passed over, by reason; None if there are
            none.
    """

    texts: tuple[str, ...]
    labels: tuple[Label, ...]
    source: Mapping[str, str]
    note: str | None = None
    kind: TaskKind = "single"

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, positions: Sequence[int]) -> Rows:
        return Rows(
            tuple(self.texts[i] for i in positions),
            tuple(self.labels[i] for i in positions),
            self.source,
            kind=self.kind,
        )


def read_rows(
    task: str,
    source: Source,
    options: ReadOptions = ReadOptions(),
    labels: str | LabelOptions | None = None,
    known: Sequence[str] | None = None,
) -> Rows:
    """Read a task's labelled rows; rows without a label are passed over and counted.

    Args:
        source: a path, `hub:NAME[:SUBSET][:SPLIT]`, or a data frame.
        labels: how they stand there, or the name of their column.
        known: the task's labels; None: whatever labels are found.

    Raises:
        DataError: the data are missing, malformed or empty, lack a column, or have a label that
            cannot be one or is not known.
        MissingPackageError: what reads them is not installed.
    """
    how = labels if isinstance(labels, LabelOptions) else LabelOptions(labels)
    wanted = _wanted(how, task)
    if options.text_column in wanted:
        raise DataError(
            f"column {options.text_column!r} would hold texts and labels; name two columns with "
            "--text-column and --label-column"
        )
    with open_table(source, options) as table:
        if table.columns is not None and wanted:
            wanted = [name for name in wanted if name in table.columns][:1]
            if not wanted:
                raise lacks_column(table.name, _wanted(how, task), "--label-column", table.columns)
        texts, found, by_label = _read_chunks(table, task, options, how, known, wanted)
    if not texts:
        raise DataError(f"{table.name} has no rows; expected labelled texts")
    kind, values = by_label.result()
    if wanted:
        column = next((n for n in wanted if any(v is not None for _, v in found[n])), wanted[0])
        cells = LabelCells(table, task, column, how, options, known, kind)
        kind, own = cells.read(found[column])
        values = [combined(*pair) for pair in zip(own, values or own, strict=True)]
    rows = [
        (text, label)
        for text, label in zip(texts, values, strict=True)
        if text is not None and label is not None
    ]
    table.tally[UNLABELLED] += sum(text is not None for text in texts) - len(rows)
    if not rows:
        raise DataError(
            f"{table.name} has no labelled row; expected a label in column "
            f"{how.columns or ' or '.join(map(repr, wanted))}; name another with --label-column"
        )
    texts_kept, labels_kept = zip(*rows, strict=True)
    record = _record(source, table, rows)
    return Rows(texts_kept, labels_kept, record, table.tally.note(), kind or "single")


def _wanted(how: LabelOptions, task: str) -> list[str]:
    """Columns that labels may be in, the likeliest first; none where each label has its own."""
    if how.column:
        return [how.column]
    return [] if how.columns else ["label", task, "labels"]


def _read_chunks(
    table: OpenedTable,
    task: str,
    options: ReadOptions,
    how: LabelOptions,
    known: Sequence[str] | None,
    wanted: Sequence[str],
) -> tuple[list[str | None], dict[str, list[tuple[int, Any]]], LabelColumns]:
    """Each row's text, each wanted column's places and values, and what a column a label holds."""
    texts: list[str | None] = []
    found: dict[str, list[tuple[int, Any]]] = {name: [] for name in wanted}
    by_label = LabelColumns(table, task, how, known)
    for chunk in table.chunks:
        texts += texts_of(table, chunk, options)
        for name in wanted:
            found[name] += zip(chunk.places, chunk.values(name), strict=True)
        by_label.add(chunk)
    return texts, found, by_label


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


def _record(
    source: Source, table: OpenedTable, rows: Sequence[tuple[str, Label]]
) -> dict[str, str]:
    """Where rows come from: a file's name and checksum, or else that of the rows."""
    if isinstance(source, (str, PurePath)) and Path(source).is_file():  # a pipe is read once
        return {"file": Path(source).name, "sha256": sha256_of(Path(source))}
    content = json.dumps(rows, default=str).encode()
    return {"file": table.name, "sha256": hashlib.sha256(content).hexdigest()}
