"""Text files: CSV and TSV, JSONL, and plain lines."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, TypeAlias

from mtl_edge.errors import DataError
from mtl_edge.io import model
from mtl_edge.io.model import BLANK, INSIDE, Chunk, Kind, ReadOptions, Record, Tally

__all__ = ["Lines", "lacks_column", "note_kinds", "read_delimited", "read_jsonl", "read_lines"]

MAX_LINE = 64 << 20  # characters; a file without line ends must not fill the memory
# The csv module's own limit, 131,072 characters, is less than some texts have. A quote that is
# never closed takes all that follows for one cell: there must be a limit.
MAX_CELL = 16 << 20
BOM = "\ufeff"
# The longer marks first: UTF-32's begins as UTF-16's does. These codecs take the mark away.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Of columns, whose values tell rows that a stray quote took for the inside of a cell.
MOST_KNOWN, LONGEST_KNOWN, MOST_DOUBTED = 4096, 64, 1000

Row: TypeAlias = tuple[int, Record, str | None]  # its line, values, and text if that is kept
Opened: TypeAlias = "tuple[Mapping[str, Kind] | None, Iterator[Chunk]]"


class Lines(Iterator[str]):
    """A stream's lines with their ends, decoded and counted.

    Lines end at a line feed alone: a text may hold any other separator that Unicode knows.

    Args:
        stream: has `peek`. It stays open.
        encoding: none: what a byte order mark says, or UTF-8.

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
            _require_no_utf16(head, name)
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
        return line.removeprefix(BOM) if self.number == 1 else line

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


def _require_no_utf16(head: bytes, name: str) -> None:
    """UTF-16 without a mark would pass for UTF-8 with zeros."""
    pairs = head[: len(head) // 2 * 2]
    for codec, zeros, others in (("le", pairs[1::2], pairs[::2]), ("be", pairs[::2], pairs[1::2])):
        if len(pairs) >= 4 and not any(zeros) and all(others):
            raise DataError(
                f"{name} seems to be UTF-16 without a mark; pass --encoding utf-16-{codec}"
            )


def lacks_column(name: str, wanted: Sequence[str], option: str, there: Iterable[str]) -> DataError:
    """The error for a file without one of the columns that are wanted.

    Args:
        option: that names another.
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
    return DataError(message)


def _chunks(rows: Iterable[Row], lines: Lines) -> Iterator[Chunk]:
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
        if len(group) >= model.CHUNK_ROWS or lines.size - begin >= model.CHUNK_BYTES:
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
                    f"{lines.here} holds a carriage return, which ends lines in some files; "
                    "replace these, as with `tr '\\r' '\\n'`, or give CSV with the text in quotes"
                )
            yield lines.number, {name: text}, None

    return {name: "text"}, _chunks(texts(), lines)


# CSV and TSV, after RFC 4180: a header, quoted cells may hold anything.


def read_delimited(lines: Lines, options: ReadOptions, tally: Tally, separator: str) -> Opened:
    """The header's columns, and the rows; empty lines are counted and passed over."""
    separator = options.separator or separator
    cells = _cells(lines, options, tally, separator)
    _, names, _ = next(cells, (0, [], ()))
    if not names:
        raise DataError(f"{lines.name} is empty; expected a header and rows")
    if twice := sorted({repr(name) for name in names if names.count(name) > 1}):
        raise DataError(
            f"{lines.name}: {', '.join(twice)} comes twice in the header; rename one of them"
        )
    stray = _StrayQuotes(lines, separator) if options.quoting is None else None

    def rows() -> Iterator[Row]:
        for start, row, taken in cells:
            if len(row) != len(names):
                raise DataError(
                    f"{lines.at(start)} has {len(row)} cells, the header {len(names)}; a cell that "
                    f"holds the separator must be in quotes{_hint(taken, options, separator)}"
                )
            if row == names and len(row) > 1:
                raise DataError(
                    f"{lines.at(start)} is the header again; were files put together? Take it out"
                )
            tally[INSIDE] += len(taken) - 1
            if stray is not None:
                stray.note(start, row, taken)
            yield start, dict(zip(names, row, strict=True)), None
        if stray is not None:
            stray.require_none()

    return dict.fromkeys(names, "text"), _chunks(rows(), lines)


def _cells(
    lines: Lines, options: ReadOptions, tally: Tally, separator: str
) -> Iterator[tuple[int, list[str], Sequence[str]]]:
    """Each row's first line, its cells, and the lines that it was read from; none of blank ones.

    Takes no more lines than the rows that it gave have.
    """
    taken: list[str] = []
    escape = options.escape
    # The csv module would drop the escape character before any other, as in C:\new.
    special = {escape, '"', separator, "\r", "\n"}
    pair = re.compile(re.escape(escape or "\\") + r"(.|\n|\Z)", re.DOTALL)

    def noted() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            if escape is not None:
                line = pair.sub(lambda m: m[0] if m[1] in special else escape + m[0], line)
            yield line

    plain = options.quoting == "none"
    reader: Iterator[list[str]] = csv.reader(
        noted(),
        delimiter=separator,
        quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL,
        escapechar=escape,
        strict=True,
    )
    if plain and escape is None:  # a lone carriage return is part of a cell, too
        reader = (line.rstrip("\r\n").split(separator) for line in noted())
    while True:
        taken.clear()
        start = lines.number + 1
        # The limit is the process's: it is as it was whenever other code runs.
        before = csv.field_size_limit(MAX_CELL)
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f"the row that begins at {lines.at(start)} is malformed: "
                f"{str(error).partition(' - ')[0]}; is a quote open, or not doubled, or a carriage "
                f"return not in quotes?{_hint(taken, options, separator)}"
            ) from None
        finally:
            csv.field_size_limit(before)
        if row is None:
            return
        if row and (len(row) > 1 or taken[0].strip("\r\n")):
            yield start, row, taken
        else:
            tally[BLANK] += 1


