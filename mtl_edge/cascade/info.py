"""`Info`: what a classifier runs, and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mtl_edge.cascade.session import Session
from mtl_edge.engines.cores import default_threads

__all__ = ["Info", "info_of"]


@dataclass(frozen=True, slots=True)
class Info:
    """What a classifier runs.

    Attributes:
        path: the bundle's folder.
        target: the graph's name.
        reason: why `auto` took this engine and graph.
        threads: given to the engine.
        depth: layers of the encoder that the graph runs; of a bundle with stages, the deepest.
        max_tokens: longer texts are cut to so many tokens.
        fixed_shapes: `(batch, tokens)` that the engine compiled ahead.
        depths: of every stage that may answer, rising.
    """

    path: Path
    engine: str
    target: str
    precision: str
    device: str
    threads: int
    reason: str
    tasks: tuple[str, ...]
    depth: int
    max_tokens: int
    fixed_shapes: tuple[tuple[int, int], ...]
    depths: tuple[int, ...]


def info_of(session: Session) -> Info:
    graph, setup = session.choice.graph, session.setup
    return Info(
        path=session.bundle.path,
        engine=graph.engine,
        target=graph.target,
        precision=graph.precision,
        device=setup.device,
        threads=setup.threads or default_threads(),
        reason=session.choice.reason,
        tasks=tuple(task.name for task in session.tasks),
        depth=session.bundle.manifest.depth,
        max_tokens=session.encoder.max_tokens,
        fixed_shapes=session.engine.fixed_shapes,
        depths=tuple(stage.depth for stage in session.stages),
    )
