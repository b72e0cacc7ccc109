"""Texts from whatever an app keeps them in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeAlias, cast

from mtl_edge.errors import TextError

__all__ = ["Column", "Texts", "listed"]


class Column(Protocol):
    """A column of a data frame: of pandas, Polars, Arrow or numpy."""

    def __len__(self) -> int: ...


Texts: TypeAlias = "Sequence[str] | Iterable[str] | Column"

# How columns call the conversion to a list: Arrow; Polars; pandas and numpy.
CONVERSIONS = ("to_pylist", "to_list", "tolist")


def listed(texts: Texts) -> list[str]:
    """`texts` as a list; its items are not looked at.

    Raises:
        TextError: it is a single string or bytes, a mapping or a data frame, or no collection.
    """
    if isinstance(texts, list):
        return texts
    if isinstance(texts, (str, bytes, bytearray)):
        raise TextError(f"expected several texts, got one {type(texts).__name__}; put it in a list")
    if isinstance(texts, dict) or len(getattr(texts, "shape", (0,))) != 1:
        raise TextError(
            f"expected texts, got {type(texts).__name__}; give the column that holds the texts"
        )
    for name in CONVERSIONS:
        convert = getattr(texts, name, None)
        if convert is not None:
            return cast("list[str]", convert())
    try:
        return list(cast("Iterable[Any]", texts))
    except TypeError:
        raise TextError(
            f"expected texts, got {type(texts).__name__}; give a string, a list of strings or a "
            "column of them"
        ) from None
