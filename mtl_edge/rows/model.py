"""What readers give and writers take: chunks of rows, each with a text to classify."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from mtl_edge.errors import DataError, LimitError, OptionError
from mtl_edge.limits import Limits

__all__ = [
    "CHUNK_BYTES",
    "CHUNK_ROWS",
    "START",
    "Answers",
    "Chunk",
    "Columns",
    "Kind",
    "Layout",
    "Mark",
    "Missing",
    "Opened",
    "ReadOptions",
    "Record",
    "layout_of",
]

# What is in memory at a time. Enough rows that texts of like length find each other, few enough
# that a slow machine stops within seconds of being told to.
CHUNK_ROWS = 1024
CHUNK_BYTES = 4 << 20

Kind = Literal["text", "whole", "number", "truth", "json"]
Missing = Literal["error", "empty", "skip"]
Record: TypeAlias = dict[str, Any]
Answers: TypeAlias = list[list[Any] | None]  # a row's added values; None: it had no text


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a reader stands: rows given, bytes and lines of the (unpacked) file behind it."""

    rows: int = 0
    offset: int = 0
    line: int = 0


START = Mark()


@dataclass(frozen=True, slots=True)
class Columns:
    """An input's columns, in order.

    Attributes:
        kinds: by the column's name, what its values are; `json` is anything, as JSON text where a
            format has no better place.
        schema: pyarrow's, of a Parquet file.
    """

    kinds: Mapping[str, Kind]
    schema: Any = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Successive rows.

    Attributes:
        texts: to classify; None for a row to be passed over.
        mark: where the reader stands behind them.
        records: gives each row's values by column.
        raw: each row as it stands in a JSONL file, so that it is kept to the letter.
        batch: pyarrow's, of a Parquet file, so that types are kept.
    """

    texts: list[str | None]
    mark: Mark
    records: Callable[[], list[Record]]
    raw: list[str] | None = None
    batch: Any = None

    def require_within(self, limits: Limits) -> None:
        """
        Raises:
            LimitError: a text is larger than the classifier takes; its row is named, from 1.
        """
        if found := limits.too_large(self.texts):
            position, size = found
            raise LimitError(
                f"row {self.mark.rows - len(self.texts) + position + 1:,}: its text has {size:,} "
                f"bytes, at most {limits.text_bytes:,} are allowed; shorten it (only its first "
                "tokens are read anyway), or take the row out"
            )


# The columns, None where only all of the rows tell them, and the rows.
Opened: TypeAlias = tuple[Columns | None, Iterator[Chunk]]


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read.

    Attributes:
        column: holds the texts.
        missing: what a null in its place is: an error, an empty text, or a row to pass over.
        strict: whether a plain line that is not UTF-8 is an error; if not, U+FFFD stands for what
            is no character. In other formats it always is one.
    """

    column: str = "text"
    missing: Missing = "error"
    strict: bool = True

    def absent(self, where: str) -> str | None:
        """What to take for a text that is missing at `where`.

        Raises:
            DataError: it must not be.
        """
        if self.missing == "error":
            raise DataError(
                f"{where} has no text in {self.column!r}; fill it in, or pass --missing empty "
                "(an empty text) or --missing skip (a row without answers)"
            )
        return "" if self.missing == "empty" else None


@dataclass(frozen=True, slots=True)
class Layout:
    """An output's columns: the input's, then those that are added."""

    columns: Columns
    added: Mapping[str, Kind]


def layout_of(columns: Columns, added: Mapping[str, Kind]) -> Layout:
    """
    Raises:
        OptionError: a column would be there twice.
    """
    if clash := [repr(name) for name in added if name in columns.kinds]:
        raise OptionError(
            f"the input has {'columns' if len(clash) > 1 else 'a column'} {', '.join(clash)}, "
            "which predict would add; pass --prefix predicted_ to name the added ones otherwise"
        )
    return Layout(columns, added)
