"""A table of characters in the form that SentencePiece normalizers take: a precompiled map.

The form: the size of a trie in bytes, the trie, and the replacements, each ended by a zero byte.
The trie is a double array as in darts-clone: from keys in UTF-8 to where a replacement starts.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["charsmap"]

# Bits of a unit.
LEAF = 1 << 8  # a key ends here
VALUE = 1 << 31  # the rest of the unit is a key's value
OFFSET = 10  # bits; where the position of the children stands
REACH = 1 << 21  # units; how far the plain form of an offset reaches

BLOCK = 256  # units, as many as there are labels


def charsmap(replaced: Mapping[str, str]) -> bytes:
    """The map that replaces the keys, which are not empty and have no zero byte."""
    values = sorted(set(replaced.values()))
    lengths = (len(value.encode()) + 1 for value in values)
    starts = dict(zip(values, itertools.accumulate(lengths, initial=0), strict=False))
    units = _double_array({key.encode(): starts[value] for key, value in replaced.items()})
    texts = b"".join(value.encode() + b"\0" for value in values)
    return struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + texts


def _double_array(table: Mapping[bytes, int]) -> list[int]:
    root: dict[Any, Any] = {}
    for key, value in table.items():
        node = root
        for byte in key:
            node = node.setdefault(byte, {})
        node[0] = value
    units = [0] * BLOCK
    taken = {0}
    bases: set[int] = set()
    waiting = [(root, 0)]
    while waiting:
        node, position = waiting.pop()
        labels = sorted(node)
        base = next(
            b for b in _bases(labels[0], taken, len(units)) if _fits(b, labels, taken, bases)
        )
        offset = base ^ position
        assert offset < REACH, "a table of characters is smaller"
        bases.add(base)
        units.extend([0] * (base // BLOCK * BLOCK + BLOCK - len(units)))
        units[position] |= offset << OFFSET | (LEAF if labels[0] == 0 else 0)
        for label in labels:
            place = base ^ label
            taken.add(place)
            units[place] = label if label else VALUE | node[label]
        waiting.extend((node[label], base ^ label) for label in labels if label)
    return units


def _bases(label: int, taken: set[int], size: int) -> Iterator[int]:
    """Where children may start, so that the one of `label` gets a unit that is free.

    Looks back some blocks only: a shorter array is not worth a long search.
    """
    start = max(0, size - 4 * BLOCK)
    return (place ^ label for place in itertools.count(start) if place not in taken)


def _fits(base: int, labels: list[int], taken: set[int], bases: set[int]) -> bool:
    return base not in bases and not any(base ^ label in taken for label in labels)
