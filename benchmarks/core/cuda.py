"""Systems on a GPU, its own clock, and what the card can do: for `bench --device CUDA`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

from mtl_edge import engines
from mtl_edge.benchmarks.core.system import (
    PRECISIONS,
    System,
    checkpoint_of,
    float32_products,
    graph_system,
    torch_system,
)
from mtl_edge.benchmarks.roofline.bandwidth import best_ms, read_rates, sizes_for, triad_rate
from mtl_edge.benchmarks.roofline.rates import MachineLimits
from mtl_edge.bundle import Bundle
from mtl_edge.errors import EngineError
from mtl_edge.timing import Clock

__all__ = ["card", "clock", "limits", "systems_of"]

SIDES = (2048, 4096, 8192)  # of square matrices
ROUNDS = 10
# How the torch model runs: its precision, and whether it is compiled.
WAYS = (("fp32", False), ("tf32", False), ("fp16", False), ("fp16", True))


def _device(name: str) -> torch.device:
    """
    Raises:
        EngineError: torch sees no such GPU.
    """
    kind, _, index = name.lower().partition(":")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind != "cuda" or not (index or "0").isdecimal() or int(index or 0) >= count:
        raise EngineError(
            f"--device {name}: torch {torch.__version__} sees no such GPU here; expected CPU, or "
            "CUDA where a card, its driver and a build of torch for it are installed"
        )
    return torch.device(kind, int(index or 0))


def card(device: str) -> str:
    """The card, as a record names it."""
    found = torch.cuda.get_device_properties(_device(device))
    return f"{found.name} ({found.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda})"


def systems_of(
    bundle: Bundle,
    checkpoint: Path | None,
    threads: int,
    texts: Sequence[str],
    stack: ExitStack,
    *,
    device: str,
) -> tuple[list[System], list[str]]:
    """Torch eager in several precisions and compiled, then the bundle's float graphs on the card.

    Int8 graphs are left out: the provider has no kernels for them and would go to the CPU for each.

    Returns:
        also, names of the graphs that are not measured.
    """
    systems: list[System] = []
    if checkpoint is not None:
        model = checkpoint_of(bundle, checkpoint)
        most = bundle.manifest.max_tokens
        systems += [
            torch_system(
                model, threads, texts, most,
                device=str(_device(device)), precision=precision, compiled=compiled,
            )
            for precision, compiled in WAYS
        ]  # fmt: skip
    graphs = [g for g in bundle.manifest.graphs if g.engine == "onnxruntime"]
    floats = [g for g in graphs if g.precision != "int8" and engines.available(g.engine)]
    systems += [
        graph_system(bundle, graph, threads, stack, name=f"{graph.target} CUDA", device=device)
        for graph in floats
    ]
    if not systems:
        raise EngineError(
            "the bundle has no float graph of ONNX Runtime, which a GPU runs; give --checkpoint, "
            "or export with --targets onnx-fp16"
        )
    return systems, [g.target for g in bundle.manifest.graphs if g not in floats]


def clock(device: str) -> Clock:
    """Milliseconds by events on the card, around a call that ends with its answers on the host."""
    place = _device(device)

    def measured(call: Callable[[], object]) -> float:
        start, end = (
            torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            for _ in range(2)
        )
        torch.cuda.synchronize(place)
        start.record()
        call()
        end.record()
        torch.cuda.synchronize(place)
        return float(start.elapsed_time(end))

    return measured


def limits(device: str) -> MachineLimits:
    """The card's matrix products by precision, and its memory; some seconds."""
    place, best = _device(device), partial(best_ms, rounds=ROUNDS, clock=clock(device))
    cache = getattr(torch.cuda.get_device_properties(place), "L2_cache_size", None)
    sizes = sizes_for(cache)
    return MachineLimits(
        threads=0,
        tops={name: max(_rate(name, side, place, best) for side in SIDES) for name in PRECISIONS},
        triad_gb_s=triad_rate(3 * max(sizes), place, best),
        reads=read_rates(sizes, place, best),
        cache=int(cache) if cache else None,
    )


def _rate(precision: str, side: int, device: torch.device, best: Clock) -> float:
    dtype, float32 = PRECISIONS[precision]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    with float32_products(float32):
        return 2.0 * side**3 / best(lambda: torch.mm(a, b, out=out)) / 1e9
