"""An input with rows: a file, standard input, a data frame, a data set of the Hub, or texts."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any, BinaryIO, TypeAlias, cast

from mtl_edge.errors import DataError, OptionError
from mtl_edge.io import chunks
from mtl_edge.io.chunks import Chunk, Kind, OpenedTable, Tally, texts_of
from mtl_edge.io.columnar import HUB, arrow_of, from_hub, read_arrow, read_parquet, table_of
from mtl_edge.io.delimited import read_delimited
from mtl_edge.io.read_options import ReadOptions
from mtl_edge.io.text import (
    Lines,
    lacks_column,
    note_kinds,
    read_jsonl,
    read_lines,
)

__all__ = [
    "FORMATS",
    "GZ",
    "Source",
    "ending_of",
    "fingerprint",
    "format_of",
    "open_table",
    "survey",
]

LONGEST_MARK = 64  # bytes that tell what a file is
HEAD = 1 << 20  # bytes that tell a file from another of the same size and time

Source: TypeAlias = Any  # a path, `hub:...`, None for standard input, a tuple of texts, or a frame


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file: endings of names, and how it is read; as text where no columns are."""

    endings: tuple[str, ...]
    text: Callable[[Lines, ReadOptions, Tally], Any] = read_lines
    columns: Callable[[BinaryIO, str, str], OpenedTable] | None = None


FORMATS: Mapping[str, Format] = {
    "lines": Format(("", ".txt")),
    "csv": Format((".csv",), partial(read_delimited, separator=",")),
    "tsv": Format((".tsv", ".tab"), partial(read_delimited, separator="\t")),
    "jsonl": Format((".jsonl", ".ndjson", ".json"), read_jsonl),
    "parquet": Format((".parquet", ".pq"), columns=read_parquet),
    "arrow": Format((".arrow", ".feather"), columns=read_arrow),
}

GZ, PACKED = ".gz", b"\x1f\x8b"
# First bytes of what cannot be read as text, and what to do with it.
NOT_TEXT = {
    b"PAR1": "is a Parquet file; pass --format parquet or name it .parquet",
    b"ARROW1": "is an Arrow file; pass --format arrow or name it .arrow",
    b"PK\x03\x04": "is a zip archive, as .xlsx and .zip are; unpack it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "is an Excel file; save the sheet as CSV",
    PACKED: "is packed twice; unpack it once",
    b"\x28\xb5\x2f\xfd": "is packed with zstd; unpack it, as with `zstd -d`, or pack it with gzip",
    b"\xfd7zXZ\0": "is packed with xz; unpack it, as with `xz -d`, or pack it with gzip",
    **dict.fromkeys(
        (b"BZh%d1AY&SY" % level for level in range(1, 10)),
        "is packed with bzip2; unpack it, as with `bzip2 -d`, or pack it with gzip",
    ),
    b"%PDF": "is a PDF; give its text",
    b"SQLite f": "is an SQLite file; write its table as CSV",
}


def ending_of(path: PurePath) -> tuple[str, bool]:
    """A name's ending, but that of gzip, and whether it has that."""
    packed = path.suffix.lower() == GZ
    return (path.with_suffix("") if packed else path).suffix.lower(), packed


def format_of(path: Path | None, asked: str | None = None) -> str:
    """The format of an input: as asked for, else by its ending; standard input (None) has lines.

    Raises:
        DataError: the ending is none of those known.
    """
    if asked is not None or path is None:
        return asked or "lines"
    ending, _ = ending_of(path)
    for name, kind in FORMATS.items():
        if ending in kind.endings:
            return name
    known = ", ".join(e for kind in FORMATS.values() for e in kind.endings if e)
    raise DataError(
        f"{path} has the ending {ending!r}; expected {known}, text also with {GZ}; name it so, or "
        "say what it is with --format"
    )


@contextlib.contextmanager
def open_table(source: Source, options: ReadOptions = ReadOptions()) -> Iterator[OpenedTable]:
    """Open an input and look at its columns.

    Args:
        source: a path, or `hub:NAME[:SUBSET][:SPLIT]`; None: standard input; a tuple or list of
            texts; or a data frame.

    Raises:
        DataError: the input is missing or malformed, here or while chunks are taken.
        MissingPackageError: what reads it is not installed.
    """
    column = options.text_column
    if isinstance(source, (str, PurePath)) and str(source).startswith(HUB):
        table = from_hub(str(source))
        yield table_of(table.schema, table.to_batches(), str(source), column)
    elif isinstance(source, (tuple, list)):
        yield _table_of_texts(source, column)
    elif source is None or isinstance(source, (str, PurePath)):
        with _opened(None if source is None else Path(source), options) as table:
            yield table
    else:
        table = arrow_of(source)
        yield table_of(table.schema, table.to_batches(), f"the {type(source).__name__}", column)


