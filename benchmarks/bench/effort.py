"""How much is measured: three sizes, one table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mtl_edge.errors import OptionError

__all__ = ["EFFORTS", "Effort", "Shape", "shapes_of"]

Shape = tuple[int, int]
SHAPE = re.compile(r"([1-9]\d{0,3})x([1-9]\d{0,3})")


@dataclass(frozen=True, slots=True)
class Effort:
    """
    Attributes:
        shapes: `(batch, tokens)` for the engines' own calls.
        rounds, seconds: at most, for a shape; no new round starts after the seconds.
        texts: of the stream, at most.
        passes: over them, one at a time.
        bulk_rounds: of all of them in one call.
        batches: sizes, for the throughput.
        batch_seconds: for all of those sizes.
        limit_rounds: of the products that tell the machine's limits; 0: they are not measured.
    """

    name: str
    shapes: Sequence[Shape]
    rounds: int
    seconds: float
    texts: int
    passes: int
    bulk_rounds: int
    batches: Sequence[int]
    batch_seconds: float
    limit_rounds: int


EFFORTS: Mapping[str, Effort] = {
    effort.name: effort
    for effort in (
        Effort("quick", ((1, 32), (32, 32)), 20, 1.0, 64, 1, 3, (1, 8, 64), 1.0, 0),
        Effort(
            "default", ((1, 16), (1, 32), (8, 32), (32, 32)), 60, 2.5, 192, 2, 4,
            (1, 4, 16, 64, 128), 4.0, 8,
        ),
        Effort(
            "full",
            ((1, 16), (1, 32), (1, 64), (1, 128), (8, 32), (8, 128), (32, 32), (32, 128)),
            100, 20.0, 1000, 3, 10, (1, 2, 4, 8, 16, 32, 64, 128), 30.0, 25,
        ),
    )
}  # fmt: skip


def shapes_of(option: str, most_tokens: int) -> list[Shape]:
    """`1x16,32x128` as shapes.

    Raises:
        OptionError: one is no shape, or longer than the graphs take.
    """
    found = []
    for part in option.split(","):
        match = SHAPE.fullmatch(part.strip())
        if match is None:
            raise OptionError(
                f"--shapes {part!r}: expected BATCHxTOKENS, as in 1x16,32x128; each up to 9999"
            )
        shape = int(match[1]), int(match[2])
        if shape[1] > most_tokens:
            raise OptionError(f"--shapes {part}: the bundle takes at most {most_tokens} tokens")
        found.append(shape)
    return list(dict.fromkeys(found))
