"""Options of the form NAME=VALUE."""

from __future__ import annotations

from collections.abc import Sequence

from mtl_edge.errors import OptionError

__all__ = ["named"]


def named(option: str, values: Sequence[str]) -> dict[str, str]:
    """`["a=x", "b=y"]` as a dictionary, in order.

    Raises:
        OptionError: a value has no name, or a name comes twice.
    """
    result: dict[str, str] = {}
    for value in values:
        name, separator, rest = value.partition("=")
        if not (name and separator and rest):
            raise OptionError(f"{option} {value!r}: expected NAME=FILE")
        if name in result:
            raise OptionError(f"{option} {name!r} was given twice; name each task once")
        result[name] = rest
    return result
