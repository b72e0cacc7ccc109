"""The kinds of files with rows, by the ending of their names."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath
from typing import BinaryIO

from mtl_edge.errors import OptionError
from mtl_edge.rows.delimited import delimited_header, encode_delimited, read_delimited
from mtl_edge.rows.jsonl import encode_jsonl, read_jsonl
from mtl_edge.rows.lines import Lines, read_lines
from mtl_edge.rows.model import Answers, Chunk, Layout, Mark, Opened, ReadOptions
from mtl_edge.rows.parquet import read_parquet
from mtl_edge.rows.parquet_writer import encode_parquet, finish_parquet, parquet_header

__all__ = ["FORMATS", "GZ", "Format", "Writer", "format_of", "writer_of"]

GZ = ".gz"


@dataclass(frozen=True, slots=True)
class Writer:
    """How a kind of file is written: by appending.

    Attributes:
        header: what it begins with.
        encode: a chunk and its answers as bytes to append.
        finish: makes the file of what was appended; none: that is the file.
        any_columns: whether each row may have columns of its own.
    """

    header: Callable[[Layout], bytes]
    encode: Callable[[Layout, Chunk, Answers], bytes]
    finish: Callable[[Path, Path], None] | None = None
    any_columns: bool = False


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file.

    Attributes:
        endings: of names.
        read: from stream, name, options and mark to columns and chunks.
        writer: none: it is only read.
        text: whether it may be packed with gzip.
    """

    endings: tuple[str, ...]
    read: Callable[[BinaryIO, str, ReadOptions, Mark], Opened]
    writer: Writer | None = None
    text: bool = True


def _by_lines(
    read: Callable[[Lines, ReadOptions, Mark], Opened],
) -> Callable[[BinaryIO, str, ReadOptions, Mark], Opened]:
    return lambda stream, name, options, mark: read(Lines(stream, name), options, mark)


def _read_plain(stream: BinaryIO, name: str, options: ReadOptions, mark: Mark) -> Opened:
    return read_lines(Lines(stream, name, strict=options.strict), options, mark)


def _delimited(ending: str, separator: str) -> Format:
    return Format(
        (ending,),
        _by_lines(partial(read_delimited, separator=separator)),
        Writer(
            partial(delimited_header, separator=separator),
            partial(encode_delimited, separator=separator),
        ),
    )


FORMATS: Mapping[str, Format] = {
    "lines": Format(("", ".txt"), _read_plain),
    "csv": _delimited(".csv", ","),
    "tsv": _delimited(".tsv", "\t"),
    "jsonl": Format(
        (".jsonl", ".ndjson"),
        _by_lines(read_jsonl),
        Writer(lambda layout: b"", encode_jsonl, any_columns=True),
    ),
    "parquet": Format(
        (".parquet",),
        read_parquet,
        Writer(parquet_header, encode_parquet, finish_parquet),
        text=False,
    ),
}


def format_of(path: Path | None, asked: str | None) -> str:
    """The format of an input: as asked for, else by its ending; standard input (None) has lines.

    Raises:
        OptionError: the ending is none of those known.
    """
    if asked is not None or path is None:
        return asked or "lines"
    ending, _ = _ending(path)
    for name, kind in FORMATS.items():
        if ending in kind.endings:
            return name
    known = ", ".join(e for kind in FORMATS.values() for e in kind.endings if e)
    raise OptionError(
        f"--file {path} has the ending {ending!r}; expected {known} or --format, one of "
        f"{', '.join(FORMATS)}"
    )


def writer_of(path: Path) -> Writer:
    """The writer of an output.

    Raises:
        OptionError: nothing is written to a file with such an ending.
    """
    ending, packed = _ending(path)
    for kind in FORMATS.values():
        if ending in kind.endings and kind.writer is not None and (kind.text or not packed):
            return _packed(kind.writer) if packed else kind.writer
    known = ", ".join(e for kind in FORMATS.values() if kind.writer for e in kind.endings)
    raise OptionError(f"--out {path}: expected an ending of {known}, or of text with {GZ}")


def _packed(writer: Writer) -> Writer:
    """What it writes, with gzip: files of gzip may stand one behind the other."""
    pack = partial(gzip.compress, compresslevel=6, mtime=0)
    return replace(
        writer,
        header=lambda layout: pack(writer.header(layout)),
        encode=lambda layout, chunk, answers: pack(writer.encode(layout, chunk, answers)),
    )


def _ending(path: PurePath) -> tuple[str, bool]:
    packed = path.suffix.lower() == GZ
    return (path.with_suffix("") if packed else path).suffix.lower(), packed
