"""Parquet, Arrow files, data frames and data sets of the Hub, all through pyarrow."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, BinaryIO

from mtl_edge.errors import DataError, MissingPackageError, one_line
from mtl_edge.io import chunks
from mtl_edge.io.chunks import Chunk, OpenedTable, Record, Tally
from mtl_edge.io.text import lacks_column

__all__ = ["arrow_of", "from_hub", "pyarrow_or_error", "read_arrow", "read_parquet", "table_of"]

HUB = "hub:"
READ_AHEAD = 1 << 20  # bytes of each column


def pyarrow_or_error() -> Any:
    """
    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError:
        raise MissingPackageError(
            "Parquet, Arrow and data frames need the package pyarrow; install it with "
            "`pip install 'mtl-edge[parquet]'`"
        ) from None
    return pyarrow


def read_parquet(stream: BinaryIO, name: str, column: str) -> OpenedTable:
    """The rows of a Parquet file, whatever its row groups are."""
    pa = pyarrow_or_error()
    try:
        file = pa.parquet.ParquetFile(stream, buffer_size=READ_AHEAD, pre_buffer=False)
        groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
        a_row = max((g.total_byte_size / max(1, g.num_rows) for g in groups), default=1.0)
        size = min(chunks.CHUNK_ROWS, max(1, int(chunks.CHUNK_BYTES / max(1.0, a_row))))
        batches = file.iter_batches(size, use_threads=False)
        return table_of(file.schema_arrow, batches, name, column)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(name, error) from None


def read_arrow(stream: BinaryIO, name: str, column: str) -> OpenedTable:
    """The rows of an Arrow file (Feather) or stream."""
    pa = pyarrow_or_error()
    try:
        if stream.read(6) == b"ARROW1":
            file = pa.ipc.open_file(stream)
            batches = map(file.get_batch, range(file.num_record_batches))
            return table_of(file.schema, map(_validated, batches), name, column)
        stream.seek(0)
        reader = pa.ipc.open_stream(stream)
        return table_of(reader.schema, map(_validated, reader), name, column)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(name, error) from None


def _validated(batch: Any) -> Any:
    """The batch, if its parts lie where they may; pyarrow does not look by itself."""
    batch.validate(full=True)
    return batch


def _damaged(name: str, error: Exception) -> DataError:
    kind = "Parquet" if "arquet" in str(error) else "Parquet or Arrow"
    return DataError(f"{name} is not a {kind} file that can be read: {one_line(error)}")


def arrow_of(frame: Any) -> Any:
    """A data frame of pandas, Polars, Arrow or `datasets`, or a dictionary of columns, as Arrow's.

    Raises:
        DataError: it is something else, or its columns hold values of several types.
    """
    pa = pyarrow_or_error()
    kind = type(frame).__name__
    try:
        if isinstance(frame, pa.RecordBatchReader):
            return frame.read_all()
        if hasattr(frame, "features") and hasattr(frame, "num_rows"):  # datasets.Dataset
            metadata = frame.features.arrow_schema.metadata
            return frame.with_format("arrow")[:].replace_schema_metadata(metadata)
        if type(frame).__module__.partition(".")[0] == "pandas" and hasattr(frame, "columns"):
            return pa.Table.from_pandas(frame, preserve_index=False)
        if isinstance(frame, Mapping) and hasattr(frame, "column_names"):  # datasets.DatasetDict
            raise DataError(f"expected rows, got {kind}; give one of {', '.join(frame)}")
        if isinstance(frame, (pa.Table, Mapping)) or hasattr(frame, "__arrow_c_stream__"):
            return frame if isinstance(frame, pa.Table) else pa.table(frame)
    except (pa.ArrowException, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{kind} cannot be read as columns of one type each: {one_line(error)}"
        ) from None
    raise DataError(
        f"expected a file or a data frame (pandas, Polars, Arrow, datasets), got {kind}"
    )


def from_hub(source: str) -> Any:
    """A data set of the Hub, given as `hub:NAME[:SUBSET][:SPLIT]`, as Arrow's table.

    Raises:
        DataError: it cannot be loaded.
        MissingPackageError: `datasets` is not installed.
    """
    try:
        import datasets
    except ImportError:
        raise MissingPackageError(
            f"{source} needs the package datasets; install it with `pip install 'mtl-edge[hub]'`"
        ) from None
    name, *rest = source.removeprefix(HUB).split(":")
    if not name or len(rest) > 2:
        raise DataError(f"{source}: expected hub:NAME, hub:NAME:SPLIT or hub:NAME:SUBSET:SPLIT")
    subset = rest[0] if len(rest) == 2 else None
    split = rest[-1] if rest else "train"
    try:
        return arrow_of(datasets.load_dataset(name, subset, split=split))
    except Exception as error:  # bad names, no such split, no network: a dozen unrelated classes
        raise DataError(
            f"{source} cannot be loaded ({one_line(error, typed=True)}); check name, subset and "
            "split, or save it as a file where there is a network"
        ) from None


