"""Files of lines: plain text, one text a line, and JSONL, one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, TypeVar

from mtl_edge.errors import DataError
from mtl_edge.rows.model import (
    CHUNK_BYTES,
    CHUNK_ROWS,
    Answers,
    Chunk,
    Columns,
    Kind,
    Layout,
    Mark,
    Opened,
    ReadOptions,
    Record,
)
from mtl_edge.text import as_texts

__all__ = [
    "Lines",
    "encode_jsonl",
    "grouped",
    "in_utf8",
    "note_kinds",
    "read_jsonl",
    "read_lines",
]

MAX_LINE = 64 << 20  # bytes; a file without line ends must not fill the memory
BOM = "\ufeff"
T = TypeVar("T")


class Lines(Iterator[str]):
    """A stream's lines with their ends, counted.

    Lines end at a line feed alone: a text may hold any other separator that Unicode knows.

    Attributes:
        offset: bytes given so far.
        number: of the last line, from 1.
    """

    def __init__(self, stream: BinaryIO, name: str, *, strict: bool = True) -> None:
        self._stream, self.name = stream, name
        self._errors = "strict" if strict else "replace"
        self.offset = self.number = 0

    def __next__(self) -> str:
        line = self._stream.readline(MAX_LINE + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self.offset += len(line)
        if len(line) > MAX_LINE:
            raise DataError(
                f"{self.here} is longer than {MAX_LINE >> 20} MiB; expected lines of text"
            )
        try:
            text = line.decode("utf-8", self._errors)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.here} is not UTF-8 (byte {error.start + 1} is 0x{line[error.start]:02x}); "
                "convert the file, as with `iconv -f ENCODING -t UTF-8`"
            ) from None
        return text.removeprefix(BOM) if self.number == 1 else text

    @property
    def here(self) -> str:
        """The last line, for a message."""
        return self.at(self.number)

    def at(self, number: int) -> str:
        return f"{self.name}, line {number}"

    def go_to(self, mark: Mark) -> None:
        """Stand where an earlier reader stood."""
        if mark.offset > self.offset:
            self._stream.seek(mark.offset)
            self.offset, self.number = mark.offset, mark.line


def grouped(rows: Iterable[T], lines: Lines, start: Mark) -> Iterator[tuple[list[T], Mark]]:
    """Rows in chunks, with where `lines` stands behind each.

    Where a chunk ends depends on the file and nothing else, so that a run which goes on from a
    mark makes the same ones.
    """
    count, begin = start.rows, lines.offset
    group: list[T] = []
    for row in rows:
        group.append(row)
        if len(group) >= CHUNK_ROWS or lines.offset - begin >= CHUNK_BYTES:
            count += len(group)
            yield group, Mark(count, lines.offset, lines.number)
            group, begin = [], lines.offset
    if group:
        yield group, Mark(count + len(group), lines.offset, lines.number)


def read_lines(lines: Lines, options: ReadOptions, mark: Mark) -> Opened:
    """One text a line."""
    lines.go_to(mark)
    texts = (line.removesuffix("\n").removesuffix("\r") for line in lines)
    name = options.column

    def chunk(group: list[str], mark: Mark) -> Chunk:
        return Chunk([*group], mark, lambda: [{name: text} for text in group])

    return Columns({name: "text"}), (chunk(*part) for part in grouped(texts, lines, mark))


def read_jsonl(lines: Lines, options: ReadOptions, mark: Mark) -> Opened:
    """One object a line; lines of white space are passed over."""
    lines.go_to(mark)

    def chunk(group: list[tuple[str, Record, str | None]], mark: Mark) -> Chunk:
        records = [record for _, record, _ in group]
        return Chunk([text for *_, text in group], mark, lambda: records, [row[0] for row in group])

    rows = _objects(lines, options, first=mark.rows == 0)
    return None, (chunk(*part) for part in grouped(rows, lines, mark))


def _objects(
    lines: Lines, options: ReadOptions, *, first: bool
) -> Iterator[tuple[str, Record, str | None]]:
    for line in lines:
        raw = line.strip(" \t\r\n")
        if not raw:
            continue
        try:
            record = json.loads(raw, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{lines.here} is not JSON: {error}; expected an object") from None
        if not isinstance(record, dict):
            raise DataError(f"{lines.here} holds {type(record).__name__}; expected an object")
        if first and options.column not in record:
            there = ", ".join(map(repr, record)) or "nothing"
            raise DataError(
                f"{lines.here} has no {options.column!r}; it has {there}; name one with --column"
            )
        first = False
        text = record.get(options.column)
        if text is None:
            text = options.absent(lines.here)
        elif not isinstance(text, str):
            raise DataError(
                f"{lines.here}: {options.column!r} is {type(text).__name__}; expected a string"
            )
        yield raw, record, text


def _object(pairs: list[tuple[str, Any]]) -> Record:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} comes twice")
    return result


def note_kinds(records: Iterable[Record], known: dict[str, Kind | None]) -> None:
    """Note in `known` what the values of each column are; None: only nulls so far."""
    for record in records:
        for name, value in record.items():
            known[name] = _merged(known.get(name), _kind(value))


def _merged(one: Kind | None, other: Kind | None) -> Kind | None:
    """The kind that holds values of both."""
    if one == other or other is None:
        return one
    if one is None:
        return other
    return "number" if {one, other} == {"whole", "number"} else "json"


def _kind(value: Any) -> Kind | None:
    match value:
        case None:
            return None
        case bool():
            return "truth"
        case str():
            return "text"
        case int():
            return "whole" if -(2**63) <= value < 2**63 else "json"
        case float():
            return "number"
        case _:
            return "json"


def encode_jsonl(layout: Layout, chunk: Chunk, answers: Answers) -> bytes:
    """An object a line: what the row had, then the answers, null where there is none.

    Raises:
        DataError: a row has what would be added. Other formats tell that by their columns.
    """
    records = chunk.records()
    if clash := next((n for record in records for n in record.keys() & layout.added.keys()), None):
        raise DataError(
            f"a row has {clash!r}, which predict would add; pass --prefix predicted_ to name the "
            "added ones otherwise"
        )
    rows = chunk.raw or [_dumps(record) for record in records]
    out = []
    for row, values in zip(rows, answers, strict=True):
        added = _dumps(dict(zip(layout.added, values or [None] * len(layout.added), strict=True)))
        body = row[:-1].rstrip()
        out.append(f"{body}{'' if body == '{' else ', '}{added[1:]}\n")
    return in_utf8("".join(out))


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def in_utf8(text: str) -> bytes:
    """`text` as UTF-8; lone surrogates, which are not part of it, become U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return as_texts([text])[0].encode()
