"""Parquet, read by `pyarrow`, which the extra `parquet` brings."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, BinaryIO

from mtl_edge.errors import DataError, MissingPackageError
from mtl_edge.rows.model import (
    CHUNK_BYTES,
    CHUNK_ROWS,
    Chunk,
    Columns,
    Mark,
    Opened,
    ReadOptions,
    Record,
)

__all__ = ["pyarrow_or_error", "read_parquet"]

READ_AHEAD = 1 << 20  # bytes of each column


def pyarrow_or_error() -> Any:
    """
    Raises:
        MissingPackageError: it is not installed.
    """
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
    pa = pyarrow_or_error()
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
    before = rows = mark.rows
    parts: list[Any] = []

    def chunk() -> Chunk:
        batch = _joined(pa, parts)
        texts = _texts(batch, name, options, before)
        return Chunk(texts, Mark(rows), partial(_records, pa, batch), batch=batch)

    try:
        for part in _batches(file, mark.rows):
            parts.append(part)
            rows += part.num_rows
            if rows - before >= CHUNK_ROWS or sum(p.nbytes for p in parts) >= CHUNK_BYTES:
                yield chunk()
                before, parts = rows, []
        if parts:
            yield chunk()
    except (OSError, pa.ArrowException) as error:
        raise _damaged(name, error) from None


def _batches(file: Any, skip: int) -> Iterator[Any]:
    """Parts of row groups behind `skip` rows; groups may be of any size."""
    rows = 0
    for group in range(file.num_row_groups):
        about = file.metadata.row_group(group)
        if rows + about.num_rows <= skip:
            rows += about.num_rows
            continue
        bytes_a_row = about.total_byte_size / max(1, about.num_rows)
        size = min(CHUNK_ROWS, max(1, int(CHUNK_BYTES / max(1.0, bytes_a_row))))
        for batch in file.iter_batches(size, row_groups=[group], use_threads=False):
            rows += batch.num_rows
            if rows > skip:
                yield batch.slice(max(0, skip - rows + batch.num_rows))


def _joined(pa: Any, parts: list[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    table = pa.Table.from_batches(parts).unify_dictionaries().combine_chunks()
    return table.to_batches()[0]


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
