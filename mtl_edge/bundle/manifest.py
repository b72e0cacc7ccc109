"""A manifest from its bytes, whoever wrote them: every field of its type, or an error."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
from pathlib import Path
from typing import (
    Any,
    Literal,
    NoReturn,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from mtl_edge.bundle.safe_files import altered
from mtl_edge.bundle.schema import READABLE, SCHEMA, Manifest
from mtl_edge.bundle.validation import check_manifest
from mtl_edge.errors import SchemaError

__all__ = ["parse_manifest"]

MOST_LEVELS = 32  # that JSON is nested; ours is 6
MOST_INTEGER = 2**63 - 1

_T = TypeVar("_T")


def parse_manifest(data: bytes, file: Path) -> Manifest:
    """The manifest that `data` spells out.

    Args:
        file: where it comes from, for messages.

    Raises:
        BundleError: it is not JSON, a field is missing, unknown or of another type, or what it says
            makes no sense.
        SchemaError: it is of another release.
    """
    try:
        content = json.loads(
            data.decode("utf-8"), object_pairs_hook=_distinct, parse_constant=_no_number
        )
        _check_values(content)
    except (ValueError, RecursionError) as error:
        raise altered(f"{file} is not JSON as a manifest has it ({error})") from None
    schema = content.get("schema") if isinstance(content, dict) else None
    if not isinstance(schema, int) or isinstance(schema, bool):
        raise altered(f"{file} has no schema version")
    if schema not in READABLE:
        advice = (
            "upgrade with `pip install -U mtl-edge`"
            if schema > SCHEMA
            else "export the checkpoint again"
        )
        raise SchemaError(f"{file} has schema {schema}, and this release reads {SCHEMA}; {advice}")
    try:
        manifest = _record(Manifest, content, "the manifest")
        check_manifest(manifest)
    except ValueError as error:
        raise altered(f"{file} does not follow the schema: {error}") from None
    return manifest


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"field {twice!r:.60} comes twice")
    return result


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _check_values(content: object) -> None:
    """Nothing nested too deep, no number that overflowed, no half of a character."""
    level = [content]
    for _ in range(MOST_LEVELS):
        below: list[object] = []
        for value in level:
            if isinstance(value, dict):
                below += value.keys()
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif isinstance(value, str):
                value.encode("utf-8")  # lone surrogates raise a ValueError
            elif isinstance(value, float) and not math.isfinite(value):
                raise ValueError("a number is out of range")
            elif isinstance(value, int) and abs(value) > MOST_INTEGER:
                raise ValueError("an integer has more than 64 bits")
        level = below
        if not level:
            return
    raise ValueError(f"it is nested deeper than {MOST_LEVELS} levels")


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _record(kind: type[_T], value: object, where: str) -> _T:
    """`value`, a JSON object, as a dataclass; its fields' types say what they take."""
    if not isinstance(value, dict):
        raise _unexpected("an object", value, where)
    hints = _hints(kind)  # type: ignore[arg-type]
    if unknown := sorted(value.keys() - hints.keys()):
        raise ValueError(f"{where} has the unknown field {unknown[0]!r:.60}")
    made = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.name in value:
            made[field.name] = _typed(hints[field.name], value[field.name], f"{field.name}")
        elif field.default is field.default_factory:  # both are MISSING
            raise ValueError(f"{where} lacks the field {field.name!r}")
    return kind(**made)


def _typed(hint: Any, value: object, where: str) -> Any:
    """`value`, if it is of the type `hint`; lists become tuples, and integers floats."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        (inner,) = (a for a in arguments if a is not type(None))
        return None if value is None else _typed(inner, value, where)
    if origin is Literal:
        if value not in arguments:
            raise _unexpected(f"one of {', '.join(map(str, arguments))}", value, where)
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise _unexpected("a list", value, where)
        return tuple(_typed(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise _unexpected("an object", value, where)
        return {key: _typed(arguments[1], item, where) for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return _record(hint, value, where)  # type: ignore[arg-type]
    if hint is Any:
        return value
    accepted = (int, float) if hint is float else hint
    if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
        raise _unexpected(f"a value of type {hint.__name__}", value, where)
    return float(value) if hint is float else value


def _unexpected(expected: str, value: object, where: str) -> ValueError:
    return ValueError(f"{where}: expected {expected}, got {value!r:.40}")
