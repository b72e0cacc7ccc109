"""A checkpoint becomes a bundle, or a bundle gets its heads: built, proven, written whole."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from mtl_edge.bundle import (
    MANIFEST,
    SCHEMA,
    TOKENIZER,
    Bundle,
    Exit,
    ExitGraph,
    Graph,
    Manifest,
    open_bundle,
    write_manifest,
)
from mtl_edge.bundle.update import new_version
from mtl_edge.choosing import bundle_engine
from mtl_edge.errors import ExportError, OptionError
from mtl_edge.export import ort_format, stages, text_graph
from mtl_edge.export.capture import capture_encoder, capture_heads
from mtl_edge.export.card import CARD, model_card
from mtl_edge.export.frontier import FRONTIER
from mtl_edge.export.proof import evaluate, held_out
from mtl_edge.export.refit import refitted
from mtl_edge.export.settings import DEFAULTS, Settings
from mtl_edge.export.smaller import share_kept, used_tokens
from mtl_edge.export.targets import DEFAULT, TARGETS, Source, Target
from mtl_edge.io.folders import require_cache, staged_folder
from mtl_edge.timing import alternate
from mtl_edge.training.checkpoint import Checkpoint
from mtl_edge.training.states import StateCache

__all__ = ["captured", "export", "replace_heads"]

PACKAGES = ("torch", "transformers", "onnx", "onnxruntime", "openvino", "nncf", "tokenizers")


def export(
    checkpoint: Checkpoint,
    out: Path,
    targets: Sequence[str] = DEFAULT,
    overwrite: bool = False,
    settings: Settings = DEFAULTS,
) -> Manifest:
    """Build, prove and write a bundle; a failure leaves what was at `out` as it was.

    Raises:
        ExportError: a graph could not be built, or is not faithful to the checkpoint.
        MissingPackageError: `with_tokenizer` needs a package that is not installed.
        OptionError: settings that do not fit the backbone, or a promise that cannot be made.
        OutputExistsError: `out` exists and `overwrite` is false.
    """
    if settings.with_tokenizer:
        text_graph.require_packages({TARGETS[name].engine for name in targets})
    if settings.refit:
        require_cache(settings.cache)
    exits: tuple[Exit, ...] = ()
    if settings.promise is not None:
        with _step("fit exits"):
            exits = stages.fitted(checkpoint, settings.promise)
    with (
        staged_folder(out, overwrite=overwrite) as stage,
        tempfile.TemporaryDirectory(prefix="mtl-edge-") as work,
    ):
        with _step("capture"):
            source = captured(checkpoint, Path(work), settings)
            heads = Path(work) / "heads.onnx"
            capture_heads(checkpoint, heads)
        encoders = {}
        for name in targets:
            with _step(f"build {name}"):
                target = TARGETS[name]
                encoders[name] = target.encoder(source)
                target.form.write(encoders[name], heads, stage, target.files)
        checkpoint.backbone.text_encoder(checkpoint.max_tokens).save(stage / TOKENIZER)
        checkpoint.backbone.describe(stage, checkpoint.max_tokens)
        graphs = tuple(TARGETS[name].graph(name) for name in targets)
        reduced = _reduced(checkpoint, source)
        before = {}
        if settings.refit:
            before = _proven(checkpoint, stage, graphs, reduced, float("inf")).evaluation
            for name in (n for n in targets if TARGETS[n].precision == "int8"):
                _refit(checkpoint, source, encoders[name], stage, TARGETS[name], settings)
        graphs = _with_exits(checkpoint, exits, graphs, stage, Path(work), settings)
        _add_forms(stage, graphs, checkpoint.max_tokens, settings)
        return _proven(
            checkpoint, stage, graphs, reduced, settings.max_accuracy_drop, before, exits
        )


def _with_exits(
    checkpoint: Checkpoint,
    exits: Sequence[Exit],
    graphs: Sequence[Graph],
    stage: Path,
    work: Path,
    settings: Settings,
) -> tuple[Graph, ...]:
    """The graphs with cheaper stages, which are written beside them."""
    found: dict[str, list[ExitGraph]] = {graph.target: [] for graph in graphs}
    for depth in (one.depth for one in exits):
        folder = work / f"exit{depth}"
        folder.mkdir()
        with _step(f"build exit at depth {depth}"):
            shallow = checkpoint.at(depth)
            source = captured(shallow, folder, settings)
            heads = folder / "heads.onnx"
            capture_heads(shallow, heads)
            for name, built in found.items():
                target = TARGETS[name]
                built.append(target.write_exit(target.encoder(source), heads, stage, depth))
    return tuple(replace(graph, exits=tuple(found[graph.target])) for graph in graphs)


def _add_forms(stage: Path, graphs: Sequence[Graph], max_tokens: int, settings: Settings) -> None:
    """Write what is asked for besides the graphs."""
    of_onnxruntime = [graph for graph in graphs if graph.engine == "onnxruntime"]
    if settings.with_tokenizer:
        with _step("tokenizer"):
            for graph in of_onnxruntime:
                name = text_graph.name_of(graph.file)
                text_graph.with_tokenizer_onnx(stage, graph.file, name, max_tokens)
            if len(of_onnxruntime) < len(graphs):
                text_graph.with_tokenizer_openvino(stage, text_graph.OPENVINO, max_tokens)
    if settings.ort:
        with _step("ort"):
            for graph in of_onnxruntime:
                ort_format.write_ort(stage, graph.file)


def _reduced(checkpoint: Checkpoint, source: Source) -> dict[str, Any]:
    """An account of what the word tables were made smaller by, for the manifest."""
    account: dict[str, Any] = {"embeddings": "4bit"} if source.settings.four_bits else {}
    if source.kept is not None:
        tokenizer = checkpoint.backbone.text_encoder(checkpoint.max_tokens)
        rows = [s.text for own in held_out(checkpoint).values() for s in own]
        account["vocabulary"] = {
            "tokens": checkpoint.backbone.info.vocabulary,
            "tokens_kept": len(source.kept),
            "share_of_held_out_tokens_kept": share_kept(tokenizer(rows), source.kept),
        }
    return account


def _reduced_still(bundle: Bundle) -> dict[str, Any]:
    """A bundle's account, without what was measured on rows of other tasks."""
    account = dict(bundle.manifest.reduced)
    if "vocabulary" in account:
        found = account["vocabulary"]
        account["vocabulary"] = {name: found[name] for name in ("tokens", "tokens_kept")}
    return account


