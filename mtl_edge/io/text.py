"""Text files: lines that are decoded and counted; plain texts and JSONL, a line each."""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, TypeAlias

from mtl_edge.errors import DataError
from mtl_edge.io import chunks
from mtl_edge.io.chunks import BLANK, Chunk, Kind, Record, Tally
from mtl_edge.io.read_options import ReadOptions

__all__ = [
    "BOM",
    "CARRIAGE_RETURNS",
    "Lines",
    "Opened",
    "Row",
    "chunks_of",
    "lacks_column",
    "note_kinds",
    "read_jsonl",
    "read_lines",
]

MAX_LINE = 64 << 20  # characters; a file without line ends must not fill the memory
BOM = "\ufeff"
CARRIAGE_RETURNS = "; if these end its lines, replace them, as with `tr '\\r' '\\n'`"
# The longer marks first: UTF-32's begins as UTF-16's does. These codecs take the mark away.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

Row: TypeAlias = tuple[int, Record, str | None]  # its line, values, and text if that is kept
Opened: TypeAlias = "tuple[Mapping[str, Kind] | None, Iterator[Chunk]]"


class Lines(Iterator[str]):
    """A stream's lines with their ends, decoded and counted.

    Lines end at a line feed alone: a text may hold any other separator that Unicode knows.

    Args:
        stream: has `peek`. It stays open.
        encoding: default: what a byte order mark says, or UTF-8.

    Attributes:
        number: of the last line, from 1.
        size: characters given so far.

    Raises:
        DataError: it seems to be of an encoding that was not given.
    """

    def __init__(self, stream: BinaryIO, name: str, encoding: str | None) -> None:
        self.name = name
        head: bytes = stream.peek(64)[:64]  # type: ignore[attr-defined]
        found = next((codec for mark, codec in MARKS.items() if head.startswith(mark)), None)
        if encoding is None and found is None:
            _require_no_zeros(head, name)
        self._encoding = encoding or found or "utf-8"
        self._text = io.TextIOWrapper(stream, self._encoding, newline="\n")
        self.number = self.size = 0

    def __next__(self) -> str:
        try:
            line = self._text.readline(MAX_LINE + 1)
        except UnicodeError as error:
            raise self._undecoded(error) from None
        if not line:
            raise StopIteration
        self.number += 1
        self.size += len(line)
        if len(line) > MAX_LINE:
            raise DataError(
                f"{self.here} is longer than {MAX_LINE >> 20} Mi characters; expected lines of text"
            )
        return line.lstrip(BOM) if self.number == 1 else line

    def _undecoded(self, error: UnicodeError) -> DataError:
        name = "UTF-8" if self._encoding == "utf-8" else self._encoding
        # What comes before the fault in the decoder's hands was not given as lines yet.
        ahead, found = 1, ""
        if isinstance(error, UnicodeDecodeError):
            ahead += error.object[: error.start].count(b"\n")
            found = f" (0x{error.object[error.start]:02x}: {error.reason})"
        return DataError(
            f"{self.at(self.number + ahead)} is not {name}{found}; pass --encoding, as "
            "--encoding cp1252 (Windows, Western Europe) or utf-16"
        )

    def detach(self) -> None:
        """Leave the stream open for others."""
        self._text.detach()

    @property
    def here(self) -> str:
        """The last line, for a message."""
        return self.at(self.number)

    def at(self, number: int) -> str:
        return f"{self.name}, line {number}"


def _require_no_zeros(head: bytes, name: str) -> None:
    """UTF-16 and UTF-32 without a mark would pass for UTF-8 with zeros."""
    zeros, odd = head.count(0), head[1::2].count(0)
    if len(head) >= 8 and zeros >= 0.6 * len(head):
        codec = "utf-32-be" if head[0] == 0 else "utf-32-le"
    elif len(head) >= 4 and zeros >= 0.3 * len(head) and odd in (0, zeros):
        codec = "utf-16-le" if odd else "utf-16-be"
    else:
        return
    raise DataError(f"{name} seems to be in {codec[:6].upper()}; pass --encoding {codec}")


