"""`mtl-edge info`: what a bundle holds, after every file was verified, and what runs it here."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl_edge import engines
from mtl_edge.bundle import Bundle, Exit, Task, open_bundle
from mtl_edge.bundle.signing import is_signed
from mtl_edge.choosing import Choice, Measure, choose, machine, measuring
from mtl_edge.choosing.measurement import SHAPES
from mtl_edge.engines import onnxruntime_wheels
from mtl_edge.engines.cores import default_threads
from mtl_edge.errors import MissingPackageError
from mtl_edge.table import clip, text_table

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, help="a bundle's folder")
    parser.add_argument("--json", action="store_true", help="the manifest as JSON")
    parser.add_argument(
        "--public-key", type=Path, metavar="FILE", help="the bundle must be signed with this key"
    )
    parser.add_argument(
        "--engines", action="store_true", help="also what runs it on this machine, and how fast"
    )
    parser.add_argument(
        "--measure", action="store_true", help="measure that anew; implies --engines"
    )
    parser.add_argument(
        "--threads", type=int, help="that will be used; default: the physical cores, at most 8"
    )
    parser.add_argument(
        "--device", default=engines.CPU, help="that will be used; default: %(default)s"
    )


def run(args: argparse.Namespace) -> None:
    bundle = open_bundle(args.bundle, verify="full", public_key=args.public_key)
    choice, missing = _choice(bundle, args)
    with_engines = args.engines or args.measure
    facts = _facts(bundle, choice, missing, args) if with_engines else None
    if args.json:
        content = dataclasses.asdict(bundle.manifest)
        print(json.dumps(content | ({"on_this_machine": facts} if facts else {}), indent=2))
        return
    print(_describe(bundle, choice))
    if args.public_key:
        print(f"\nsigned with the key that belongs to {args.public_key}")
    elif is_signed(bundle.path):
        print("\nsigned; by whom, --public-key tells")
    if facts:
        print()
        print(_as_text(facts))


def _choice(bundle: Bundle, args: argparse.Namespace) -> tuple[Choice | None, str]:
    """What `auto` takes, without measuring unless told to; or why it takes nothing."""
    known: Measure = "read" if measuring() else "never"
    try:
        choice = choose(
            bundle,
            setup=engines.Setup(args.threads, device=args.device),
            measure="anew" if args.measure else known,
        )
    except MissingPackageError as error:
        return None, str(error)
    if choice.started is not None:
        choice.started.close()
    return choice, ""


def _facts(
    bundle: Bundle, choice: Choice | None, missing: str, args: argparse.Namespace
) -> dict[str, Any]:
    """What is known of each graph and each engine that can open it, for people and programs."""
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
    """Of an engine that is installed."""
    if not engines.available(engine):
        return None
    return machine.version_of(engines.ENGINES[engine].package)


def _as_text(facts: dict[str, Any]) -> str:
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


def _labels(task: Task) -> str:
    """Labels, each with the probability from which on it is sure, if there is one."""
    if not task.thresholds:
        return ", ".join(task.labels)
    pairs = zip(task.labels, task.thresholds, strict=True)
    return ", ".join(
        f"{label} ({f'sure from {value:.2f}' if value <= 1 else 'never sure'})"
        for label, value in pairs
    )


def _describe(bundle: Bundle, choice: Choice | None) -> str:
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
        f"promise at depth {stage.depth}: {_said(stage.promise)}"
        for stage in exits if stage.promise
    ]  # fmt: skip
    return "\n".join([text_table(header, rows), *promises])


def _share(promise: Mapping[str, Any], name: str, task: str) -> str:
    """A task's share in percent, if the promise has it: nobody checks what is in one."""
    values = promise.get(name)
    value = values.get(task) if isinstance(values, dict) else None
    return f"{100 * value:.2f}" if isinstance(value, int | float) else ""


def _said(promise: Mapping[str, Any]) -> str:
    """What a promise says beside the shares of the table, on one line."""
    parts = []
    for name, value in promise.items():
        if name in ("exit_rate", "measured_drop"):
            continue
        inner = value.items() if isinstance(value, dict) else [("", value)]
        said = ", ".join(f"{key} {one}".strip() for key, one in inner)
        parts.append(f"{name} {said}")
    return clip("; ".join(parts), 1000)
