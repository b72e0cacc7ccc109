"""Parquet, written in two steps: Arrow streams that can be cut and gone on with, then the file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mtl_edge.rows.model import Answers, Chunk, Kind, Layout
from mtl_edge.rows.parquet import pyarrow_or_error
from mtl_edge.text import as_texts

__all__ = ["encode_parquet", "finish_parquet", "parquet_header"]

GROUP_ROWS = 1 << 16
GROUP_BYTES = 32 << 20


def _schema(pa: Any, layout: Layout) -> Any:
    types = {
        "text": pa.string(),
        "json": pa.string(),
        "whole": pa.int64(),
        "number": pa.float64(),
        "truth": pa.bool_(),
    }

    def fields(kinds: Mapping[str, Kind]) -> list[Any]:
        return [pa.field(name, types[kind]) for name, kind in kinds.items()]

    source = layout.columns.schema
    before = fields(layout.columns.kinds) if source is None else list(source)
    metadata = None if source is None else source.metadata
    return pa.schema([*before, *fields(layout.added)], metadata=metadata)


def parquet_header(layout: Layout) -> bytes:
    """See `encode_parquet`; without rows, so that the schema is known where there are none."""
    return _stream(pyarrow_or_error(), _schema(pyarrow_or_error(), layout), None)


def encode_parquet(layout: Layout, chunk: Chunk, answers: Answers) -> bytes:
    """Rows as an Arrow stream of their own.

    A Parquet file can only be written in one go. Arrow streams can stand one behind the other in a
    file, so that a run which was stopped goes on; `finish_parquet` makes the Parquet file.
    """
    pa = pyarrow_or_error()
    schema = _schema(pa, layout)
    none = [None] * len(layout.added)
    added = list(zip(*(values or none for values in answers), strict=True))
    if chunk.batch is not None:
        arrays = list(chunk.batch.columns)
    else:
        records = chunk.records()
        arrays = [
            _array(pa, [_CAST[kind](record.get(name)) for record in records], schema.field(name))
            for name, kind in layout.columns.kinds.items()
        ]
    arrays += [
        _array(pa, list(values), schema.field(name))
        for name, values in zip(layout.added, added, strict=True)
    ]
    return _stream(pa, schema, pa.RecordBatch.from_arrays(arrays, schema=schema))


def _as_json(value: Any) -> Any:
    return value if value is None or isinstance(value, str) else json.dumps(value)


_CAST: Mapping[Kind, Callable[[Any], Any]] = {
    "text": lambda value: value,
    "whole": lambda value: value,
    "number": lambda value: None if value is None else float(value),
    "truth": lambda value: value,
    "json": _as_json,
}


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


def finish_parquet(partial_file: Path, target: Path) -> None:
    """Make a Parquet file of Arrow streams, in row groups of like size."""
    pa = pyarrow_or_error()
    with pa.OSFile(str(partial_file)) as file:
        schema = pa.ipc.open_stream(file).schema
    with pa.parquet.ParquetWriter(target, schema) as writer:
        group: list[Any] = []
        for batch in _batches(pa, partial_file):
            group.append(batch)
            if (
                sum(b.num_rows for b in group) >= GROUP_ROWS
                or sum(b.nbytes for b in group) >= GROUP_BYTES
            ):
                writer.write_table(pa.Table.from_batches(group, schema).unify_dictionaries())
                group = []
        if group:
            writer.write_table(pa.Table.from_batches(group, schema).unify_dictionaries())


def _batches(pa: Any, path: Path) -> Iterator[Any]:
    size = path.stat().st_size
    with pa.OSFile(str(path)) as file:
        while file.tell() < size:
            with pa.ipc.open_stream(file) as stream:
                yield from stream
