"""The machine's limits, and the least time that they leave each contender."""

from __future__ import annotations

from collections.abc import Callable

from mtl_edge.benchmarks.bench.effort import Effort
from mtl_edge.benchmarks.bench.entrants import Entrant
from mtl_edge.benchmarks.limits.floor import floor_of, work_of
from mtl_edge.benchmarks.limits.rates import SHAPES, measure
from mtl_edge.benchmarks.limits.weights import weights_of
from mtl_edge.bundle import Bundle
from mtl_edge.training.progress import Progress

__all__ = ["Floor", "floors"]

Floor = Callable[[Entrant, int, int], float | None]  # least ms for (batch, tokens), if known
MIB = 2**20
FEW = (4 * MIB, 32 * MIB, 256 * MIB)  # sizes to read, in bytes


def floors(bundle: Bundle, threads: int, effort: Effort) -> tuple[dict[str, float], Floor]:
    """What the machine does in a second, and the floor by contender, batch and tokens.

    Nothing is measured, and no floor known, where the effort has no rounds for it. The torch
    model's work is that of the bundle's encoder in float32.
    """
    if not effort.limit_rounds:
        return {}, lambda entrant, batch, tokens: None
    shapes = SHAPES if effort.name == "full" else SHAPES[1:3]
    with Progress(
        "the machine's limits", total=len(shapes) * effort.limit_rounds, unit="rounds"
    ) as p:
        limits = measure(
            threads,
            shapes=shapes,
            rounds=effort.limit_rounds,
            sizes=None if effort.name == "full" else FEW,
            between=p.update,
        )
    weights = {graph.target: weights_of(bundle, graph) for graph in bundle.manifest.graphs}

    def floor(entrant: Entrant, batch: int, tokens: int) -> float | None:
        graph = entrant.graph or bundle.manifest.graphs[0]
        work = work_of(
            bundle, graph, batch, tokens,
            precision=entrant.precision, weights=weights[graph.target],
        )  # fmt: skip
        if work is None:
            return None
        tops = limits.tops(entrant.precision)
        return floor_of(work, tops, limits.read_at, limits.cache).ms

    named = {
        "int8_tops": limits.int8_tops,
        "bf16_tops": limits.bf16_tops,
        "fp32_tops": limits.fp32_tops,
        "read_gb_s": limits.read_gb_s,
        "triad_gb_s": limits.triad_gb_s,
    }
    return {name: value for name, value in named.items() if value is not None}, floor