def table_of(schema: Any, batches: Iterable[Any], name: str, column: str) -> OpenedTable:
    """What was opened, after a look at the columns.

    Args:
        column: that holds the texts.

    Raises:
        DataError: a column is there twice, or the texts' is not there or of another type.
    """
    pa = pyarrow_or_error()
    names = schema.names
    if twice := sorted({repr(n) for n in names if names.count(n) > 1}):
        raise DataError(f"{name}: the column {', '.join(twice)} comes twice; rename one of them")
    if column not in names:
        raise lacks_column(name, [column], "--text-column", names)
    kind = schema.field(column).type
    if not _may_be_text(pa, kind):
        raise DataError(f"{name}: column {column!r} is of type {kind}; expected strings")
    parts = _chunks(pa, batches, name, _class_names(schema))
    return OpenedTable(name, dict.fromkeys(names, "text"), parts, "row", Tally(), schema)


def _may_be_text(pa: Any, kind: Any) -> bool:
    while hasattr(kind, "storage_type") or pa.types.is_dictionary(kind):
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind.storage_type
    tests = "string", "large_string", "string_view", "binary", "large_binary", "fixed_size_binary"
    return any(getattr(pa.types, f"is_{test}")(kind) for test in (*tests, "binary_view", "null"))


def _class_names(schema: Any) -> dict[str, list[str]]:
    """Names of labels that are kept as numbers, from what `datasets` writes into a schema."""
    try:
        about = json.loads((schema.metadata or {})[b"huggingface"])
        features = about["info"]["features"].items()
        return {k: v["names"] for k, v in features if v.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _chunks(
    pa: Any, batches: Iterable[Any], name: str, class_names: Mapping[str, list[str]]
) -> Iterator[Chunk]:
    first = 0
    try:
        for batch in _sized(pa, batches):
            places = range(first + 1, first + 1 + batch.num_rows)
            values = partial(_values, pa, batch, name, class_names)
            yield Chunk(first, places, values, partial(_records, pa, batch), batch=batch)
            first += batch.num_rows
    except (OSError, pa.ArrowException) as error:
        raise _damaged(name, error) from None


def _sized(pa: Any, batches: Iterable[Any]) -> Iterator[Any]:
    """The same rows in batches of a chunk's size: a file's own may be of any."""
    parts: list[Any] = []
    rows = size = 0
    for batch in batches:
        for start in range(0, batch.num_rows, chunks.CHUNK_ROWS):
            part = batch.slice(start, chunks.CHUNK_ROWS)
            parts.append(part)
            rows, size = rows + part.num_rows, size + part.nbytes
            if rows >= chunks.CHUNK_ROWS or size >= chunks.CHUNK_BYTES:
                yield _joined(pa, parts)
                parts, rows, size = [], 0, 0
    if parts:
        yield _joined(pa, parts)


def _joined(pa: Any, parts: list[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    table = pa.Table.from_batches(parts).unify_dictionaries().combine_chunks()
    return table.to_batches()[0]


def _values(
    pa: Any, batch: Any, name: str, class_names: Mapping[str, list[str]], column: str
) -> list[Any]:
    """A column's values, those of classes by their names.

    Raises:
        DataError: they are of a type that only Arrow can tell, or beyond what it can hold.
    """
    array = batch.column(column)
    kind = array.type
    try:
        if pa.types.is_duration(kind) or (
            hasattr(kind, "storage_type") and not _may_be_text(pa, kind)
        ):
            raise TypeError("expected strings or numbers")
        values: list[Any] = _plain(pa, array).to_pylist()
    except UnicodeDecodeError:  # what its writer took for UTF-8: see `mtl_edge.io.chunks.decoded`
        values = array.cast(pa.large_binary()).to_pylist()
    except (TypeError, ValueError, OverflowError, pa.ArrowException) as error:
        raise DataError(f"{name}: column {column!r} is of type {kind} ({error})") from None
    if (known := class_names.get(column)) is None or not pa.types.is_integer(kind):
        return values
    wrong = [v for v in values if v is not None and not -1 <= v < len(known)]
    if wrong:
        raise DataError(
            f"{name}: column {column!r} has the class {wrong[0]}, and its schema names {len(known)}"
        )
    # -1 is how rows without a label are written.
    return [None if v is None or v < 0 else known[v] for v in values]


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
        except (ValueError, TypeError, OverflowError, pa.ArrowException) as error:
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
        texts = column.cast(pa.string())
        if pa.compute.any(pa.compute.starts_with(texts, "<value out of range")).as_py():
            raise ValueError("a value is out of range")
        return texts
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
