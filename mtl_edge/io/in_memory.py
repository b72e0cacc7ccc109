"""Texts that an app holds in memory: a list, any iterable, a column of a data frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol, TypeAlias, cast

from mtl_edge.errors import TextError

__all__ = ["Column", "Texts", "as_iterator", "as_list", "valid_texts"]


class Column(Protocol):
    """A column of a data frame: of pandas, Polars, Arrow or numpy."""

    def __len__(self) -> int: ...


Texts: TypeAlias = "Sequence[str] | Iterable[str] | Column"

# How columns call the conversion to a list: Arrow; Polars; pandas and numpy.
CONVERSIONS = ("to_pylist", "to_list", "tolist")


def as_list(texts: Texts, most: int | None = None) -> list[str]:
    """`texts` as a list; its items are not looked at.

    Args:
        most: an iterable, which may have no end, is read up to one text more than this.

    Raises:
        TextError: it is a single string or bytes, a mapping or a data frame, or no collection.
    """
    if isinstance(texts, list):
        return texts
    converted = _converted(texts)
    if converted is not None:
        return converted
    return list(islice(_iterator(texts), None if most is None else most + 1))


def as_iterator(texts: Texts) -> Iterator[str]:
    """`texts` one after the other; a column is converted whole.

    Raises:
        TextError: see `as_list`.
    """
    converted = _converted(texts)
    return _iterator(texts if converted is None else converted)


def valid_texts(texts: Sequence[str], first: int = 0) -> list[str]:
    """`texts` as a list of valid Unicode.

    Lone surrogates, which no encoder can represent, become U+FFFD.

    Args:
        first: position of the first one, where they are part of a longer stream.

    Raises:
        TextError: an item is not a string; its position and type are named.
    """
    result = []
    for position, text in enumerate(texts, first):
        if not isinstance(text, str):
            raise TextError(
                f"item {position} is {type(text).__name__}, expected str; "
                "drop or convert missing values first"
            )
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        result.append(text)
    return result


def _converted(texts: Texts) -> list[str] | None:
    """A column's items as a list; None for another kind of iterable."""
    if isinstance(texts, (str, bytes, bytearray, memoryview)):
        raise TextError(f"expected several texts, got one {type(texts).__name__}; put it in a list")
    shape = getattr(texts, "shape", None)
    if isinstance(texts, Mapping) or (isinstance(shape, tuple) and len(shape) != 1):
        raise TextError(
            f"expected texts, got {type(texts).__name__}; give the column that holds the texts"
        )
    for name in CONVERSIONS:
        convert = getattr(texts, name, None)
        if convert is not None:
            return cast("list[str]", convert())
    return None


def _iterator(texts: Texts) -> Iterator[str]:
    try:
        return iter(cast("Iterable[Any]", texts))
    except TypeError:
        raise TextError(
            f"expected texts, got {type(texts).__name__}; give a string, a list of strings or a "
            "column of them"
        ) from None
