"""A record as JSON and back, to the field: what is not as the schema says is refused."""

from __future__ import annotations

import json
import types
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from mtl_edge.benchmarks.core.record import SCHEMA_VERSION, Record
from mtl_edge.errors import DataError

__all__ = ["read_record", "to_json"]


def to_json(record: Record) -> str:
    """The record as JSON; the numbers of a list stand in one line."""
    return _dumped(asdict(record), "") + "\n"


def _dumped(value: Any, indent: str) -> str:
    deeper = indent + " "
    if isinstance(value, dict) and value:
        inner = ",\n".join(
            f"{deeper}{json.dumps(k)}: {_dumped(v, deeper)}" for k, v in value.items()
        )
        return f"{{\n{inner}\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        inner = ",\n".join(deeper + _dumped(item, deeper) for item in value)
        return f"[\n{inner}\n{indent}]"
    return json.dumps(value, allow_nan=False)


def read_record(file: Path) -> Record:
    """The record in a file.

    Raises:
        DataError: it cannot be read, is no such record, or was written with another schema.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}") from None
    except ValueError as error:
        raise DataError(f"{file} is not JSON: {error}") from None
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        came = "no schema_version" if version is None else f"schema_version {version!r}"
        raise DataError(
            f"{file} has {came}, expected {SCHEMA_VERSION}; write it anew with "
            "`mtl-edge bench BUNDLE --json FILE`"
        )
    try:
        record: Record = _parsed(Record, data, "record")
    except (TypeError, KeyError) as error:
        raise DataError(f"{file} is not a record of a benchmark: {error.args[0]}") from None
    return record


def _parsed(kind: Any, value: Any, place: str) -> Any:
    """`value` as the type that the schema says."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and types.NoneType in inner:
            return value
        (kind,) = (one for one in inner if one is not types.NoneType)
        return _parsed(kind, value, place)
    if isinstance(kind, type) and is_dataclass(kind):
        _require(isinstance(value, dict), kind, value, place)
        hints = get_type_hints(kind)
        names = {own.name for own in fields(kind)}
        if names != set(value):
            wrong = ", ".join(sorted(names ^ set(value)))
            raise KeyError(f"{place} lacks or should not have {wrong}")
        return kind(**{n: _parsed(hints[n], value[n], f"{place}.{n}") for n in names})
    if origin in (list, dict):
        _require(isinstance(value, origin), kind, value, place)
        if origin is list:
            return [_parsed(inner[0], v, f"{place}[{i}]") for i, v in enumerate(value)]
        return {k: _parsed(inner[1], v, f"{place}.{k}") for k, v in value.items()}
    number = kind is float and isinstance(value, int) and not isinstance(value, bool)
    # A truth is no number, though Python says that it is one.
    exact = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    _require(number or exact, kind, value, place)
    return float(value) if number else value


def _require(right: bool, kind: object, value: object, place: str) -> None:
    if not right:
        expected = getattr(kind, "__name__", str(kind))
        raise TypeError(f"{place} is {type(value).__name__}, expected {expected}")
