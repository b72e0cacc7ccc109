"""A bundle's stages by depth, and the bundle as it would be without the deeper ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mtl_edge.bundle.schema import Exit, Graph, Manifest, Task
from mtl_edge.errors import OptionError

__all__ = ["depths_of", "domain_at", "graph_at", "tasks_at", "up_to_depth"]


def depths_of(manifest: Manifest) -> tuple[int, ...]:
    """Layers that each stage runs, rising; the last is the full depth."""
    return (*(stage.depth for stage in manifest.exits), manifest.depth)


def up_to_depth(manifest: Manifest, max_depth: int | None) -> Manifest:
    """The manifest without the stages that run more than `max_depth` layers.

    The deepest stage that is left takes the place of full depth.

    Raises:
        OptionError: no stage is that shallow.
    """
    depths = depths_of(manifest)
    if max_depth is None:
        return manifest
    whole = isinstance(max_depth, int) and not isinstance(max_depth, bool)
    if not whole or max_depth < depths[0]:
        raise OptionError(
            f"max_depth is {max_depth!r}, and the bundle has depth {', '.join(map(str, depths))}; "
            "give one of these, or more"
        )
    index = sum(depth <= max_depth for depth in depths) - 1
    if index == len(manifest.exits):
        return manifest
    stage = manifest.exits[index]
    return replace(
        manifest,
        depth=stage.depth,
        tasks=tasks_at(manifest.tasks, stage),
        domain=domain_at(manifest.domain, stage),
        graphs=tuple(graph_at(graph, index) for graph in manifest.graphs),
        exits=manifest.exits[:index],
    )


def tasks_at(tasks: Sequence[Task], stage: Exit) -> tuple[Task, ...]:
    """Tasks as a cheaper stage answers them: at its temperatures and thresholds."""
    return tuple(
        replace(
            task,
            temperature=stage.temperatures[task.name],
            thresholds=stage.sure.get(task.name, task.thresholds),
        )
        for task in tasks
    )


def domain_at(domain: Task | None, stage: Exit) -> Task | None:
    """`Manifest.domain` as a cheaper stage answers it."""
    return domain and replace(domain, thresholds=stage.domain)


def graph_at(graph: Graph, index: int) -> Graph:
    """A graph's exit as a graph by itself; its latency is not known."""
    stage = graph.exits[index]
    return replace(
        graph,
        file=stage.file,
        companions=stage.companions,
        heads=stage.heads,
        latency_ms=None,
        exits=graph.exits[:index],
    )
