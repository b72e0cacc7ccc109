"""What this machine computes and moves in a second, at most: the best that was seen.

Each precision is measured in every engine that has it and at a few shapes (`PRODUCTS`), and the
fastest single call counts: another process can only take time away, so that a median would be no
limit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mtl_edge.benchmarks.limits.bandwidth import (
    Read,
    cache_bytes,
    read_rates,
    sizes_for,
    torch_threads,
    triad_rate,
)
from mtl_edge.benchmarks.limits.products import PRODUCTS, Call, Shape, operations
from mtl_edge.timing import alternate

__all__ = ["SHAPES", "Limits", "Rate", "matrix_rates", "measure", "product_rates"]

# A layer's feed-forward products in DistilBERT and MiniLM, and squares; the fastest is not the same
# in every engine. Short calls: the longer one is, the surer another process falls into it.
SHAPES: tuple[Shape, ...] = (
    (256, 768, 3072),
    (256, 384, 1536),
    (1024, 384, 1536),
    (512, 512, 512),
)
ROUNDS, SECONDS = 25, 3.0  # of a shape


@dataclass(frozen=True, slots=True)
class Rate:
    """Tera-operations a second of one kind of product; a multiplication and an addition are two.

    Attributes:
        by: what computed.
        shape: rows, narrow and wide side.
    """

    precision: str
    by: str
    shape: Shape
    tops: float


@dataclass(frozen=True, slots=True)
class Limits:
    """A machine's limits with a number of threads.

    Attributes:
        int8_tops: tera-operations a second of products of matrices; a multiplication and an
            addition are two. Unsigned times signed.
        bf16_tops: the same in bfloat16; none: no engine here has such products.
        read_gb_s: gigabytes a second that are read from main memory.
        triad_gb_s: that STREAM's triad moves there.
        reads: the rate of reading by the number of bytes that are read over and over.
        cache: bytes of the last cache; none: not known.
        rates: all that were measured.
    """

    threads: int
    int8_tops: float
    bf16_tops: float | None
    fp32_tops: float
    read_gb_s: float
    triad_gb_s: float
    reads: tuple[Read, ...]
    cache: int | None
    rates: tuple[Rate, ...] = ()

    def tops(self, precision: str) -> float:
        """Of a graph's precision; those without products of their own are computed in float32."""
        own = {"int8": self.int8_tops, "bf16": self.bf16_tops}.get(precision)
        return own or self.fp32_tops

    def fastest(self, precision: str) -> Rate:
        """The products that `tops` is of."""
        own = [rate for rate in self.rates if rate.precision == precision]
        return max(
            own or [rate for rate in self.rates if rate.precision == "fp32"],
            key=lambda rate: rate.tops,
        )

    def read_at(self, size: float) -> float:
        """Gigabytes a second, where `size` bytes are read in each pass.

        Of all measured sizes that are not smaller, and the next below: none of it is too slow.
        """
        below = max((read.bytes for read in self.reads if read.bytes <= size), default=0)
        return max(read.gb_s for read in self.reads if read.bytes >= below)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    threads: int,
    *,
    shapes: Sequence[Shape] = SHAPES,
    rounds: int = ROUNDS,
    sizes: tuple[int, ...] | None = None,
    between: Callable[[], object] | None = None,
) -> Limits:
    """Measure everything; about a quarter of a minute.

    Args:
        rounds: of the products at each shape.
        sizes: of reads, in bytes; by default as the machine's caches ask for.
        between: called before each round of the products, as for progress.
    """
    rates = product_rates(threads, shapes=shapes, rounds=rounds, between=between)
    sizes = sizes or sizes_for(cache_bytes())
    with torch_threads(threads):
        reads = read_rates(sizes)
        triad = triad_rate(max(sizes))
    return Limits(
        threads=threads,
        int8_tops=_best(rates, "int8") or 0.0,
        bf16_tops=_best(rates, "bf16"),
        fp32_tops=_best(rates, "fp32") or 0.0,
        read_gb_s=reads[-1].gb_s,
        triad_gb_s=triad,
        reads=reads,
        cache=cache_bytes(),
        rates=rates,
    )


def matrix_rates(threads: int) -> dict[str, float]:
    """Tera-operations a second of `int8`, `fp32` and, where there are such, `bf16` products."""
    rates = product_rates(threads)
    found = {name: _best(rates, name) for name in PRODUCTS}
    return {name: tops for name, tops in found.items() if tops is not None}


def product_rates(
    threads: int,
    *,
    shapes: Sequence[Shape] = SHAPES,
    rounds: int = ROUNDS,
    between: Callable[[], object] | None = None,
) -> tuple[Rate, ...]:
    """The fastest call of each kind at each shape, taken in alternating rounds."""
    rates = []
    for shape in shapes:
        calls: dict[tuple[str, str], Call] = {}
        for precision, makers in PRODUCTS.items():
            for by, make in makers.items():
                call = make(shape, threads)
                if call is not None:
                    calls[precision, by] = call
        named = {"\t".join(kind): call for kind, call in calls.items()}
        times = alternate(named, rounds=rounds, seconds=SECONDS, between=between)
        for kind, name in zip(calls, named, strict=True):
            tops = operations(shape) / min(times[name].rounds) / 1e9
            rates.append(Rate(*kind, shape, tops))
    return tuple(rates)


def _best(rates: Sequence[Rate], precision: str) -> float | None:
    return max((rate.tops for rate in rates if rate.precision == precision), default=None)