@contextlib.contextmanager
def _opened(path: Path | None, options: ReadOptions) -> Iterator[OpenedTable]:
    format_, name = format_of(path, options.format), "standard input" if path is None else str(path)
    kind = FORMATS[format_]
    with contextlib.ExitStack() as stack:
        raw = _stream(path, stack)
        if kind.columns is not None:
            if not raw.seekable():
                raise OptionError(f"{format_} is read from a file; give --file")
            yield replace(kind.columns(raw, name, options.text_column), read=raw.tell)
            return
        with _gzip_errors(name):
            lines = Lines(_unpacked(raw, name, stack), name, options.encoding)
            stack.callback(lines.detach)
            tally = Tally()
            about, parts = kind.text(lines, options, tally)
        if about is not None and options.text_column not in about:
            raise lacks_column(name, [options.text_column], "--text-column", about)
        yield OpenedTable(name, about, _chunks(parts, name), tally=tally, read=raw.tell)


def _stream(path: Path | None, stack: contextlib.ExitStack) -> BinaryIO:
    if path is None:
        if sys.stdin.isatty():
            print("one text a line; end with Ctrl-D", file=sys.stderr)
        return sys.stdin.buffer
    try:
        return stack.enter_context(path.open("rb"))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read {path}: {why}; give a file") from None


def _unpacked(stream: BinaryIO, name: str, stack: contextlib.ExitStack) -> BinaryIO:
    """The text of a stream, whether it is packed or not, whatever its name says.

    Raises:
        DataError: it is no text.
    """
    file: Any = stream if stream.isatty() else io.BufferedReader(_WithHead(stream), 1 << 16)
    if file.peek(LONGEST_MARK).startswith(PACKED):
        file = stack.enter_context(gzip.GzipFile(fileobj=file))
    elif name.lower().endswith(GZ):
        raise DataError(f"{name} is not a whole gzip file, as its name says; copy or rename it")
    head = file.peek(LONGEST_MARK)
    for mark, advice in NOT_TEXT.items():
        if head.startswith(mark):
            raise DataError(f"{name} {advice}")
    return cast("BinaryIO", file)


class _WithHead(io.RawIOBase):
    """A stream that gives its first bytes at once, where a pipe would give them one by one."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream: Any = stream
        self._head = stream.read(LONGEST_MARK)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head or self._stream.read1(len(buffer))
        self._head = b""
        buffer[: len(data)] = data
        return len(data)


@contextlib.contextmanager
def _gzip_errors(name: str) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{name} is not a whole gzip file ({error}); copy it again") from None


def _chunks(parts: Iterator[Chunk], name: str) -> Iterator[Chunk]:
    with _gzip_errors(name):
        yield from parts


def _table_of_texts(texts: Sequence[str], column: str) -> OpenedTable:
    def chunk(first: int) -> Chunk:
        part = texts[first : first + chunks.CHUNK_ROWS]
        places = range(first + 1, first + 1 + len(part))
        return Chunk.of(first, places, [{column: text} for text in part])

    parts = map(chunk, range(0, len(texts), chunks.CHUNK_ROWS))
    return OpenedTable("the texts", {column: "text"}, parts, "text")


def fingerprint(path: Path) -> dict[str, Any]:
    """Size, time and first bytes of a file: a cheap way to see whether it is still the same."""
    with path.open("rb") as file:
        about = os.fstat(file.fileno())
        head = hashlib.sha256(file.read(HEAD)).hexdigest()
    return {"bytes": about.st_size, "modified_ns": about.st_mtime_ns, "head_sha256": head}


def survey(
    source: Source, options: ReadOptions, report: Callable[[int], None] = lambda read: None
) -> tuple[int, dict[str, Kind]]:
    """Number of rows, and the columns with their kinds; reads the whole input once.

    So a malformed row is found before hours were spent on the others.

    Args:
        report: is told the bytes read so far.

    Raises:
        DataError: the input is malformed, or a text is missing or too long.
    """
    rows = 0
    kinds: dict[str, Kind | None] = {}
    with open_table(source, options) as table:
        for chunk in table.chunks:
            texts_of(table, chunk, options)
            rows = chunk.last
            if table.columns is None:
                note_kinds(chunk.records(), kinds)
            report(table.read())
    known = {name: kind or "text" for name, kind in kinds.items()}
    return rows, known if table.columns is None else dict(table.columns)
