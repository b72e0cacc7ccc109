"""How fast memory is read, and read and written, by the size of what is gone through.

Bytes are counted and times taken as in STREAM (McCalpin 1995, "Memory bandwidth and machine balance
in current high performance computers"): each array once, whatever the hardware moves besides, and
the best of many rounds. The triad is `a = b + s * c` on float64. The read is a dot product, which
writes nothing and does little arithmetic for a byte; on a GPU, where starting one takes longer than
it runs, it is a sum of the same array many times over, in one kernel.

A pass finds its weights in a cache if they fit there since the pass before, so that one figure for
main memory would not be a limit. Reads are measured at sizes from a mebibyte to four times the last
cache.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from mtl_edge.timing import Clock, wall_ms

__all__ = [
    "Read",
    "best_ms",
    "cache_bytes",
    "read_rates",
    "sizes_for",
    "torch_threads",
    "triad_rate",
]

MIB = 2**20
LEAST_CACHE, MOST_SIZE = 32 * MIB, 1024 * MIB
TIMES_THE_CACHE = 4  # STREAM's rule for what is certainly not in it
SWEPT = 256 * MIB  # that a round goes through at least, so that starting it takes no part
ROUNDS = 9
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@dataclass(frozen=True, slots=True)
class Read:
    """Gigabytes a second, where `bytes` are read over and over."""

    bytes: int
    gb_s: float


def best_ms(call: Callable[[], object], rounds: int = ROUNDS, clock: Clock = wall_ms) -> float:
    """Milliseconds of the fastest of some calls; one before them warms up."""
    call()
    return min(clock(call) for _ in range(rounds))


@functools.cache
def cache_bytes() -> int | None:
    """Of the last cache, as Linux tells; none elsewhere."""
    found = []
    for file in CACHES.glob("index*/size"):
        text = file.read_text().strip()
        found.append(int(text.rstrip("KMG")) * UNITS.get(text[-1], 1))
    return max(found, default=None)


def sizes_for(cache: int | None) -> tuple[int, ...]:
    """What to read: a mebibyte, two, four, ... to four times the cache, but no more than 1 GiB."""
    last = min(max(TIMES_THE_CACHE * (cache or 0), LEAST_CACHE), MOST_SIZE)
    sizes = [MIB]
    while sizes[-1] < last:
        sizes.append(2 * sizes[-1])
    return tuple(sizes)


@contextlib.contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Torch computes with so many; it has one number for the process, which is put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def read_rates(
    sizes: tuple[int, ...], device: str | torch.device = "cpu", best: Clock = best_ms
) -> tuple[Read, ...]:
    """The rate at each size in bytes.

    Args:
        best: milliseconds of a call.
    """
    half = max(sizes) // 8  # float32 numbers of one array
    first, second = (torch.ones(half, device=device) for _ in range(2))
    rates = []
    for size in sizes:
        numbers, times = size // 8, max(1, SWEPT // size)
        sweep = _dots if first.device.type == "cpu" else _sums
        call = functools.partial(sweep, first[:numbers], second[:numbers], times)
        rates.append(Read(size, 8 * numbers * times / best(call) / 1e6))
    return tuple(rates)


def _dots(first: torch.Tensor, second: torch.Tensor, times: int) -> None:
    for _ in range(times):
        torch.dot(first, second)


def _sums(first: torch.Tensor, second: torch.Tensor, times: int) -> None:
    for array in (first, second):
        array.expand(times, -1).sum(1)


def triad_rate(size: int, device: str | torch.device = "cpu", best: Clock = best_ms) -> float:
    """Gigabytes a second of STREAM's triad on three arrays of `size` bytes in all."""
    numbers = size // (3 * 8)
    a, b, c = (torch.ones(numbers, dtype=torch.float64, device=device) for _ in range(3))
    return 3 * 8 * numbers / best(lambda: torch.add(b, c, alpha=3.0, out=a)) / 1e6
