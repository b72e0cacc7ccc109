"""What this machine computes and moves in a second, at most: the best that was seen.

Each precision is measured in every engine that has it and at a few shapes (`PRODUCTS`), and the
fastest single call counts: another process can only take time away, so that a median would be no
limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mtl_edge.benchmarks.roofline.bandwidth import (
    Read,
    cache_bytes,
    read_rates,
    sizes_for,
    torch_threads,
    triad_rate,
)
from mtl_edge.benchmarks.roofline.products import PRODUCTS, Call, Shape, operations
from mtl_edge.timing import time_calls

__all__ = ["SHAPES", "MachineLimits", "Rate", "matrix_rates", "measure", "product_rates"]

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
class MachineLimits:
    """A machine's limits with a number of threads.

    Attributes:
        tops: by precision, tera-operations a second of products of matrices; a multiplication and
            an addition are two. `int8` is unsigned times signed.
        triad_gb_s: gigabytes a second that STREAM's triad moves in main memory.
        reads: the rate of reading by the number of bytes that are read over and over.
        cache: bytes of the last cache; None: not known.
        rates: all that were measured.
    """

    threads: int
    tops: Mapping[str, float]
    triad_gb_s: float
    reads: tuple[Read, ...]
    cache: int | None
    rates: tuple[Rate, ...] = ()

    def rate(self, precision: str) -> float:
        """Of a graph's precision; those without products of their own are computed in float32."""
        return self.tops.get(precision) or self.tops["fp32"]

    def fastest(self, precision: str) -> Rate:
        """The products that `rate` is of."""
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

    def figures(self) -> dict[str, float]:
        """For the record, in units that the names end with."""
        return {
            **{f"{precision}_tops": rate for precision, rate in self.tops.items()},
            "read_gb_s": self.reads[-1].gb_s,
            "triad_gb_s": self.triad_gb_s,
        }


def measure(
    threads: int,
    *,
    shapes: Sequence[Shape] = SHAPES,
    rounds: int = ROUNDS,
    sizes: tuple[int, ...] | None = None,
    between: Callable[[], object] | None = None,
) -> MachineLimits:
    """Measure everything; about a quarter of a minute.

    Args:
        rounds: of the products at each shape.
        sizes: of reads, in bytes; by default as the machine's caches ask for.
        between: called after each round of the products, as for progress.
    """
    rates = product_rates(threads, shapes=shapes, rounds=rounds, between=between)
    sizes = sizes or sizes_for(cache_bytes())
    with torch_threads(threads):
        reads = read_rates(sizes)
        triad = triad_rate(max(sizes))
    return MachineLimits(threads, _best(rates), triad, reads, cache_bytes(), rates)


def matrix_rates(threads: int) -> dict[str, float]:
    """Tera-operations a second of `int8`, `fp32` and, where there are such, `bf16` products."""
    return _best(product_rates(threads))


def product_rates(
    threads: int,
    *,
    shapes: Sequence[Shape] = SHAPES,
    rounds: int = ROUNDS,
    between: Callable[[], object] | None = None,
) -> tuple[Rate, ...]:
    """The fastest call of each kind at each shape, taken in interleaved rounds."""
    rates = []
    for shape in shapes:
        calls: dict[tuple[str, str], Call] = {}
        for precision, makers in PRODUCTS.items():
            for by, make in makers.items():
                call = make(shape, threads)
                if call is not None:
                    calls[precision, by] = call
        named = {"\t".join(kind): call for kind, call in calls.items()}
        times = time_calls(named, rounds=rounds, seconds=SECONDS, between=between)
        for kind, name in zip(calls, named, strict=True):
            tops = operations(shape) / min(times[name].rounds) / 1e9
            rates.append(Rate(*kind, shape, tops))
    return tuple(rates)


def _best(rates: Sequence[Rate]) -> dict[str, float]:
    """By precision; what no engine here has products in is left out."""
    best: dict[str, float] = {}
    for rate in rates:
        best[rate.precision] = max(rate.tops, best.get(rate.precision, 0.0))
    return best
