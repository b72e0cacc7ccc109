"""CSV and TSV, after RFC 4180: a header, quoted cells may hold anything."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from typing import Any

from mtl_edge.errors import DataError
from mtl_edge.rows.lines import Lines, grouped, in_utf8
from mtl_edge.rows.model import Answers, Chunk, Columns, Layout, Mark, Opened, ReadOptions

__all__ = ["delimited_header", "encode_delimited", "read_delimited"]

# Characters; the library's own limit, 131,072, is less than some texts have. A quote that is never
# closed takes all that follows for one cell: there must be a limit.
MAX_CELL = 16 << 20


def read_delimited(lines: Lines, options: ReadOptions, mark: Mark, separator: str) -> Opened:
    """The header's columns, and the rows; empty lines are passed over."""
    names = next(_rows(lines, separator), None)
    if names is None:
        raise DataError(f"{lines.name} is empty; expected a header with {options.column!r}")
    if twice := sorted({repr(name) for name in names if names.count(name) > 1}):
        raise DataError(
            f"{lines.name}: {', '.join(twice)} comes twice in the header; rename one of them"
        )
    if options.column not in names:
        raise DataError(
            f"{lines.name} has no column {options.column!r}; it has "
            f"{', '.join(map(repr, names))}; name one with --column"
        )
    lines.go_to(mark)
    position = names.index(options.column)

    def chunk(group: list[list[str]], mark: Mark) -> Chunk:
        texts: list[str | None] = [row[position] for row in group]
        return Chunk(texts, mark, lambda: [dict(zip(names, row, strict=True)) for row in group])

    rows = _rows(lines, separator, len(names))
    chunks = (chunk(*part) for part in grouped(rows, lines, mark))
    return Columns(dict.fromkeys(names, "text")), chunks


def _rows(lines: Lines, separator: str, width: int | None = None) -> Iterator[list[str]]:
    """Rows of `width` cells. Takes no more lines than the rows that it gave have."""
    reader = csv.reader(lines, delimiter=separator, strict=True)
    while True:
        start = lines.number + 1
        # The limit is the process's: it is as it was whenever other code runs.
        before = csv.field_size_limit(MAX_CELL)
        try:
            row = next(reader, None)
        except csv.Error as error:
            reason = str(error).partition(" - ")[0]
            raise DataError(
                f"the row that begins at {lines.at(start)} is malformed: {reason}; "
                "is a quote open, or not doubled?"
            ) from None
        finally:
            csv.field_size_limit(before)
        if row is None:
            return
        if not row:
            continue
        if width is not None and len(row) != width:
            raise DataError(
                f"{lines.at(start)} has {len(row)} cells, the header {width}; a cell that holds "
                "the separator must be in quotes"
            )
        yield row


def delimited_header(layout: Layout, separator: str) -> bytes:
    return _written([[*layout.columns.kinds, *layout.added]], separator)


def encode_delimited(layout: Layout, chunk: Chunk, answers: Answers, separator: str) -> bytes:
    """Rows; an empty cell for a null and for an answer that is not there."""
    names = list(layout.columns.kinds)
    empty = [""] * len(layout.added)
    rows = [
        [
            *(as_cell(record.get(name)) for name in names),
            *(empty if values is None else map(_answer_cell, values)),
        ]
        for record, values in zip(chunk.records(), answers, strict=True)
    ]
    return _written(rows, separator)


def _written(rows: list[list[str]], separator: str) -> bytes:
    out = _Lines()
    # Some versions of Python quote only those line ends that are in the terminator.
    csv.writer(out, delimiter=separator, lineterminator="\r\n").writerows(rows)
    return in_utf8("".join(out.lines))


class _Lines:
    """What the csv module writes to, a row a call; rows end with a line feed."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, row: str) -> None:
        self.lines.append(row.removesuffix("\r\n") + "\n")


def as_cell(value: Any) -> str:
    """A value as text: JSON, but for null, which is empty, and strings, which are themselves."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def _answer_cell(value: Any) -> str:
    return f"{value:.6f}" if isinstance(value, float) else as_cell(value)
