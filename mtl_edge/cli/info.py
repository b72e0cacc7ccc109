"""`mtl-edge info`: what a bundle holds, after every file was verified."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from mtl_edge import engines
from mtl_edge.bundle import Bundle, Task, open_bundle
from mtl_edge.choosing import choose_graph
from mtl_edge.errors import MissingPackageError
from mtl_edge.table import text_table

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, help="a bundle's folder")
    parser.add_argument("--json", action="store_true", help="the manifest as JSON")


def run(args: argparse.Namespace) -> None:
    bundle = open_bundle(args.bundle, verify="full")
    if args.json:
        print(json.dumps(dataclasses.asdict(bundle.manifest), indent=2))
    else:
        print(_describe(bundle))


def _labels(task: Task) -> str:
    """Labels, each with the probability from which on it is sure, if there is one."""
    if not task.thresholds:
        return ", ".join(task.labels)
    pairs = zip(task.labels, task.thresholds, strict=True)
    return ", ".join(
        f"{label} ({f'sure from {value:.2f}' if value <= 1 else 'never sure'})"
        for label, value in pairs
    )


def _describe(bundle: Bundle) -> str:
    manifest = bundle.manifest
    backbone = manifest.backbone
    tasks = [[t.name, _labels(t), f"{t.temperature:.2f}"] for t in manifest.tasks]
    try:
        chosen = choose_graph(manifest).target
    except MissingPackageError:
        chosen = None
    graphs = [
        [
            graph.target,
            graph.engine,
            "yes" if engines.available(graph.engine) else "no",
            graph.precision,
            f"{bundle.size_of(graph) / 1e6:.1f}",
            "" if graph.latency_ms is None else f"{graph.latency_ms:.2f}",
            "auto" if graph.target == chosen else "",
        ]
        for graph in manifest.graphs
    ]
    total = sum(entry.size for entry in manifest.files)
    return "\n".join(
        [
            f"{bundle.path}",
            f"backbone {backbone.name} ({backbone.architecture}, {backbone.hidden_size} wide, "
            f"{manifest.depth} of {backbone.layers} layers), at most {manifest.max_tokens} tokens",
            f"{len(manifest.files)} files, {total / 1e6:.1f} MB, every sha256 as the manifest says",
            "",
            text_table(["task", "labels", "temperature"], tasks),
            "",
            text_table(
                ["graph", "engine", "installed", "precision", "MB", "ms at export", "chosen by"],
                graphs,
            ),
        ]
    )
