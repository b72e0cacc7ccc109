"""JSONL: one object a line, each with keys of its own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from mtl_edge.errors import DataError
from mtl_edge.rows.lines import Lines, grouped, in_utf8
from mtl_edge.rows.model import Answers, Chunk, Kind, Layout, Mark, Opened, ReadOptions, Record

__all__ = ["encode_jsonl", "note_kinds", "read_jsonl"]


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
