"""What readers give: chunks of rows; and what of a row is its text, by the options of reading."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from mtl_edge.errors import DataError, OptionError
from mtl_edge.io.limits import Limits

__all__ = [
    "BLANK",
    "INSIDE",
    "MERGED",
    "UNLABELLED",
    "Chunk",
    "Kind",
    "ReadOptions",
    "Record",
    "Table",
    "Tally",
    "texts_of",
]

# What is in memory at a time. Enough rows that texts of like length find each other, few enough
# that a slow machine stops within seconds of being told to.
CHUNK_ROWS = 1024
CHUNK_BYTES = 4 << 20

Kind = Literal["text", "whole", "number", "truth", "json"]
Record: TypeAlias = dict[str, Any]

SEPARATORS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}

# Why a file gives fewer rows than it has lines, or fewer answers than rows.
BLANK = "blank line{s}"
INSIDE = "line{s} inside quoted cells"
UNLABELLED = "row{s} without a label {were} passed over"
MERGED = "label{s} written in several ways (spaces, forms of accents) {were} taken for one each"
TEXTLESS = "row{s} without a text {were} passed over"
EMPTIED = "missing text{s} {were} read as empty"
LONG = "row{s} whose text is too long {were} passed over"
CUT = "text{s} too long {were} cut"


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read a file, whatever for.

    Attributes:
        text_column: holds the texts.
        format: one of `mtl_edge.io.source.FORMATS`; none: by the ending of the file's name.
        encoding: of text files; none: UTF-8, or what a byte order mark says.
        separator: of CSV and TSV, one character or its name, as `tab`; none: by the format.
        quoting: of CSV and TSV: `double`, after RFC 4180; or `none`, quotes are characters like
            others. Not given: double, but quotes that seem to be stray are refused.
        escape: of CSV and TSV, takes the meaning from a quote, a separator or a line end behind it.
        missing: what a null in place of a text is: an error, a row to pass over, an empty text.
        too_long: what a text beyond the classifier's limit is: an error, a row to pass over, or
            cut.

    Raises:
        OptionError: one of them makes no sense.
    """

    text_column: str = "text"
    format: str | None = None
    encoding: str | None = None
    separator: str | None = None
    quoting: Literal["double", "none"] | None = None
    escape: str | None = None
    missing: Literal["error", "skip", "empty"] = "error"
    too_long: Literal["error", "skip", "cut"] = "error"

    def __post_init__(self) -> None:
        separator = SEPARATORS.get(self.separator or "", self.separator)
        object.__setattr__(self, "separator", separator)
        for name, value in (("separator", separator), ("escape", self.escape)):
            if value is not None and (len(value) != 1 or value in '"\r\n\0'):
                raise OptionError(
                    f"--{name} is {value!r}, expected one character, no quote and no line end"
                )
        if separator is not None and separator == self.escape:
            raise OptionError(f"--separator and --escape are both {separator!r}; choose two")
        try:
            "a,\n".encode(self.encoding or "utf-8")
        except (LookupError, UnicodeError, ValueError) as error:
            raise OptionError(
                f"--encoding {self.encoding!r}: {error}; expected utf-8, utf-16, cp1252, ..."
            ) from None


class Tally(Counter[str]):
    """How many rows or lines were not read as they stand, by reason."""

    def note(self) -> str | None:
        """All of it in one line; none: there is nothing to tell."""
        parts = [
            f"{n:,} {reason.format(s='s' * (n != 1), were='was' if n == 1 else 'were')}"
            for reason, n in self.items()
            if n
        ]
        return "; ".join(parts) or None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Successive rows.

    Attributes:
        first: how many rows come before them.
        places: of each row, its first line in the file, or its number among the rows; from 1.
        values: gives a column's values, None where there is none.
        records: gives each row's values by column.
        raw: each row as it stands in a JSONL file, so that it is kept to the letter.
        batch: pyarrow's, so that types are kept.
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
        """Rows that are at hand as records."""
        values = lambda name: [record.get(name) for record in records]  # noqa: E731
        return cls(first, places, values, lambda: records, raw)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def last(self) -> int:
        """How many rows there are up to the end of these."""
        return self.first + len(self.places)


@dataclass(frozen=True, slots=True)
class Table:
    """An input that was opened.

    Attributes:
        name: of the file, for messages.
        columns: names and kinds; `json` is anything. None: only all of the rows tell (JSONL).
        chunks: the rows; taken once.
        place: what `Chunk.places` count, `line` or `row`.
        tally: of lines that are no rows, as far as the chunks were taken.
        schema: pyarrow's, of columnar data.
        read: tells how many bytes of the file were read.
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
    table: Table, chunk: Chunk, options: ReadOptions, limits: Limits = Limits()
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
            texts.append(_within(table, place, value, most, options))
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


def _missing(table: Table, place: int, options: ReadOptions) -> str | None:
    if options.missing == "error":
        raise DataError(
            f"{table.at(place)} has no text in {options.text_column!r}; fill it in, or pass "
            "--missing skip (to pass such rows over) or --missing empty (an empty text)"
        )
    table.tally[TEXTLESS if options.missing == "skip" else EMPTIED] += 1
    return None if options.missing == "skip" else ""


def _within(table: Table, place: int, text: str, most: int, options: ReadOptions) -> str | None:
    """The text, if it is not too long, or what the options make of it."""
    data = text.encode("utf-8", "surrogatepass")
    if len(data) <= most:
        return text
    if options.too_long == "error":
        raise DataError(
            f"{table.at(place)}: its text has {len(data):,} bytes, at most {most:,} are allowed; "
            "pass --too-long cut (only its first tokens are read anyway) or --too-long skip"
        )
    table.tally[CUT if options.too_long == "cut" else LONG] += 1
    return data[:most].decode("utf-8", "ignore") if options.too_long == "cut" else None
