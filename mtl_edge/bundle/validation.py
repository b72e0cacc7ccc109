"""Validation of a manifest beyond its fields' types: names, paths, ranges and references."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import PurePosixPath

from mtl_edge.bundle.schema import (
    DOMAIN,
    MANIFEST,
    RESERVED,
    SIGNATURE,
    SUFFIXES,
    TASK_NAME,
    TOKENIZER,
    Exit,
    ExitGraph,
    FileEntry,
    Graph,
    Manifest,
    Task,
)
from mtl_edge.io.labels import is_plain

__all__ = ["check_manifest"]

MOST_TOKENS = 2**20
SHA256 = re.compile(r"[0-9a-f]{64}")
# What one system or another takes for more than a name: separators, streams, patterns, devices.
ODD_IN_NAMES = re.compile(r'[\x00-\x1f\x7f:*?"<>|]|[ .]$|^ ')
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def check_manifest(manifest: Manifest) -> None:
    """Check that a manifest is consistent, and that its paths and names are harmless.

    Raises:
        ValueError: it is not; the message says where.
    """
    _check_files(manifest)
    _require(bool(manifest.graphs), "it lists no graph")
    _require_distinct((graph.target for graph in manifest.graphs), "graph")
    for graph in manifest.graphs:
        _check_graph(graph)
    _require(bool(manifest.tasks), "it has no task")
    _require_distinct((task.name for task in manifest.tasks), "task")
    for task in manifest.tasks:
        _check_task(task)
    _check_domain(manifest)
    backbone = manifest.backbone
    _require(
        backbone.hidden_size > 0 and backbone.vocabulary > 0 and backbone.layers >= 0,
        "a size of the backbone is out of range",
    )
    _require(
        0 <= manifest.depth <= backbone.layers,
        f"depth is {manifest.depth}, expected 0 to {backbone.layers}",
    )
    _require(
        3 <= manifest.max_tokens <= MOST_TOKENS,
        f"max_tokens is {manifest.max_tokens}, expected 3 to {MOST_TOKENS:,}",
    )
    _check_exits(manifest)


def _check_files(manifest: Manifest) -> None:
    for entry in manifest.files:
        _check_entry(entry)
    # Two names that a file system without case, or with another form of accents, takes for one.
    _require_distinct(
        (unicodedata.normalize("NFC", e.path).casefold() for e in manifest.files), "file"
    )
    listed = {entry.path for entry in manifest.files}
    wanted = {TOKENIZER, *(name for graph in manifest.graphs for name in graph.all_files)}
    if missing := sorted(wanted - listed):
        raise ValueError(f"it names the file {missing[0]!r:.100} but lists no checksum for it")


def _check_entry(entry: FileEntry) -> None:
    path = PurePosixPath(entry.path)
    inside = not path.is_absolute() and ".." not in path.parts and "\\" not in entry.path
    _require(inside, f"{entry.path!r:.100} leads out of the bundle")
    regular = bool(path.parts) and str(path) == entry.path and len(entry.path) <= 255
    odd = any(ODD_IN_NAMES.search(part) or DEVICES.fullmatch(part) for part in path.parts)
    _require(regular and not odd, f"{entry.path!r:.100} is no name for a file on every system")
    own = entry.path.casefold() in (MANIFEST, SIGNATURE)
    _require(not own, f"{entry.path!r} cannot be listed in the manifest")
    _require(entry.size >= 0, f"{entry.path!r} has the size {entry.size}")
    _require(
        SHA256.fullmatch(entry.sha256) is not None,
        f"{entry.path!r}: {entry.sha256!r:.70} is no sha256 in hexadecimal",
    )


def _check_graph(graph: Graph) -> None:
    _require(is_plain(graph.target), f"{graph.target!r:.60} cannot name a graph")
    _require(
        graph.latency_ms is None or graph.latency_ms >= 0,
        f"graph {graph.target!r} has the latency {graph.latency_ms}",
    )
    stages: list[Graph | ExitGraph] = [graph, *graph.exits]
    for stage in stages:
        _check_stage(stage, graph)
    _require_distinct((stage.file for stage in stages), f"file of graph {graph.target!r}")


def _check_stage(stage: Graph | ExitGraph, graph: Graph) -> None:
    """The files of a graph of one depth."""
    _require_distinct(stage.files, f"file of graph {graph.target!r}")
    if strange := sorted(set(stage.heads) - set(stage.files)):
        raise ValueError(f"{strange[0]!r} is no file of graph {graph.target!r}")
    suffix = SUFFIXES.get(graph.engine)
    _require(
        suffix is None or stage.file.endswith(suffix),
        f"graph {graph.target!r}: {stage.file!r} does not end in {suffix}",
    )
    if graph.engine != "openvino":
        return
    for name in stage.files:
        _require(
            name.endswith((".xml", ".bin")),
            f"graph {graph.target!r}: {name!r} ends in neither .xml nor .bin",
        )
        # The engine opens the file of this name, if there is one, without being told to.
        weights = f"{name[:-4]}.bin"
        _require(
            weights in stage.files, f"graph {graph.target!r} has {name!r} but no file {weights!r}"
        )


def _check_exits(manifest: Manifest) -> None:
    depths = [stage.depth for stage in manifest.exits]
    rising = all(a < b for a, b in pairwise([-1, *depths, manifest.depth]))
    _require(rising, f"exits have the depths {depths}, expected 0 to {manifest.depth - 1}, rising")
    for graph in manifest.graphs:
        _require(
            len(graph.exits) == len(depths),
            f"graph {graph.target!r} has {len(graph.exits)} exits, expected {len(depths)}",
        )
    for stage in manifest.exits:
        _check_exit(stage, manifest.tasks)
        if manifest.domain is not None:
            _require_threshold_each(replace(manifest.domain, thresholds=stage.domain))
        _require(
            manifest.domain is not None or not stage.domain,
            f"the exit at depth {stage.depth} has thresholds of a domain that is not there",
        )


def _check_exit(stage: Exit, tasks: Sequence[Task]) -> None:
    where = f"the exit at depth {stage.depth}"
    names = {task.name for task in tasks}
    for field, values in (("temperatures", stage.temperatures), ("thresholds", stage.thresholds)):
        if wrong := sorted(names ^ values.keys()):
            raise ValueError(f"{where}: {field} are of other tasks: see {wrong[0]!r:.80}")
    for name, value in stage.temperatures.items():
        _require(value > 0, f"{where}: task {name!r} has the temperature {value}")
    for name, value in stage.thresholds.items():
        _require(
            value >= 0, f"{where}: task {name!r} has the threshold {value}, expected 0 or more"
        )
    if strange := sorted(stage.sure.keys() - names):
        raise ValueError(f"{where}: sure is of the unknown task {strange[0]!r:.80}")
    for task in tasks:
        _check_thresholds(task, stage.sure.get(task.name, ()))


def _check_task(task: Task) -> None:
    name = task.name
    _require(
        TASK_NAME.fullmatch(name) is not None and name not in RESERVED,
        f"{name!r:.80} cannot name a task: expected letters, digits, '_' and '-', and none of "
        f"{', '.join(RESERVED)}",
    )
    scored = task.kind == "score"
    _require(
        scored == (task.scale is not None) and not (scored and task.labels),
        f"task {name!r} of kind {task.kind} has the wrong one of labels and a scale",
    )
    least = {"single": 2, "multi": 1, "score": 0}[task.kind]
    _require(
        len(task.labels) >= least and all(map(is_plain, task.labels)),
        f"task {name!r} needs {least} or more labels, without control characters",
    )
    if task.scale is not None:
        _require(
            task.scale.width > 0 and task.scale.low <= task.scale.high and task.scale.spread >= 0,
            f"task {name!r} has a scale that is out of range",
        )
    if task.kind == "multi":
        _require_threshold_each(task)
    _require_distinct(task.labels, f"label of task {name!r}")
    _require(task.temperature > 0, f"task {name!r} has the temperature {task.temperature}")
    _check_thresholds(task, task.thresholds)


def _check_domain(manifest: Manifest) -> None:
    domain = manifest.domain
    if domain is None:
        return
    names = {task.name for task in manifest.tasks}
    _require(
        domain.name == DOMAIN and domain.kind == "multi" and domain.scale is None,
        f"domain is {domain.name!r:.80} of kind {domain.kind}, expected {DOMAIN!r} of kind multi",
    )
    _require(
        bool(domain.labels) and names.issuperset(domain.labels),
        "domain has a label that is no task, or none at all",
    )
    _require_distinct(domain.labels, "label of domain")
    _require(domain.temperature > 0, f"domain has the temperature {domain.temperature}")
    _require_threshold_each(domain)
    _check_thresholds(domain, domain.thresholds)


def _require_threshold_each(task: Task) -> None:
    _require(
        len(task.thresholds) == len(task.labels),
        f"task {task.name!r} of kind multi needs a threshold for each label",
    )


def _check_thresholds(task: Task, thresholds: Sequence[float]) -> None:
    _require(
        len(thresholds) in (0, len(task.labels)) and all(t >= 0 for t in thresholds),
        f"task {task.name!r} needs a threshold of 0 or more for each label, or none",
    )


def _require_distinct(names: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        _require(name not in seen, f"the {what} {name!r:.100} comes twice")
        seen.add(name)


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)
