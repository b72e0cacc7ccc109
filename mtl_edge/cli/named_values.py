"""Options of the forms NAME=VALUE and [NAME=]VALUE."""

from __future__ import annotations

from collections.abc import Sequence

from mtl_edge.errors import OptionError

__all__ = ["for_each", "named"]


def named(option: str, values: Sequence[str]) -> dict[str, str]:
    """`["a=x", "b=y"]` as a dictionary, in order.

    Raises:
        OptionError: a value has no name, or a name comes twice.
    """
    result: dict[str, str] = {}
    for value in values:
        name, separator, rest = value.partition("=")
        if not (name and separator and rest):
            raise OptionError(f"{option} {value!r}: expected NAME=VALUE")
        if name in result:
            raise OptionError(f"{option} {name!r} was given twice; name each task once")
        result[name] = rest
    return result


def for_each(option: str, values: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """`["x", "b=y"]` as a value for each of `names`: those with a name override those without.

    Names that no value speaks of are left out.

    Raises:
        OptionError: a value is for a name that is not among `names`.
    """
    result: dict[str, str] = {}
    for value in sorted(values, key=lambda v: "=" in v):
        name, _, rest = value.rpartition("=")
        if name and name not in names:
            raise OptionError(f"{option} {value}: no task {name!r}; there are {', '.join(names)}")
        result |= dict.fromkeys([name] if name else names, rest)
    return result
