"""Written graphs become a bundle: compared with torch, timed, described in manifest and card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from mtl_edge.bundle import (
    SCHEMA,
    Bundle,
    Exit,
    Graph,
    Manifest,
    open_bundle,
    write_manifest,
)
from mtl_edge.choosing import bundle_engine
from mtl_edge.export.card import CARD, model_card
from mtl_edge.export.early_exit import exit_proof
from mtl_edge.export.proof import evaluate
from mtl_edge.export.step import step
from mtl_edge.export.targets import TARGETS
from mtl_edge.timing import time_calls
from mtl_edge.training.checkpoint import Checkpoint

__all__ = ["complete"]

PACKAGES = ("torch", "transformers", "onnx", "onnxruntime", "openvino", "nncf", "tokenizers")


def complete(
    checkpoint: Checkpoint,
    staging: Path,
    graphs: Sequence[Graph],
    reduced: Mapping[str, Any],
    max_accuracy_drop: float,
    before: Mapping[str, Any] = MappingProxyType({}),
    exits: Sequence[Exit] = (),
) -> Manifest:
    """Measure what is in `staging`, and complete it with manifest and model card.

    Full depth is compared with torch by itself, then its early exits with full depth.

    Args:
        reduced: what the word tables were made smaller by, for the record.
        before: the evaluation before heads were refitted, for the record.
        exits: early exits that the graphs have.

    Raises:
        ExportError: a graph is not faithful to the checkpoint.
    """
    manifest = Manifest(
        schema=SCHEMA,
        tasks=checkpoint.tasks,
        backbone=checkpoint.backbone.info,
        depth=checkpoint.depth,
        max_tokens=checkpoint.max_tokens,
        graphs=tuple(replace(graph, exits=()) for graph in graphs),
        reduced=dict(reduced),
        domain=checkpoint.domain,
        versions={name: version(name) for name in ("mtl-edge", *PACKAGES)},
    )
    write_manifest(staging, manifest)
    with step("compare with torch"):
        targets = [graph.target for graph in graphs]
        evaluation = evaluate(checkpoint, staging, targets, max_accuracy_drop)
    for task, found in before.items():
        for target, score in found["graphs"].items():
            if TARGETS[target].precision == "int8":
                evaluation[task]["graphs"][target]["before_refit"] = score
    with step("time"):
        timed = _timed(open_bundle(staging, verify="size"))
    manifest = replace(manifest, graphs=timed, evaluation=evaluation)
    if exits:
        manifest = _with_exits(checkpoint, staging, manifest, graphs, exits)
    (staging / CARD).write_text(model_card(manifest), encoding="utf-8")
    write_manifest(staging, manifest)
    return manifest


def _with_exits(
    checkpoint: Checkpoint,
    staging: Path,
    manifest: Manifest,
    graphs: Sequence[Graph],
    exits: Sequence[Exit],
) -> Manifest:
    """The manifest with early exits, compared with full depth and timed.

    Args:
        graphs: as they were built, with the files of their exits.
    """
    whole = tuple(replace(m, exits=g.exits) for m, g in zip(manifest.graphs, graphs, strict=True))
    manifest = replace(manifest, graphs=whole, exits=tuple(exits))
    write_manifest(staging, manifest)
    evaluation = dict(manifest.evaluation)
    with step("compare with full depth"):
        for task, by_target in exit_proof.prove(checkpoint, staging, manifest).items():
            for target, compared in by_target.items():
                evaluation[task]["graphs"][target]["exits"] = compared
    with step("time exits"):
        timed = exit_proof.with_costs(open_bundle(staging, verify="size"))
    return replace(manifest, exits=timed, evaluation=evaluation)


def _timed(bundle: Bundle) -> tuple[Graph, ...]:
    """The graphs with their latency for one text of 32 tokens, timed in interleaved rounds."""
    graphs = bundle.manifest.graphs
    ids = np.random.default_rng(0).integers(0, bundle.manifest.backbone.vocabulary, (1, 32))
    mask = np.ones_like(ids)
    running = {graph.target: bundle_engine(bundle, graph) for graph in graphs}
    times = time_calls(
        {name: lambda engine=engine: engine.run(ids, mask) for name, engine in running.items()}  # type: ignore[misc]
    )
    for engine in running.values():
        engine.close()
    return tuple(replace(g, latency_ms=round(times[g.target].median, 3)) for g in graphs)
