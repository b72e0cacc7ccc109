"""Rows and answers as CSV, TSV, JSONL and Parquet: a chunk at a time, as bytes to append.

A Parquet file can only be written in one go. Its chunks are Arrow streams, which can stand one
behind the other in a file, and of which `finish_parquet` makes the Parquet file at the end.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from mtl_edge.errors import DataError, OptionError
from mtl_edge.io.columnar import pyarrow_or_error
from mtl_edge.io.model import Chunk, Kind
from mtl_edge.io.source import FORMATS, ending_of
from mtl_edge.text import as_texts

__all__ = ["Answers", "Layout", "Writer", "layout_of", "writer_of"]

GROUP_ROWS = 1 << 16
GROUP_BYTES = 32 << 20

Answers: TypeAlias = list[list[Any] | None]  # a row's added values; None: it had no text


@dataclass(frozen=True, slots=True)
class Layout:
    """An output's columns: the input's, then those that are added.

    Attributes:
        schema: pyarrow's, of columnar input.
    """

    columns: Mapping[str, Kind]
    added: Mapping[str, Kind]
    schema: Any = None


def layout_of(columns: Mapping[str, Kind], added: Mapping[str, Kind], schema: Any = None) -> Layout:
    """
    Raises:
        OptionError: a column would be there twice.
    """
    if clash := [repr(name) for name in added if name in columns]:
        raise OptionError(
            f"the input has {'columns' if len(clash) > 1 else 'a column'} {', '.join(clash)}, "
            "which predict would add; pass --prefix predicted_ to name the added ones otherwise"
        )
    return Layout(columns, added, schema)


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
    finish: Callable[[Iterable[bytes], Path], None] | None = None
    any_columns: bool = False

    def packed(self, pack: Callable[[bytes], bytes]) -> Writer:
        """The same, each part packed: these may stand one behind the other in a file."""
        return replace(
            self,
            header=lambda layout: pack(self.header(layout)),
            encode=lambda layout, chunk, answers: pack(self.encode(layout, chunk, answers)),
        )


def writer_of(path: Path) -> Writer:
    """The writer of an output, by the ending of its name.

    Raises:
        OptionError: nothing is written to a file with such an ending.
    """
    ending, packed = ending_of(path)
    for name, writer in WRITERS.items():
        if ending in FORMATS[name].endings and not (packed and writer.finish):
            return writer.packed(PACKERS[packed]) if packed else writer
    raise OptionError(
        f"--out {path}: expected an ending of {', '.join(FORMATS[n].endings[0] for n in WRITERS)}, "
        f"or of text with {', '.join(PACKERS)}"
    )


def _in_utf8(text: str) -> bytes:
    """`text` as UTF-8; lone surrogates, which are not part of it, become U+FFFD."""
    return as_texts([text])[0].encode()


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _as_cell(value: Any) -> str:
    """A value as text: JSON, but for null, which is empty, and strings, which are themselves."""
    if isinstance(value, str):
        return value
    return "" if value is None else _dumps(value)


def _answer_cell(value: Any) -> str:
    return f"{value:.6f}" if isinstance(value, float) else _as_cell(value)


class _Lines:
    """What the csv module writes to, a row a call; rows end with a line feed."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, row: str) -> None:
        self.lines.append(row.removesuffix("\r\n") + "\n")


def _delimited(separator: str) -> Writer:
    def written(rows: list[list[str]]) -> bytes:
        out = _Lines()
        # Some versions of Python quote only those line ends that are in the terminator.
        csv.writer(out, delimiter=separator, lineterminator="\r\n").writerows(rows)
        return _in_utf8("".join(out.lines))

    def encode(layout: Layout, chunk: Chunk, answers: Answers) -> bytes:
        empty = [""] * len(layout.added)
        return written(
            [
                [
                    *(_as_cell(record.get(name)) for name in layout.columns),
                    *(empty if values is None else map(_answer_cell, values)),
                ]
                for record, values in zip(chunk.records(), answers, strict=True)
            ]
        )

    return Writer(lambda layout: written([[*layout.columns, *layout.added]]), encode)


