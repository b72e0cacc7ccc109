"""What readers yield: an opened table, its rows in chunks, and each row's text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from mtl_edge.errors import DataError
from mtl_edge.io.limits import Limits
from mtl_edge.io.read_options import ReadOptions

__all__ = [
    "BLANK",
    "LINES_IN_CELLS",
    "MERGED",
    "UNLABELLED",
    "Chunk",
    "Kind",
    "Record",
    "OpenedTable",
    "Tally",
    "texts_of",
]

# What is in memory at a time. Enough rows that texts of like length find each other, few enough
# that a slow machine stops within seconds of being told to.
CHUNK_ROWS = 1024
CHUNK_BYTES = 4 << 20

Kind = Literal["text", "whole", "number", "truth", "json"]
Record: TypeAlias = dict[str, Any]

# Why a file gives fewer rows than it has lines, or fewer answers than rows.
BLANK = "blank line{s}"
LINES_IN_CELLS = "line{s} inside quoted cells"
UNLABELLED = "row{s} without a label {were} passed over"
MERGED = "label{s} written in several ways (spaces, forms of accents) {were} taken for one each"
NO_TEXT = "row{s} without a text {were} passed over"
READ_AS_EMPTY = "missing text{s} {were} read as empty"
TOO_LONG = "row{s} whose text is too long {were} passed over"
CUT = "text{s} too long {were} cut"


class Tally(Counter[str]):
    """Counts of rows or lines that were not read as they stand, by reason."""

    def note(self) -> str | None:
        """All counts in one line; None if all of them are 0."""
        parts = [
            f"{n:,} {reason.format(s='s' * (n != 1), were='was' if n == 1 else 'were')}"
            for reason, n in self.items()
            if n
        ]
        return "; ".join(parts) or None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Successive rows of a table.

    Attributes:
        first: number of rows before this chunk.
        places: each row's first line in the file, or its number among the rows; from 1.
        values: returns a column's values, None where there is none.
        records: returns each row's values by column.
        raw: each row as it stands in a JSONL file, so that it is written again to the letter.
        batch: the rows as pyarrow's record batch, so that their types are kept.
    """

    first: int
    places: Sequence[int]
    values: Callable[[str], list[Any]]
    records: Callable[[], list[Record]]
    raw: list[str] | None = None
    batch: Any = None

    @classmethod
    def of(
        cls, first: int, places: Sequence[int], records: list[Record], raw: list[str] | None = None
    ) -> Chunk:
        """A chunk of rows that are in memory as records."""
        values = lambda name: [record.get(name) for record in records]  # noqa: E731
        return cls(first, places, values, lambda: records, raw)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def last(self) -> int:
        """Number of rows up to the end of this chunk."""
        return self.first + len(self.places)


@dataclass(frozen=True, slots=True)
class OpenedTable:
    """An opened input.

    Attributes:
        name: the file's, for messages.
        columns: names and kinds; `json` is any value. None for JSONL, whose columns are known only
            when all rows are read.
        chunks: the rows; can be iterated once.
        place: what `Chunk.places` count, `line` or `row`.
        tally: lines that are no rows, of the chunks iterated so far.
        schema: pyarrow's, of columnar data.
        read: returns the number of bytes of the file that were read.
    """

    name: str
    columns: Mapping[str, Kind] | None
    chunks: Iterator[Chunk]
    place: str = "line"
    tally: Tally = field(default_factory=Tally)
    schema: Any = None
    read: Callable[[], int] = lambda: 0

    def at(self, place: int) -> str:
        """A row's place, for messages."""
        return f"{self.name}, {self.place} {place}"


def texts_of(
    table: OpenedTable, chunk: Chunk, options: ReadOptions, limits: Limits = Limits()
) -> list[str | None]:
    """Each row's text; None for a row to be passed over, which the table's tally counts.

    Raises:
        DataError: a text is missing, too long or no string, and the options do not say what then.
    """
    column, most = options.text_column, limits.text_bytes
    texts: list[str | None] = []
    for place, value in zip(chunk.places, chunk.values(column), strict=True):
        if isinstance(value, str) and 4 * len(value) <= most:
            texts.append(value)
            continue
        if isinstance(value, bytes):
            value = decoded(value, table.at(place), column, options.encoding)
        if value is None or value != value:  # NaN, as some write for null
            texts.append(_missing(table, place, options))
        elif not isinstance(value, str):
            raise DataError(
                f"{table.at(place)}: {column!r} is {type(value).__name__}; expected a string"
            )
        else:
            texts.append(_cut_or_skipped(table, place, value, most, options))
    return texts


def decoded(value: bytes, where: str, column: str, encoding: str | None) -> str:
    """A binary value as text.

    Raises:
        DataError: it is not in the encoding.
    """
    try:
        return value.decode(encoding or "utf-8")
    except UnicodeError as error:
        raise DataError(
            f"{where}: {column!r} holds bytes that are not {encoding or 'UTF-8'} ({error.reason}); "  # type: ignore[attr-defined]
            "pass --encoding, as --encoding cp1252"
        ) from None


def _missing(table: OpenedTable, place: int, options: ReadOptions) -> str | None:
    if options.missing == "error":
        raise DataError(
            f"{table.at(place)} has no text in {options.text_column!r}; fill it in, or pass "
            "--missing skip (to pass such rows over) or --missing empty (an empty text)"
        )
    table.tally[NO_TEXT if options.missing == "skip" else READ_AS_EMPTY] += 1
    return None if options.missing == "skip" else ""


def _cut_or_skipped(
    table: OpenedTable, place: int, text: str, most: int, options: ReadOptions
) -> str | None:
    """The text, or what the options say of one that is too long."""
    data = text.encode("utf-8", "surrogatepass")
    if len(data) <= most:
        return text
    if options.too_long == "error":
        raise DataError(
            f"{table.at(place)}: its text has {len(data):,} bytes, at most {most:,} are allowed; "
            "pass --too-long cut (only its first tokens are read anyway) or --too-long skip"
        )
    table.tally[CUT if options.too_long == "cut" else TOO_LONG] += 1
    return data[:most].decode("utf-8", "ignore") if options.too_long == "cut" else None
