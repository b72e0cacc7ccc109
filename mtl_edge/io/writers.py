"""Rows and their answers as CSV, TSV, JSONL and Parquet."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeAlias

from mtl_edge.errors import DataError, OptionError
from mtl_edge.io.chunks import Chunk, Kind
from mtl_edge.io.columnar import pyarrow_or_error
from mtl_edge.io.in_memory import valid_texts
from mtl_edge.io.source import FORMATS, GZ, ending_of

__all__ = ["Answers", "Layout", "Writer", "layout_of", "writer_of", "writes_any_columns"]

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


# Takes a path and a layout; gives a function that adds a chunk and its answers.
Writer: TypeAlias = Callable[
    [Path, Layout], AbstractContextManager[Callable[[Chunk, Answers], None]]
]


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


def writer_of(path: Path) -> Writer:
    """The writer of an output, by the ending of its name.

    Raises:
        OptionError: nothing is written to a file with such an ending.
    """
    ending, packed = ending_of(path)
    for name, write in WRITERS.items():
        if ending in FORMATS[name].endings and not (packed and name == "parquet"):
            return partial(_to_file, write=write, packed=packed)
    raise OptionError(
        f"--out {path}: expected an ending of {', '.join(FORMATS[n].endings[0] for n in WRITERS)}, "
        f"or of text with {GZ}"
    )


def writes_any_columns(path: Path) -> bool:
    """Whether each row of such a file may have columns of its own."""
    return ending_of(path)[0] in FORMATS["jsonl"].endings


@contextlib.contextmanager
def _to_file(
    path: Path, layout: Layout, write: Callable[..., Any], packed: bool
) -> Iterator[Callable[[Chunk, Answers], None]]:
    with contextlib.ExitStack() as stack:
        file: Any = stack.enter_context(path.open("wb"))
        if packed:  # with no time in it: the same bytes each time
            file = stack.enter_context(gzip.GzipFile("", "wb", 6, file, mtime=0))
        yield stack.enter_context(write(file, layout))


@contextlib.contextmanager
def _delimited(
    file: IO[bytes], layout: Layout, separator: str
) -> Iterator[Callable[[Chunk, Answers], None]]:
    def write(rows: list[list[str]]) -> None:
        out = _Lines()
        # Some versions of Python quote only those line ends that are in the terminator.
        csv.writer(out, delimiter=separator, lineterminator="\r\n").writerows(rows)
        file.write(_utf8("".join(out.lines)).encode())

    def add(chunk: Chunk, answers: Answers) -> None:
        none = [None] * len(layout.added)
        write(
            [
                [_cell(record.get(name)) for name in layout.columns]
                + [f"{v:.6f}" if isinstance(v, float) else _cell(v) for v in values or none]
                for record, values in zip(chunk.records(), answers, strict=True)
            ]
        )

    write([[*layout.columns, *layout.added]])
    yield add


class _Lines:
    """What the csv module writes to, a row a call; rows end with a line feed."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, row: str) -> None:
        self.lines.append(row.removesuffix("\r\n") + "\n")


def _cell(value: Any) -> str:
    """A value as text: JSON, but for null, which is empty, and strings, which are themselves."""
    if isinstance(value, str):
        return value
    return "" if value is None else _dumps(value)


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _utf8(text: str) -> str:
    """`text` as UTF-8 can tell it: lone surrogates, which are not part of it, become U+FFFD."""
    return valid_texts([text])[0]


@contextlib.contextmanager
def _jsonl(file: IO[bytes], layout: Layout) -> Iterator[Callable[[Chunk, Answers], None]]:
    """An object a line: what the row had, then the answers, null where there is none."""

    def add(chunk: Chunk, answers: Answers) -> None:
        none = [None] * len(layout.added)
        raw = chunk.raw or map(_dumps, chunk.records())
        for record, row, values in zip(chunk.records(), raw, answers, strict=True):
            # Other formats tell that by their columns.
            if clash := sorted(record.keys() & layout.added.keys()):
                raise DataError(
                    f"a row has {clash[0]!r}, which predict would add; pass --prefix predicted_ "
                    "to name the added ones otherwise"
                )
            added = _dumps(dict(zip(layout.added, values or none, strict=True)))
            body = row[:-1].rstrip()
            line = f"{body}{'' if body == '{' else ', '}{added[1:]}\n"
            file.write(_utf8(line).encode())

    yield add


@contextlib.contextmanager
def _parquet(file: IO[bytes], layout: Layout) -> Iterator[Callable[[Chunk, Answers], None]]:
    """Columnar input keeps its types; row groups are of like size."""
    pa = pyarrow_or_error()
    types = {"whole": pa.int64(), "number": pa.float64(), "truth": pa.bool_()}
    kinds = {**({} if layout.schema else layout.columns), **layout.added}
    own = [pa.field(_utf8(name), types.get(kind, pa.string())) for name, kind in kinds.items()]
    metadata = layout.schema.metadata if layout.schema else None
    schema = pa.schema([*(layout.schema or ()), *own], metadata=metadata)
    group: list[Any] = []

    def add(chunk: Chunk, answers: Answers) -> None:
        none = [None] * len(layout.added)
        rows = [dict(zip(layout.added, values or none, strict=True)) for values in answers]
        arrays = [] if chunk.batch is None else list(chunk.batch.columns)
        if not layout.schema:
            rows = [{**r, **added} for r, added in zip(chunk.records(), rows, strict=True)]
        for field, (name, kind) in zip(own, kinds.items(), strict=True):
            values = [_stored(kind, row.get(name)) for row in rows]
            arrays.append(pa.array(values, field.type))
        group.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
        if (
            sum(batch.num_rows for batch in group) >= GROUP_ROWS
            or sum(batch.nbytes for batch in group) >= GROUP_BYTES
        ):
            write()

    def write() -> None:
        if group:
            writer.write_table(pa.Table.from_batches(group, schema).unify_dictionaries())
            group.clear()

    with pa.parquet.ParquetWriter(file, schema) as writer:
        yield add
        write()


def _stored(kind: Kind, value: Any) -> Any:
    """A value as a column of its kind takes it."""
    if isinstance(value, str):
        return _utf8(value)
    if value is None or kind not in ("number", "json"):
        return value
    return float(value) if kind == "number" else json.dumps(value)


# By the format's name in `FORMATS`, which has the endings.
WRITERS: Mapping[str, Callable[..., Any]] = {
    "csv": partial(_delimited, separator=","),
    "tsv": partial(_delimited, separator="\t"),
    "jsonl": _jsonl,
    "parquet": _parquet,
}
