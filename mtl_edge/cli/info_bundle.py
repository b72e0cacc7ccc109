"""What `mtl-edge info` says of a bundle: its tasks, stages and graphs as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtl_edge import engines
from mtl_edge.bundle import Bundle, Exit, Task
from mtl_edge.choosing import Choice
from mtl_edge.io.labels import label_list
from mtl_edge.table import clip, text_table

__all__ = ["describe"]


def describe(bundle: Bundle, choice: Choice | None) -> str:
    """A bundle's manifest for a terminal.

    Args:
        choice: the graph that `auto` takes here; None: none can run.
    """
    manifest = bundle.manifest
    backbone = manifest.backbone
    tasks = [[t.name, _labels(t), f"{t.temperature:.2f}"] for t in manifest.tasks]
    graphs = [
        [
            graph.target,
            graph.engine,
            "yes" if engines.available(graph.engine) else "no",
            graph.precision,
            f"{bundle.size_of(graph) / 1e6:.1f}",
            "" if graph.latency_ms is None else f"{graph.latency_ms:.2f}",
            "auto" if choice and graph == choice.graph else "",
        ]
        for graph in manifest.graphs
    ]
    total = sum(entry.size for entry in manifest.files)
    stages = [_stages(manifest.exits, manifest.depth), ""] if manifest.exits else []
    return "\n".join(
        [
            f"{bundle.path}",
            f"backbone {backbone.name} ({backbone.architecture}, {backbone.hidden_size} wide, "
            f"{manifest.depth} of {backbone.layers} layers), at most {manifest.max_tokens} tokens",
            f"{len(manifest.files)} files, {total / 1e6:.1f} MB, every sha256 as the manifest says",
            "",
            text_table(["task", "labels", "temperature"], tasks),
            "",
            *stages,
            text_table(
                ["graph", "engine", "installed", "precision", "MB", "ms at export", "chosen by"],
                graphs,
            ),
        ]
    )


def _labels(task: Task) -> str:
    """A task's labels, each with its threshold, if it has one; or the range of its scores."""
    if task.scale is not None:
        scale = task.scale
        return f"a score from {scale.low:g} to {scale.high:g}, ± {scale.spread:.2g}"
    if task.kind == "multi":
        pairs = zip(task.labels, task.thresholds, strict=True)
        return "several of " + label_list([f"{name} (from {value:.2f})" for name, value in pairs])
    if not task.thresholds:
        return label_list(task.labels)
    pairs = zip(task.labels, task.thresholds, strict=True)
    return label_list(
        [
            f"{label} ({f'sure from {value:.2f}' if value <= 1 else 'never sure'})"
            for label, value in pairs
        ]
    )


def _stages(exits: Sequence[Exit], depth: int) -> str:
    """What each cheaper stage answers, and what was promised of it."""
    rows = [
        [
            f"depth {stage.depth}",
            task,
            f"{threshold:.3f}" if threshold <= 1 else "never",
            f"{stage.temperatures[task]:.2f}",
            _share(stage.promise, "exit_rate", task),
            _share(stage.promise, "measured_drop", task),
        ]
        for stage in exits
        for task, threshold in stage.thresholds.items()
    ]
    rows.append([f"depth {depth}", "all that is left", "", "", "", ""])
    header = ["stage", "answers", "sure from", "temperature", "share that stays %", "drop %"]
    promises = [
        f"promise at depth {stage.depth}: {_promise_line(stage.promise)}"
        for stage in exits if stage.promise
    ]  # fmt: skip
    return "\n".join([text_table(header, rows), *promises])


def _share(promise: Mapping[str, Any], name: str, task: str) -> str:
    """A task's share in percent; empty if the promise, which is not validated, has none."""
    values = promise.get(name)
    value = values.get(task) if isinstance(values, dict) else None
    return f"{100 * value:.2f}" if isinstance(value, int | float) else ""


def _promise_line(promise: Mapping[str, Any]) -> str:
    """A promise on one line, without the shares that the table shows."""
    parts = []
    for name, value in promise.items():
        if name in ("exit_rate", "measured_drop"):
            continue
        inner = value.items() if isinstance(value, dict) else [("", value)]
        said = ", ".join(f"{key} {one}".strip() for key, one in inner)
        parts.append(f"{name} {said}")
    return clip("; ".join(parts), 1000)