def _hint(taken: Sequence[str], options: ReadOptions, separator: str) -> str:
    """Options that may read these lines."""
    text, hints = "".join(taken), []
    if options.escape is None and re.search(rf'\\["{re.escape(separator)}]', text):
        hints.append("--escape '\\' if backslashes stand before quotes or separators")
    if options.quoting != "none" and '"' in text:
        hints.append("--quoting none if quotes are characters like others")
    return f" Pass {', or '.join(hints)}" if hints else ""


class _StrayQuotes:
    """Looks for rows that a stray quote took into a cell, which the csv module cannot tell.

    A quoted cell of several lines is doubted where each of its lines alone would be a row, and
    these have, in some column, values that other rows have there: labels or numbers, say.
    """

    def __init__(self, lines: Lines, separator: str) -> None:
        self._lines, self._separator = lines, separator
        self._known: dict[int, set[str]] = {}
        self._doubted: deque[tuple[int, list[list[str]]]] = deque(maxlen=MOST_DOUBTED)

    def note(self, start: int, row: Sequence[str], taken: Sequence[str]) -> None:
        """A row, and the lines that it was read from."""
        if len(taken) > 1:
            rows = [line.rstrip("\r\n").split(self._separator) for line in taken]
            if len(row) > 1 and all(len(one) == len(row) for one in rows):
                self._doubted.append((start, rows))
            return
        for column, cell in enumerate(row):
            known = self._known.setdefault(column, set())
            if len(known) < MOST_KNOWN and len(cell) <= LONGEST_KNOWN:
                known.add(cell)

    def require_none(self) -> None:
        """
        Raises:
            DataError: a cell holds what seem to be rows; its first line is named.
        """
        if not self._doubted:
            return
        known = {column: {*map(_shape, cells)} - {""} for column, cells in self._known.items()}
        for start, rows in self._doubted:
            if any(all(_shape(row[c]) in known[c] for row in rows) for c in known):
                raise DataError(
                    f"the quote that opens at {self._lines.at(start)} takes the rows behind it "
                    "into its cell; pass --quoting none if quotes are characters like others, or "
                    "--quoting double if it is one cell"
                )


def _shape(cell: str) -> str:
    return re.sub(r"\d+", "0", cell.strip())


# JSONL: one object a line, each with keys of its own.


def read_jsonl(lines: Lines, options: ReadOptions, tally: Tally) -> Opened:
    """One object a line; lines of white space are counted and passed over."""
    return None, _chunks(_objects(lines, options, tally), lines)


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
            told = str(error).replace("line 1 column", "column")  # of this line, not of the file
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
        raise lacks_column(lines.here, [column], "--text-column or --missing", keys)


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