def lacks_column(
    name: str, wanted: Sequence[str], option: str, there: Iterable[str], also: str = ""
) -> DataError:
    """The error for a file without one of the columns that are wanted.

    Args:
        option: that names another.
        also: what else may be done.
    """
    there = list(there)
    message = (
        f"{name} has no column {' or '.join(map(repr, wanted))}; it has "
        f"{', '.join(map(repr, there)) or 'nothing'}; name one with {option}"
    )
    like = {one.strip().casefold(): one for one in there}
    for one in wanted:
        if (found := like.get(one.casefold())) is not None:
            return DataError(f"{message} {found!r}")
    for separator, called in (("\t", "tab"), (";", "semicolon"), (",", "comma"), ("|", "pipe")):
        if len(there) == 1 and separator in there[0]:
            return DataError(f"{message}; are cells apart by {called}s? Pass --separator {called}")
    return DataError(message + also)


def chunks_of(rows: Iterable[Row], lines: Lines) -> Iterator[Chunk]:
    """Rows in chunks.

    Where a chunk ends depends on the file and nothing else, so that a run which goes on makes the
    same ones.
    """
    first, begin = 0, lines.size
    group: list[Row] = []

    def chunk() -> Chunk:
        places, records, raw = zip(*group, strict=True)
        return Chunk.of(first, places, [*records], None if raw[0] is None else [*raw])

    for row in rows:
        group.append(row)
        if len(group) >= chunks.CHUNK_ROWS or lines.size - begin >= chunks.CHUNK_BYTES:
            yield chunk()
            first, group, begin = first + len(group), [], lines.size
    if group:
        yield chunk()


def read_lines(lines: Lines, options: ReadOptions, tally: Tally) -> Opened:
    """One text a line."""
    name = options.text_column

    def texts() -> Iterator[Row]:
        for line in lines:
            text = line.rstrip("\r\n")
            if "\r" in text:
                raise DataError(
                    f"{lines.here} holds a carriage return{CARRIAGE_RETURNS}, or give CSV with the "
                    "text in quotes"
                )
            yield lines.number, {name: text}, None

    return {name: "text"}, chunks_of(texts(), lines)


def read_jsonl(lines: Lines, options: ReadOptions, tally: Tally) -> Opened:
    """One object a line; lines of white space are counted and passed over."""
    return None, chunks_of(_objects(lines, options, tally), lines)


def _objects(lines: Lines, options: ReadOptions, tally: Tally) -> Iterator[Row]:
    column, seen = options.text_column, False
    keys: dict[str, None] = {}
    for line in lines:
        raw = line.strip(" \t\r\n")
        if not raw:
            tally[BLANK] += 1
            continue
        try:
            record = json.loads(raw, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            told = str(error).partition(";")[0].replace("line 1 column", "column")
            if "\r" in raw:
                told += CARRIAGE_RETURNS
            raise DataError(
                f"{lines.here} is not JSON: {told}; expected an object a line, as `jq -c` writes"
            ) from None
        if not isinstance(record, dict):
            raise DataError(
                f"{lines.here} holds {type(record).__name__}; expected an object a line, as "
                "`jq -c '.[]'` makes of a list"
            )
        if not seen:
            keys.update(dict.fromkeys(record))
            seen = column in record
            if not seen and options.missing == "error":
                break  # most likely none has it
        yield lines.number, record, raw
    else:
        seen = seen or not keys
    if not seen:
        also = "; or pass --missing skip if rows may lack it"
        raise lacks_column(lines.here, [column], "--text-column", keys, also)


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
            one, other = known.get(name), _kind(value)
            if one is None or other is None or one == other:
                known[name] = one or other
            else:
                known[name] = "number" if {one, other} == {"whole", "number"} else "json"


KINDS: Mapping[type, Kind] = {bool: "truth", str: "text", float: "number"}


def _kind(value: Any) -> Kind | None:
    if value is None:
        return None
    if type(value) is int and -(2**63) <= value < 2**63:
        return "whole"
    return KINDS.get(type(value), "json")
