"""An input with texts: a file, standard input, or texts that are at hand."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mtl_edge.errors import DataError, OptionError
from mtl_edge.limits import Limits
from mtl_edge.rows.formats import FORMATS, GZ
from mtl_edge.rows.jsonl import note_kinds
from mtl_edge.rows.model import (
    CHUNK_ROWS,
    START,
    Chunk,
    Columns,
    Kind,
    Mark,
    Opened,
    ReadOptions,
)

__all__ = ["Source", "Survey", "fingerprint", "open_rows", "survey"]

HEAD = 1 << 20  # bytes that tell a file from another of the same size and time


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows come from.

    Attributes:
        path: a file; None is standard input.
        texts: in place of a file.
    """

    format: str
    options: ReadOptions
    path: Path | None = None
    texts: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        return "standard input" if self.path is None else str(self.path)

    @property
    def regular(self) -> bool:
        """Whether it is a file that can be read more than once, from any place."""
        return self.texts is None and self.path is not None and self.path.is_file()


@contextlib.contextmanager
def open_rows(source: Source, mark: Mark = START) -> Iterator[tuple[Opened, Callable[[], int]]]:
    """Yield columns, chunks behind `mark`, and a function that tells how many bytes were read.

    Raises:
        DataError: the file is missing or malformed, here or while chunks are taken.
    """
    if source.texts is not None:
        yield _at_hand(source.texts, source.options.column), lambda: 0
        return
    kind = FORMATS[source.format]
    with contextlib.ExitStack() as stack:
        stream = raw = _stream(source, stack)
        if source.path is not None and source.path.suffix.lower() == GZ and kind.text:
            stream = stack.enter_context(gzip.GzipFile(fileobj=raw))  # type: ignore[assignment]
        if not kind.text and not raw.seekable():
            raise OptionError(f"{source.format} is read from a file; give --file")
        with _told(source.name):
            columns, chunks = kind.read(stream, source.name, source.options, mark)
        yield (columns, _chunks(chunks, source.name)), raw.tell


def _stream(source: Source, stack: contextlib.ExitStack) -> BinaryIO:
    if source.path is None:
        if sys.stdin.isatty():
            print("one text a line; end with Ctrl-D", file=sys.stderr)
        return sys.stdin.buffer
    try:
        return stack.enter_context(source.path.open("rb"))
    except OSError as error:
        raise DataError(f"cannot read {source.path}: {error.strerror}; give a file") from None


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{name} is not a whole gzip file ({error}); copy it again") from None


def _chunks(chunks: Iterator[Chunk], name: str) -> Iterator[Chunk]:
    with _told(name):
        yield from chunks


def _at_hand(texts: tuple[str, ...], column: str) -> Opened:
    def chunk(start: int) -> Chunk:
        part = texts[start : start + CHUNK_ROWS]
        records = [{column: text} for text in part]
        return Chunk([*part], Mark(start + len(part)), lambda: records)

    return Columns({column: "text"}), map(chunk, range(0, len(texts), CHUNK_ROWS))


def fingerprint(path: Path) -> dict[str, Any]:
    """What tells a file from another, or from what it was, without reading it all."""
    with path.open("rb") as file:
        about = os.fstat(file.fileno())
        head = hashlib.sha256(file.read(HEAD)).hexdigest()
    return {"bytes": about.st_size, "modified_ns": about.st_mtime_ns, "head_sha256": head}


@dataclass(frozen=True, slots=True)
class Survey:
    """What only all of the rows tell: how many there are, and the columns of JSONL."""

    rows: int
    kinds: dict[str, Kind]


def survey(
    source: Source, limits: Limits, report: Callable[[int], None] = lambda read: None
) -> Survey:
    """Read a file through, so that a malformed row is told before hours were spent on the others.

    Args:
        limits: on texts.
        report: is told the bytes read so far.

    Raises:
        DataError: the file is malformed, or a text is missing.
        LimitError: a text is larger than the classifier takes.
    """
    rows = 0
    kinds: dict[str, Kind | None] = {}
    with open_rows(source) as ((columns, chunks), read):
        for chunk in chunks:
            chunk.require_within(limits)
            rows = chunk.mark.rows
            if columns is None:
                note_kinds(chunk.records(), kinds)
            report(read())
    known = {name: kind or "text" for name, kind in kinds.items()}
    return Survey(rows, known if columns is None else dict(columns.kinds))