def _encode_jsonl(layout: Layout, chunk: Chunk, answers: Answers) -> bytes:
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
    return _in_utf8("".join(out))


def _arrow_schema(pa: Any, layout: Layout) -> Any:
    types = {"whole": pa.int64(), "number": pa.float64(), "truth": pa.bool_()}

    def fields(kinds: Mapping[str, Kind]) -> list[Any]:
        return [pa.field(name, types.get(kind, pa.string())) for name, kind in kinds.items()]

    source = layout.schema
    before = fields(layout.columns) if source is None else list(source)
    metadata = None if source is None else source.metadata
    return pa.schema([*before, *fields(layout.added)], metadata=metadata)


def _parquet_header(layout: Layout) -> bytes:
    """No rows, so that the schema is known where there are none."""
    pa = pyarrow_or_error()
    return _stream(pa, _arrow_schema(pa, layout), None)


def _encode_parquet(layout: Layout, chunk: Chunk, answers: Answers) -> bytes:
    pa = pyarrow_or_error()
    schema = _arrow_schema(pa, layout)
    none = [None] * len(layout.added)
    added = list(zip(*(values or none for values in answers), strict=True))
    arrays = [] if chunk.batch is None else list(chunk.batch.columns)
    if chunk.batch is None:
        records = chunk.records()
        for name, kind in layout.columns.items():
            values = [_stored(kind, record.get(name)) for record in records]
            arrays.append(_array(pa, values, schema.field(name)))
    for name, column in zip(layout.added, added, strict=True):
        arrays.append(_array(pa, list(column), schema.field(name)))
    return _stream(pa, schema, pa.RecordBatch.from_arrays(arrays, schema=schema))


def _stored(kind: Kind, value: Any) -> Any:
    """A value as a column of its kind takes it."""
    if value is None or (kind == "json" and isinstance(value, str)):
        return value
    return float(value) if kind == "number" else json.dumps(value) if kind == "json" else value


def _array(pa: Any, values: list[Any], field: Any) -> Any:
    try:
        return pa.array(values, field.type)
    except UnicodeEncodeError:  # lone surrogates
        texts = iter(as_texts([value for value in values if value is not None]))
        return pa.array([None if v is None else next(texts) for v in values], field.type)


def _stream(pa: Any, schema: Any, batch: Any) -> bytes:
    sink = pa.BufferOutputStream()
    codec = "zstd" if pa.Codec.is_available("zstd") else None
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as out:
        if batch is not None:
            out.write_batch(batch)
    return bytes(sink.getvalue())


def finish_parquet(appended: Iterable[bytes], target: Path) -> None:
    """Make a Parquet file of Arrow streams, in row groups of like size."""
    pa = pyarrow_or_error()
    streams = (pa.ipc.open_stream(data) for data in appended)
    schema = next(streams).schema  # the header's
    with pa.parquet.ParquetWriter(target, schema) as writer:
        group: list[Any] = []

        def write() -> None:
            if group:
                writer.write_table(pa.Table.from_batches(group, schema).unify_dictionaries())
                group.clear()

        for batch in (batch for stream in streams for batch in stream):
            group.append(batch)
            rows, size = sum(b.num_rows for b in group), sum(b.nbytes for b in group)
            if rows >= GROUP_ROWS or size >= GROUP_BYTES:
                write()
        write()


PACKERS: Mapping[str, Callable[[bytes], bytes]] = {
    ".gz": partial(gzip.compress, compresslevel=6, mtime=0),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
# By the format's name in `FORMATS`, which has the endings.
WRITERS: Mapping[str, Writer] = {
    "csv": _delimited(","),
    "tsv": _delimited("\t"),
    "jsonl": Writer(lambda layout: b"", _encode_jsonl, any_columns=True),
    "parquet": Writer(_parquet_header, _encode_parquet, finish_parquet),
}
