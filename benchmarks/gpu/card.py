"""What a GPU is and what it can do at most: its arithmetic by cuBLAS, and its memory."""

from __future__ import annotations

import contextlib
import functools
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from mtl_edge.benchmarks.gpu.clock import Clock
from mtl_edge.benchmarks.limits.bandwidth import Read, read_rates, sizes_for, triad_rate

__all__ = ["CardLimits", "describe", "float32_products", "measure"]

SIDES = (2048, 4096, 8192)  # of square matrices
ROUNDS = 10
DRIVER = ["driver_version", "clocks.max.sm", "power.limit"]
# How torch multiplies in each precision, and what it is told about float32 then.
PRECISIONS = {
    "fp16": (torch.float16, "highest"),
    "bf16": (torch.bfloat16, "highest"),
    "tf32": (torch.float32, "high"),
    "fp32": (torch.float32, "highest"),
}


@dataclass(frozen=True, slots=True)
class CardLimits:
    """A card's limits.

    Attributes:
        tops: tera-operations a second of matrix products by precision, the best over `SIDES`.
        triad_gb_s: that STREAM's triad moves in the card's memory.
        reads: gigabytes a second of reading, by the number of bytes that are read over and over.
        cache: bytes of the last cache; none: not known.
    """

    tops: dict[str, float]
    triad_gb_s: float
    reads: tuple[Read, ...]
    cache: int | None

    def read_at(self, size: float) -> float:
        """Gigabytes a second where `size` bytes are read in each pass: see `Limits.read_at`."""
        below = max((read.bytes for read in self.reads if read.bytes <= size), default=0)
        return max(read.gb_s for read in self.reads if read.bytes >= below)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@contextlib.contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Products of float32 in TF32 (`high`) or not (`highest`); then the setting is put back."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def describe(device: torch.device) -> dict[str, Any]:
    """The card, its driver and what it computes with, for the record."""
    if device.type != "cuda":
        return {"name": f"no GPU: {device.type}"}
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "processors": properties.multi_processor_count,
        "memory_gb": properties.total_memory / 1e9,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        **_driver(torch.cuda.current_device() if device.index is None else device.index),
    }


def _driver(index: int) -> dict[str, str]:
    """What nvidia-smi tells, where it is there."""
    if shutil.which("nvidia-smi") is None:
        return {}
    ask = [
        "nvidia-smi",
        f"--query-gpu={','.join(DRIVER)}",
        "--format=csv,noheader",
        f"--id={index}",
    ]
    done = subprocess.run(ask, capture_output=True, text=True, check=False)
    values = [value.strip() for value in done.stdout.split(",")]
    return dict(zip(DRIVER, values, strict=False)) if done.returncode == 0 else {}


def measure(
    device: torch.device,
    clock: Clock,
    *,
    sides: Sequence[int] = SIDES,
    sizes: tuple[int, ...] | None = None,
) -> CardLimits:
    """A few seconds on a GPU.

    Args:
        sides: of the square matrices.
        sizes: of reads, in bytes; by default as the card's cache asks for.
    """
    cache = _cache(device)
    best = functools.partial(_best, clock)
    sizes = sizes or sizes_for(cache)
    tops = {name: max(_rate(name, side, device, best) for side in sides) for name in PRECISIONS}
    reads = read_rates(sizes, device, best)
    triad = triad_rate(3 * max(sizes), device, best)  # each array as large as the largest read
    return CardLimits(tops, triad, reads, cache)


def _best(clock: Clock, call: Callable[[], object]) -> float:
    call()
    return min(clock.ms(call, ROUNDS))


def _rate(
    precision: str, side: int, device: torch.device, best: Callable[[Callable[[], object]], float]
) -> float:
    dtype, float32 = PRECISIONS[precision]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    with float32_products(float32):
        return 2.0 * side**3 / best(lambda: torch.mm(a, b, out=out)) / 1e9


def _cache(device: torch.device) -> int | None:
    if device.type != "cuda":
        return None
    found = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", None)
    return int(found) if found else None
