"""Files of lines: plain text, one text a line, and what other kinds are read by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO, TypeVar

from mtl_edge.errors import DataError
from mtl_edge.rows.model import (
    CHUNK_BYTES,
    CHUNK_ROWS,
    Chunk,
    Columns,
    Mark,
    Opened,
    ReadOptions,
)
from mtl_edge.text import as_texts

__all__ = ["Lines", "grouped", "in_utf8", "read_lines"]

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


def in_utf8(text: str) -> bytes:
    """`text` as UTF-8; lone surrogates, which are not part of it, become U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return as_texts([text])[0].encode()
