"""Parquet by `pyarrow`, which the extra `parquet` brings."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from mtl_edge.errors import DataError, MissingPackageError
from mtl_edge.rows.model import (
    CHUNK_BYTES,
    CHUNK_ROWS,
    Answers,
    Chunk,
    Columns,
    Kind,
    Layout,
    Mark,
    Opened,
    ReadOptions,
    Record,
)
from mtl_edge.text import as_texts

__all__ = ["encode_parquet", "finish_parquet", "parquet_header", "read_parquet"]

GROUP_ROWS = 1 << 16
GROUP_BYTES = 32 << 20
READ_AHEAD = 1 << 20  # bytes of each column


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingPackageError(
            "Parquet needs the package pyarrow; install it with `pip install 'mtl-edge[parquet]'`"
        ) from None
    return pyarrow


def read_parquet(stream: BinaryIO, name: str, options: ReadOptions, mark: Mark) -> Opened:
    """The schema's columns, and the rows, a part of a row group at a time."""
    pa = _pyarrow()
    try:
        file = pa.parquet.ParquetFile(stream, buffer_size=READ_AHEAD, pre_buffer=False)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _damaged(name, error) from None
    schema = file.schema_arrow
    names = schema.names
    if twice := sorted({repr(n) for n in names if names.count(n) > 1}):
        raise DataError(f"{name}: the column {', '.join(twice)} comes twice; rename one of them")
    if options.column not in names:
        raise DataError(
            f"{name} has no column {options.column!r}; it has {', '.join(map(repr, names))}; "
            "name one with --column"
        )
    kind = schema.field(options.column).type
    if not _is_text(pa, kind):
        raise DataError(f"{name}: column {options.column!r} is of type {kind}; expected strings")
    return Columns(dict.fromkeys(names, "text"), schema), _chunks(pa, file, name, options, mark)


def _is_text(pa: Any, kind: Any) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _chunks(pa: Any, file: Any, name: str, options: ReadOptions, mark: Mark) -> Iterator[Chunk]:
    rows = 0
    try:
        for group in range(file.num_row_groups):
            about = file.metadata.row_group(group)
            if rows + about.num_rows <= mark.rows:
                rows += about.num_rows
                continue
            bytes_a_row = about.total_byte_size / max(1, about.num_rows)
            size = min(CHUNK_ROWS, max(1, int(CHUNK_BYTES / max(1.0, bytes_a_row))))
            for batch in file.iter_batches(size, row_groups=[group], use_threads=False):
                rows += batch.num_rows
                if rows > mark.rows:
                    texts = _texts(batch, name, options, rows - batch.num_rows)
                    yield Chunk(texts, Mark(rows), partial(_records, pa, batch), batch=batch)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(name, error) from None


def _texts(batch: Any, name: str, options: ReadOptions, before: int) -> list[str | None]:
    texts: list[str | None] = batch.column(options.column).to_pylist()
    return [
        options.absent(f"{name}, row {before + place}") if text is None else text
        for place, text in enumerate(texts, 1)
    ]


def _damaged(name: str, error: Exception) -> DataError:
    return DataError(
        f"{name} is not a Parquet file that can be read: {' '.join(str(error).split())[:300]}"
    )


def _records(pa: Any, batch: Any) -> list[Record]:
    """Values for a text format.

    What JSON lacks becomes a string (dates, decimals, bytes) or null (NaN, infinity).

    Raises:
        DataError: a column's values cannot be told in text.
    """
    columns = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            columns.append(_plain(pa, column).to_pylist())
        except (ValueError, TypeError, pa.ArrowException) as error:
            raise DataError(
                f"column {name!r} of type {column.type} cannot be written as text ({error}); "
                "choose an --out that ends in .parquet"
            ) from None
    return [
        {n: _json_value(value) for n, value in zip(batch.schema.names, row, strict=True)}
        for row in zip(*columns, strict=True)
    ]


def _plain(pa: Any, column: Any) -> Any:
    """Dates, times and decimals as pyarrow writes them: Python's have no nanoseconds."""
    kind = column.type
    if pa.types.is_duration(kind):
        return column.cast(pa.int64())
    if pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
        return column.cast(pa.string())
    return column


def _json_value(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return None
        case bytes():
            return value.decode("utf-8", "backslashreplace")
        case list():
            return [_json_value(item) for item in value]
        case dict():
            return {str(name): _json_value(item) for name, item in value.items()}
        case _:
            return value


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
    return _stream(_pyarrow(), _schema(_pyarrow(), layout), None)


def encode_parquet(layout: Layout, chunk: Chunk, answers: Answers) -> bytes:
    """Rows as an Arrow stream of their own.

    A Parquet file can only be written in one go. Arrow streams can stand one behind the other in a
    file, so that a run which was stopped goes on; `finish_parquet` makes the Parquet file.
    """
    pa = _pyarrow()
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
    pa = _pyarrow()
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
