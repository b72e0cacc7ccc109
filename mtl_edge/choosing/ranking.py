"""Which graphs could run here, and the rule by which figures rank them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mtl_edge import engines
from mtl_edge.bundle import Graph, Manifest
from mtl_edge.errors import EngineError, MissingPackageError, OptionError
from mtl_edge.timing import Timing

__all__ = ["AUTO", "compared", "exported", "ranked", "runnable"]

AUTO = "auto"

# Bits of a weight. The narrower a graph, the less memory it takes.
BITS: Mapping[str, int] = {"int8": 8, "fp16": 16, "bf16": 16, "fp32": 32}
# How many times as fast another graph must be to be taken instead: by more than a measurement's
# noise, and if it is wider, by so much that it is worth its memory.
FASTER, FASTER_THOUGH_WIDER = 1.03, 1.10


def runnable(
    manifest: Manifest, *, engine: str = AUTO, target: str | None = None, device: str = engines.CPU
) -> list[Graph]:
    """The graphs that can run: the narrowest first, of equals what was faster at export.

    Args:
        engine: one of `engines.ENGINES`; or `auto`: all that are installed and meant for `device`.
        target: a graph's; None: any. On CUDA, which has no kernels for part of int8, int8 graphs
            count only if there are no others.

    Raises:
        EngineError: the engine is unknown, or none of those installed is meant for the device.
        MissingPackageError: no engine for any of these graphs is installed.
        OptionError: the bundle has no graph for that engine or target.
    """
    if engine != AUTO and engine not in engines.ENGINES:
        known = ", ".join([AUTO, *engines.ENGINES])
        raise EngineError(f"unknown engine {engine!r}; there are {known}")
    asked = [
        g for g in manifest.graphs if engine in (AUTO, g.engine) and target in (None, g.target)
    ]
    if not asked:
        held = ", ".join(f"{g.target} ({g.engine})" for g in manifest.graphs)
        wanted = f"engine {engine}" + (f" and target {target}" if target else "")
        raise OptionError(f"the bundle has no graph for {wanted}; it holds {held}")
    able = [g for g in asked if engines.available(g.engine)]
    if not able:
        info = engines.ENGINES.get(asked[0].engine)
        advice = f"`pip install '{info.install}'`" if info else "upgrade mtl-edge"
        raise MissingPackageError(
            f"the bundle needs engine {asked[0].engine}, which is not installed; {advice}"
        )
    found = [g for g in able if engine != AUTO or engines.automatic(g.engine, device)]
    if not found:
        held = ", ".join(f"{g.target} ({g.engine})" for g in able)
        raise EngineError(f"none of {held} is meant for device {device!r}; choose another device")
    if engines.is_cuda(device):
        found = [g for g in found if g.precision != "int8"] or found
    return sorted(found, key=lambda g: (_bits(g), g.latency_ms or float("inf")))


def exported(graphs: Sequence[Graph], device: str = engines.CPU) -> dict[str, Timing]:
    """The figures in the manifest, by target. They are of a CPU and say nothing of CUDA."""
    if engines.is_cuda(device):
        return {}
    return {g.target: Timing((g.latency_ms,)) for g in graphs if g.latency_ms}


def ranked(graphs: Sequence[Graph], scores: Mapping[str, Timing]) -> tuple[Graph, ...]:
    """One or more graphs, what should run first.

    The first that has a score is taken unless a later one is clearly faster: in the median of all
    rounds by 3 percent, or by 10 if its weights are wider, and in three rounds of four at all.

    Args:
        graphs: in the order of `runnable`.
        scores: by target, smaller is better; graphs without one come last.
    """
    known = [g for g in graphs if g.target in scores]
    if not known:
        return tuple(graphs)
    best = known[0]
    for other in known[1:]:
        times, low, _ = scores[other.target].ratio_of(scores[best.target])
        if low > 1 and times > (FASTER_THOUGH_WIDER if _bits(other) > _bits(best) else FASTER):
            best = other
    rest = sorted((g for g in known if g != best), key=lambda g: scores[g.target].median)
    return (best, *rest, *(g for g in graphs if g.target not in scores))


def compared(order: Sequence[Graph], scores: Mapping[str, Timing]) -> str:
    """The first of `ranked` beside the fastest of the others, in words."""
    best, *others = order
    if best.target not in scores:
        return f"{best.target} comes first and nothing is known of how fast any is"
    rival = others[0]
    if rival.target not in scores:
        return f"{best.target} is the only one with a figure"
    times = scores[best.target].ratio_of(scores[rival.target])[0]
    if times >= 1:
        return f"{best.target} is {times:.2f} times as fast as {rival.target}"
    kind = "a wider graph is to be by 1.10" if _bits(rival) > _bits(best) else "too close to tell"
    return f"{rival.target} is {1 / times:.2f} times as fast as {best.target}, {kind}"


def _bits(graph: Graph) -> int:
    return BITS.get(graph.precision, max(BITS.values()))