def _refit(
    checkpoint: Checkpoint,
    source: Source,
    encoder: Any,
    stage: Path,
    target: Target,
    settings: Settings,
) -> None:
    """Give a written graph heads that were fitted to its own encoder."""
    tokenizer = checkpoint.backbone.text_encoder(checkpoint.max_tokens)
    cache = StateCache(settings.cache, settings.cache_limit)
    states = target.form.states(encoder, source)
    heads = refitted(checkpoint, states, tokenizer(settings.refit), cache)
    file = source.file.with_name("refitted.onnx")
    capture_heads(replace(checkpoint, heads=heads), file)
    target.form.replace_heads(stage, file, stage, target.files)


def replace_heads(
    checkpoint: Checkpoint, bundle: Bundle, settings: Settings = DEFAULTS
) -> Manifest:
    """Give a bundle the checkpoint's heads; its encoder's files stay byte for byte.

    What else the bundle has of its graphs, with a tokenizer or in ONNX Runtime's format, is written
    anew as well. Proven like a new bundle; a failure leaves the bundle as it was, and the version
    before is kept beside it: see `mtl_edge.bundle.update`.

    Raises:
        ExportError: the bundle's encoder is not the checkpoint's, it has cheaper stages, or a graph
            is not faithful to the checkpoint.
    """
    if bundle.manifest.exits:
        raise ExportError(
            "the bundle has cheaper stages, whose thresholds hold for its own heads alone; export "
            "a bundle of its own with --exits"
        )
    _require_same_encoder(checkpoint, bundle)
    graphs = bundle.manifest.graphs
    listed = {entry.path for entry in bundle.manifest.files}
    texts = {text_graph.name_of(graph.file) for graph in graphs} & listed
    orts = {name for graph in graphs for name in ort_format.names_of(graph.file)} & listed
    settings = replace(settings, with_tokenizer=bool(texts), ort=bool(orts))
    if settings.with_tokenizer:
        text_graph.require_packages({graph.engine for graph in graphs})
    # What the bundle was once chosen from was measured with the heads before.
    anew = {
        MANIFEST,
        CARD,
        FRONTIER,
        *(name for graph in graphs for name in graph.heads),
        *texts,
        *orts,
    }
    with (
        new_version(bundle.path, without=anew) as stage,
        tempfile.TemporaryDirectory(prefix="mtl-edge-") as work,
    ):
        with _step("capture"):
            heads = Path(work) / "heads.onnx"
            capture_heads(checkpoint, heads)
        for graph in graphs:
            with _step(f"heads of {graph.target}"):
                form = TARGETS[graph.target].form
                form.replace_heads(bundle.path, heads, stage, graph.files)
        _add_forms(stage, graphs, checkpoint.max_tokens, settings)
        reduced = _reduced_still(bundle)
        return _proven(checkpoint, stage, graphs, reduced, settings.max_accuracy_drop)


