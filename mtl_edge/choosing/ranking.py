"""What could run a bundle, and the rule by which figures rank it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mtl_edge import engines
from mtl_edge.bundle import Graph, Manifest
from mtl_edge.errors import EngineError, MissingPackageError, OptionError
from mtl_edge.timing import Timing

__all__ = ["AUTO", "Pairing", "exported", "openers", "pairings", "ranked"]

AUTO = "auto"

# Bits of a weight. The narrower a graph, the less memory it takes.
BITS: Mapping[str, int] = {"int8": 8, "fp16": 16, "bf16": 16, "fp32": 32}
# How many times as fast another graph must be to be taken instead: by more than a measurement's
# noise, and if it is wider, by so much that it is worth its memory.
FASTER, FASTER_THOUGH_WIDER = 1.03, 1.10


class Pairing(NamedTuple):
    """A graph and an engine that can open it."""

    graph: Graph
    engine: str

    @property
    def name(self) -> str:
        """As reasons and records call it."""
        own = self.engine == self.graph.engine
        return self.graph.target if own else f"{self.graph.target} in {self.engine}"

    @property
    def bits(self) -> int:
        """Of a weight."""
        return BITS.get(self.graph.precision, max(BITS.values()))

    @property
    def latency_ms(self) -> float | None:
        """As measured at export, which was in the graph's own engine."""
        return self.graph.latency_ms if self.engine == self.graph.engine else None


def openers(graph: Graph) -> list[str]:
    """Engines, installed or not, that can open a graph: its own first."""
    able = [name for name, info in engines.ENGINES.items() if graph.engine in info.runs]
    return sorted(able, key=lambda name: name != graph.engine)


def pairings(
    manifest: Manifest,
    *,
    engine: str = AUTO,
    target: str | None = None,
    device: str = engines.CPU,
) -> list[Pairing]:
    """What can run here: the narrowest first, of equals what was faster at export.

    Args:
        engine: one of `engines.ENGINES`; or `auto`: all that are installed and meant for `device`.
        target: a graph's; None: any. On CUDA, which lacks int8's operators, int8 graphs count only
            if there are no others.

    Raises:
        EngineError: the engine is unknown, or none of those installed is meant for the device.
        MissingPackageError: no engine for any of these graphs is installed.
        OptionError: the bundle has no graph for that engine or target.
    """
    if engine != AUTO and engine not in engines.ENGINES:
        known = ", ".join([AUTO, *engines.ENGINES])
        raise EngineError(f"unknown engine {engine!r}; there are {known}")
    graphs = [g for g in manifest.graphs
              if engine in (AUTO, *openers(g)) and target in (None, g.target)]  # fmt: skip
    if not graphs:
        held = ", ".join(f"{g.target} ({g.engine})" for g in manifest.graphs)
        wanted = f"engine {engine}" + (f" and target {target}" if target else "")
        raise OptionError(f"the bundle has no graph for {wanted}; it holds {held}")
    able = [Pairing(g, name) for g in graphs for name in openers(g)
            if engine in (AUTO, name) and engines.available(name)]  # fmt: skip
    if not able:
        raise _not_installed(graphs[0].engine if engine == AUTO else engine)
    found = [p for p in able if engine == p.engine or engines.automatic(p.engine, device)]
    if not found:
        held = ", ".join(p.name for p in able)
        raise EngineError(f"no engine for {held} is meant for device {device!r}; try another one")
    if engines.is_cuda(device):
        found = [p for p in found if p.graph.precision != "int8"] or found
    return sorted(found, key=lambda p: (p.bits, p.latency_ms or float("inf")))


def _not_installed(engine: str) -> MissingPackageError:
    missing = engines.ENGINES.get(engine)
    advice = f"`pip install '{missing.install}'`" if missing else "upgrade mtl-edge"
    return MissingPackageError(
        f"the bundle needs engine {engine}, which is not installed; {advice}"
    )


def exported(found: Sequence[Pairing], device: str = engines.CPU) -> dict[str, Timing]:
    """The figures in the manifest by the pairing's name, as far as they are known.

    They are of a CPU, on which fp16 is slow, and say nothing of CUDA.
    """
    if engines.is_cuda(device):
        return {}
    return {p.name: Timing((p.latency_ms,)) for p in found if p.latency_ms}


def ranked(found: Sequence[Pairing], scores: Mapping[str, Timing]) -> tuple[Pairing, ...]:
    """One or more pairings, what should run first.

    The first that has a score is taken unless a later one is clearly faster: in the median of all
    rounds by 3 percent, or by 10 if its weights are wider, and in three rounds of four at all.

    Args:
        found: in the order of `pairings`.
        scores: by name, smaller is better; pairings without one come last.
    """
    known = [p for p in found if p.name in scores]
    if not known:
        return tuple(found)
    best = known[0]
    for other in known[1:]:
        times, low, _ = scores[other.name].ratio_of(scores[best.name])
        if low > 1 and times > (FASTER_THOUGH_WIDER if other.bits > best.bits else FASTER):
            best = other
    rest = sorted((p for p in known if p != best), key=lambda p: scores[p.name].median)
    return (best, *rest, *(p for p in found if p.name not in scores))
