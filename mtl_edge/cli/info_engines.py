"""What `mtl-edge info --engines` says: each graph in each engine on this machine, and how fast."""

from __future__ import annotations

import argparse
from typing import Any

from mtl_edge import engines
from mtl_edge.bundle import Bundle
from mtl_edge.choosing import Choice, machine
from mtl_edge.choosing.measurement import SHAPES
from mtl_edge.engines import onnxruntime_wheels
from mtl_edge.engines.cores import default_threads
from mtl_edge.table import text_table

__all__ = ["facts_of", "facts_text"]


def facts_of(
    bundle: Bundle, choice: Choice | None, missing: str, args: argparse.Namespace
) -> dict[str, Any]:
    """What is known of each graph in each engine that can open it, as JSON takes it."""
    taken = choice.measurement if choice else None
    return {
        "graph": choice.graph.target if choice else None,
        "engine": choice.graph.engine if choice else None,
        "reason": choice.reason if choice else missing,
        "threads": args.threads or default_threads(),
        "device": args.device,
        "machine": machine.describe(),
        "taken": taken.taken if taken else None,
        "seconds": round(taken.seconds, 2) if taken else None,
        "record": str(choice.record) if choice and choice.record else None,
        "not_kept": choice.not_kept if choice else None,
        "candidates": [
            {
                "graph": graph.target,
                "engine": graph.engine,
                "version": _version(graph.engine),
                "counted": engines.automatic(graph.engine, args.device),
                "failed": taken.failed.get(graph.target) if taken else None,
                "ms": {
                    shape: timing.to_json()
                    for shape, timing in (
                        taken.timings.get(graph.target, {}) if taken else {}
                    ).items()
                },
                "chosen": choice is not None and graph == choice.graph,
            }
            for graph in bundle.manifest.graphs
        ],
    }


def _version(engine: str) -> str | None:
    """An engine's version; None if it is not installed."""
    if not engines.available(engine):
        return None
    return machine.version_of(engines.ENGINES[engine].package)


def facts_text(facts: dict[str, Any]) -> str:
    """The same as a table and lines for a terminal."""
    shapes = [*SHAPES]
    rows = [
        [
            row["graph"],
            row["engine"],
            row["version"] or "",
            "no" if row["version"] is None else "yes" if row["counted"] else "not meant for it",
            *(_spread(row, shape) for shape in shapes),
            "auto" if row["chosen"] else "",
        ]
        for row in facts["candidates"]
    ]
    header = ["graph", "engine", "version", "installed", *(f"ms {s}" for s in shapes), "chosen by"]
    where = f"{facts['machine']['processor']}, {facts['threads']} threads, device {facts['device']}"
    lines = [f"on this machine: {where}", text_table(header, rows), f"why: {facts['reason']}"]
    lines += [f"{row['graph']} in {row['engine']} failed: {row['failed']}"
              for row in facts["candidates"] if row["failed"]]  # fmt: skip
    if facts["taken"]:
        lines.append(
            f"measured {facts['taken']} in {facts['seconds']} s; median (p10-p90) of a call, "
            "batch x tokens; `--measure` takes it anew"
        )
    elif facts["record"]:
        lines.append("not measured yet: `--measure` does it now, or whoever first loads the bundle")
    if facts["not_kept"]:
        lines.append(f"not kept: {facts['not_kept']}")
    elif facts["record"]:
        lines.append(f"record: {facts['record']}")
    if onnxruntime_wheels.both():
        lines.append(onnxruntime_wheels.CONFLICT)
    return "\n".join(lines)


def _spread(row: dict[str, Any], shape: str) -> str:
    found = row["ms"].get(shape)
    if found is None:
        return "failed" if row["failed"] else ""
    return f"{found['median']:.2f} ({found['p10']:.2f}-{found['p90']:.2f})"