def captured(checkpoint: Checkpoint, work: Path, settings: Settings = DEFAULTS) -> Source:
    """The checkpoint's encoder as every target takes it.

    Raises:
        OptionError: the vocabulary is to be trimmed and the tokenizer has no unknown token.
    """
    encoder = checkpoint.backbone.text_encoder(checkpoint.max_tokens)
    calibration = encoder([s.text for s in checkpoint.samples if s.split == "calibration"])
    file = work / "encoder.onnx"
    capture_encoder(checkpoint, file)
    source = Source(file, checkpoint.backbone, checkpoint.depth, calibration, settings)
    if not settings.vocabulary:
        return source
    unknown, special = checkpoint.backbone.special_tokens()
    if unknown is None:
        raise OptionError(
            "--vocabulary: the backbone's tokenizer has no unknown token to stand for the others; "
            "leave the option out"
        )
    return replace(source, kept=used_tokens(encoder(settings.vocabulary), special), unknown=unknown)


def _require_same_encoder(checkpoint: Checkpoint, bundle: Bundle) -> None:
    manifest = bundle.manifest
    tokenizer = checkpoint.backbone.text_encoder(checkpoint.max_tokens).to_json()
    for what, wanted, got in (
        ("backbone", manifest.backbone.sha256, checkpoint.backbone.info.sha256),
        ("depth", manifest.depth, checkpoint.depth),
        ("maximum of tokens", manifest.max_tokens, checkpoint.max_tokens),
        ("tokenizer", bundle.file(TOKENIZER).read_text(encoding="utf-8"), tokenizer),
    ):
        if wanted != got:
            raise ExportError(
                f"the bundle has another {what} than the checkpoint ({wanted!s:.20}, not "
                f"{got!s:.20}); heads belong to the encoder that they were taught on: export a "
                "bundle of its own"
            )
    if unknown := [g.target for g in manifest.graphs if g.target not in TARGETS]:
        raise ExportError(
            f"the bundle has a graph {unknown[0]!r}, which this release does not make; export a "
            "bundle of its own"
        )


def _proven(
    checkpoint: Checkpoint,
    stage: Path,
    graphs: Sequence[Graph],
    reduced: Mapping[str, Any],
    max_accuracy_drop: float,
    before: Mapping[str, Any] = MappingProxyType({}),
    exits: Sequence[Exit] = (),
) -> Manifest:
    """Measure what is in `stage`, and complete it with manifest and model card.

    Full depth is compared with torch by itself, then its stages with full depth.

    Args:
        before: the evaluation before heads were refitted, for the record.
        exits: cheaper stages that the graphs have.
    """
    exit_graphs = [graph.exits for graph in graphs]
    graphs = [replace(graph, exits=()) for graph in graphs]
    manifest = Manifest(
        schema=SCHEMA,
        tasks=checkpoint.tasks,
        backbone=checkpoint.backbone.info,
        depth=checkpoint.depth,
        max_tokens=checkpoint.max_tokens,
        graphs=tuple(graphs),
        reduced=dict(reduced),
        versions={name: version(name) for name in ("mtl-edge", *PACKAGES)},
    )
    write_manifest(stage, manifest)
    with _step("compare with torch"):
        evaluation = evaluate(checkpoint, stage, [g.target for g in graphs], max_accuracy_drop)
    for task, found in before.items():
        for target, score in found["graphs"].items():
            if TARGETS[target].precision == "int8":
                evaluation[task]["graphs"][target]["before_refit"] = score
    with _step("time"):
        graphs = _timed(open_bundle(stage, verify="size"))
    if exits:
        graphs = tuple(replace(g, exits=e) for g, e in zip(graphs, exit_graphs, strict=True))
        manifest = replace(manifest, graphs=graphs, exits=tuple(exits))
        write_manifest(stage, manifest)
        with _step("compare with full depth"):
            for task, by_target in stages.prove(checkpoint, stage, manifest).items():
                for target, compared in by_target.items():
                    evaluation[task]["graphs"][target]["exits"] = compared
        with _step("time exits"):
            manifest = replace(manifest, exits=stages.timed(open_bundle(stage, verify="size")))
    manifest = replace(manifest, graphs=graphs, evaluation=evaluation)
    (stage / CARD).write_text(model_card(manifest), encoding="utf-8")
    write_manifest(stage, manifest)
    return manifest


def _timed(bundle: Bundle) -> tuple[Graph, ...]:
    """The graphs with their latency for one text of 32 tokens, timed in alternation."""
    graphs = bundle.manifest.graphs
    ids = np.random.default_rng(0).integers(0, bundle.manifest.backbone.vocabulary, (1, 32))
    mask = np.ones_like(ids)
    running = {graph.target: bundle_engine(bundle, graph) for graph in graphs}
    times = alternate(
        {name: lambda engine=engine: engine.run(ids, mask) for name, engine in running.items()}  # type: ignore[misc]
    )
    for engine in running.values():
        engine.close()
    return tuple(replace(g, latency_ms=round(times[g.target].median, 3)) for g in graphs)


@contextmanager
def _step(name: str) -> Iterator[None]:
    """Say what is being done and how long it took."""
    started = time.monotonic()
    print(f"export: {name} ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    except BaseException:
        print(" failed", file=sys.stderr)
        raise
    print(f" {time.monotonic() - started:.1f} s", file=sys.stderr)
