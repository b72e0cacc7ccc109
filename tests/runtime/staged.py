"""Bundles with stages, put together from bundles of one depth each."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx

from mtl_edge.bundle import Exit, ExitGraph, Graph, read_manifest, write_manifest

CARDS = {"README.md", "config.json", "tokenizer_config.json"}


def compose(
    out: Path, bundles: Sequence[Path], thresholds: Sequence[Mapping[str, float] | float]
) -> Path:
    """A bundle whose stages are these bundles, of the same tasks and targets.

    Args:
        bundles: the cheapest first, the one of full depth last.
        thresholds: for each but the last; a number is every task's.
    """
    *cheaper, whole = bundles
    shutil.copytree(whole, out)
    manifest = read_manifest(whole)
    exits: list[Exit] = []
    graphs: dict[str, list[ExitGraph]] = {graph.target: [] for graph in manifest.graphs}
    for folder, given in zip(cheaper, thresholds, strict=True):
        stage = read_manifest(folder)
        names = [task.name for task in stage.tasks]
        wanted = given if isinstance(given, Mapping) else dict.fromkeys(names, float(given))
        exits.append(
            Exit(
                depth=stage.depth,
                temperatures={task.name: task.temperature for task in stage.tasks},
                thresholds=dict(wanted),
                promise={"drop": 0.003, "confidence": 0.95, "method": "none: a test's"},
            )
        )
        for full, graph in zip(manifest.graphs, stage.graphs, strict=True):
            graphs[full.target].append(_placed(folder, graph, out, full, stage.depth))
    write_manifest(
        out,
        dataclasses.replace(
            manifest,
            exits=tuple(exits),
            graphs=tuple(
                dataclasses.replace(graph, exits=tuple(graphs[graph.target]))
                for graph in manifest.graphs
            ),
        ),
    )
    return out


def _placed(folder: Path, graph: Graph, out: Path, full: Graph, depth: int) -> ExitGraph:
    """Copy a graph's files under names of their own, but for what the full graph has as well."""
    names = {name: name.replace(".int8.", f".int8.exit{depth}.") for name in graph.files}
    for old, new in names.items():
        shutil.copyfile(folder / old, out / new)
    shared: set[str] = set()
    if graph.engine == "onnxruntime":
        shared = _renamed(out / names[graph.file], names, _tensors(out / full.file))
    files = (*(name for name in names.values() if name != names[graph.file]), *sorted(shared))
    return ExitGraph(names[graph.file], files, tuple(names[name] for name in graph.heads))


def _tensors(file: Path) -> dict[tuple[int, ...], tuple[dict[str, str], bytes]]:
    """A graph's tensors that lie in another file, by shape: where, and their bytes."""
    found = {}
    for tensor in onnx.load(file, load_external_data=False).graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}
        if place:
            start, length = int(place.get("offset", 0)), int(place["length"])
            data = (file.parent / place["location"]).read_bytes()[start : start + length]
            found[(tensor.data_type, *tensor.dims)] = place, data
    return found


def _renamed(
    file: Path,
    names: Mapping[str, str],
    others: Mapping[tuple[int, ...], tuple[dict[str, str], bytes]],
) -> set[str]:
    """Let a graph find its tensors, in the full graph's files where those hold the same bytes."""
    model = onnx.load(file, load_external_data=False)
    shared = set()
    for tensor in model.graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}
        if not place:
            continue
        place["location"] = names[place["location"]]
        start, length = int(place.get("offset", 0)), int(place["length"])
        data = (file.parent / place["location"]).read_bytes()[start : start + length]
        other, same = others.get((tensor.data_type, *tensor.dims), ({}, b""))
        if data == same:
            place = other
            shared.add(other["location"])
        for entry in tensor.external_data:
            entry.value = place[entry.key]
    onnx.save(model, file)
    return shared
