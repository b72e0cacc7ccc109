"""Which of a bundle's graphs runs."""

from __future__ import annotations

from mtl_edge import engines
from mtl_edge.bundle import Bundle, Graph, Manifest
from mtl_edge.engines import Engine
from mtl_edge.errors import EngineError, MissingPackageError, OptionError

__all__ = ["bundle_engine", "choose_graph"]


def bundle_engine(
    bundle: Bundle, graph: Graph, threads: int | None = None, device: str = engines.CPU
) -> Engine:
    """Start the engine of one of a bundle's graphs: see `mtl_edge.engines.start`."""
    setup = engines.Setup(threads, bundle.manifest.max_tokens, graph.precision, device)
    return engines.start(graph.engine, bundle.files_of(graph), setup)


def choose_graph(manifest: Manifest, *, engine: str = "auto", target: str | None = None) -> Graph:
    """The graph to run: see `EdgeClassifier.load`.

    Raises:
        EngineError: the engine is unknown.
        MissingPackageError: no engine for any of the bundle's graphs is installed.
        OptionError: the bundle has no graph for that engine or target.
    """
    if engine != "auto" and engine not in engines.ENGINES:
        known = ", ".join(["auto", *engines.ENGINES])
        raise EngineError(f"unknown engine {engine!r}; there are {known}")
    graphs = [g for g in manifest.graphs
              if engine in ("auto", g.engine) and target in (None, g.target)]  # fmt: skip
    if not graphs:
        held = ", ".join(f"{g.target} ({g.engine})" for g in manifest.graphs)
        raise OptionError(
            f"the bundle has no graph for engine {engine}"
            + (f" and target {target}" if target else "")
            + f"; it holds {held}"
        )
    usable = [g for g in graphs if engines.available(g.engine)]
    if not usable:
        missing = engines.ENGINES.get(graphs[0].engine)
        advice = f"`pip install '{missing.install}'`" if missing else "upgrade mtl-edge"
        raise MissingPackageError(
            f"the bundle needs engine {graphs[0].engine}, which is not installed; {advice}"
        )
    return min(usable, key=lambda g: g.latency_ms if g.latency_ms is not None else float("inf"))
