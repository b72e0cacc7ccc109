"""What could run a bundle, and the rule by which figures rank it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mtl_edge import engines
from mtl_edge.bundle import Graph, Manifest
from mtl_edge.errors import EngineError, MissingPackageError, OptionError
from mtl_edge.timing import Timing

__all__ = ["AUTO", "Candidate", "candidates", "exported", "openers", "ranked"]

AUTO = "auto"

# Bits of a weight. The narrower a graph, the less memory it takes.
BITS: Mapping[str, int] = {"int8": 8, "fp16": 16, "bf16": 16, "fp32": 32}
# How many times as fast another graph must be to be taken instead: by more than a measurement's
# noise, and if it is wider, by so much that it is worth its memory.
FASTER, FASTER_THOUGH_WIDER = 1.03, 1.10


@dataclass(frozen=True, slots=True)
class Candidate:
    """A graph and an engine that can open it."""

    graph: Graph
    engine: str

    @property
    def name(self) -> str:
        own = self.engine == self.graph.engine
        return self.graph.target if own else f"{self.graph.target} in {self.engine}"

    @property
    def bits(self) -> int:
        return BITS.get(self.graph.precision, max(BITS.values()))

    @property
    def latency_ms(self) -> float | None:
        """As measured at export, which was in the graph's own engine."""
        return self.graph.latency_ms if self.engine == self.graph.engine else None


def openers(graph: Graph) -> list[str]:
    """Engines, installed or not, that can open a graph: its own first."""
    able = [name for name, info in engines.ENGINES.items() if graph.engine in info.runs]
    return sorted(able, key=lambda name: name != graph.engine)


def candidates(
    manifest: Manifest,
    *,
    engine: str = AUTO,
    target: str | None = None,
    device: str = engines.CPU,
) -> list[Candidate]:
    """What can run here: the narrowest first, of equals what was faster at export.

    Args:
        engine: one of `engines.ENGINES`; or `auto`: all that are installed and meant for `device`.
        target: a graph's; none: any.

    Raises:
        EngineError: the engine is unknown.
        MissingPackageError: no engine for any of these graphs is installed.
        OptionError: the bundle has no graph for that engine or target.
    """
    if engine != AUTO and engine not in engines.ENGINES:
        known = ", ".join([AUTO, *engines.ENGINES])
        raise EngineError(f"unknown engine {engine!r}; there are {known}")
    graphs = [g for g in manifest.graphs
              if engine in (AUTO, *openers(g)) and target in (None, g.target)]  # fmt: skip
    if not graphs:
        raise _no_graph(manifest, engine, target)
    if engine == AUTO:
        pairs = [
            (g, name) for g in graphs for name in openers(g) if engines.automatic(name, device)
        ]
    else:
        pairs = [(g, engine) for g in graphs if engines.available(engine)]
    if not pairs:
        raise _not_installed(graphs[0].engine if engine == AUTO else engine)
    found = [Candidate(graph, name) for graph, name in pairs]
    return sorted(found, key=lambda c: (c.bits, c.latency_ms or float("inf")))


def exported(found: Sequence[Candidate]) -> dict[str, Timing]:
    """The candidates' figures in the manifest, by name, as far as there are any."""
    return {c.name: Timing((c.latency_ms,)) for c in found if c.latency_ms}


def ranked(found: Sequence[Candidate], scores: Mapping[str, Timing]) -> list[Candidate]:
    """One or more candidates, what should run first.

    The first that has a score is taken unless a later one is clearly faster: in the median of all
    rounds by 3 percent, or by 10 if its weights are wider, and in three rounds of four at all.

    Args:
        found: in the order of `candidates`.
        scores: by name, smaller is better; candidates without one come last.
    """
    known = [c for c in found if c.name in scores]
    if not known:
        return list(found)
    best = known[0]
    for other in known[1:]:
        times, low, _ = scores[other.name].ratio_of(scores[best.name])
        if low > 1 and times > (FASTER_THOUGH_WIDER if other.bits > best.bits else FASTER):
            best = other
    rest = sorted(
        (c for c in found if c != best),
        key=lambda c: scores[c.name].median if c.name in scores else float("inf"),
    )
    return [best, *rest]


def _no_graph(manifest: Manifest, engine: str, target: str | None) -> OptionError:
    held = ", ".join(f"{g.target} ({g.engine})" for g in manifest.graphs)
    wanted = f"engine {engine}" + (f" and target {target}" if target else "")
    return OptionError(f"the bundle has no graph for {wanted}; it holds {held}")


def _not_installed(engine: str) -> MissingPackageError:
    missing = engines.ENGINES.get(engine)
    advice = f"`pip install '{missing.install}'`" if missing else "upgrade mtl-edge"
    return MissingPackageError(
        f"the bundle needs engine {engine}, which is not installed; {advice}"
    )
