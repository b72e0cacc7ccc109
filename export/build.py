"""A checkpoint becomes a bundle: built, proven, written whole."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtl_edge.bundle import TOKENIZER, Exit, ExitGraph, Graph, Manifest
from mtl_edge.export.complete import complete
from mtl_edge.export.early_exit.exit_choice import fitted_exits
from mtl_edge.export.forms import add_forms
from mtl_edge.export.graphs.capture import capture_heads
from mtl_edge.export.graphs.source import Source, captured
from mtl_edge.export.int8.refit import refitted
from mtl_edge.export.int8.word_table import share_kept
from mtl_edge.export.proof import held_out
from mtl_edge.export.settings import DEFAULTS, Settings
from mtl_edge.export.step import step
from mtl_edge.export.targets import DEFAULT, TARGETS, Target
from mtl_edge.export.text import text_graph
from mtl_edge.io.folders import require_cache, staged_folder
from mtl_edge.training.checkpoint import Checkpoint
from mtl_edge.training.states import StateCache

__all__ = ["export"]


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
        with step("fit exits"):
            exits = fitted_exits(checkpoint, settings.promise)
    with (
        staged_folder(out, overwrite=overwrite) as staging,
        tempfile.TemporaryDirectory(prefix="mtl-edge-") as work,
    ):
        with step("capture"):
            source = captured(checkpoint, Path(work), settings)
            heads = Path(work) / "heads.onnx"
            capture_heads(checkpoint, heads)
        encoders = {}
        for name in targets:
            with step(f"build {name}"):
                target = TARGETS[name]
                encoders[name] = target.encoder(source)
                target.format.write(encoders[name], heads, staging, target.files)
        checkpoint.backbone.text_encoder(checkpoint.max_tokens).save(staging / TOKENIZER)
        checkpoint.backbone.describe(staging, checkpoint.max_tokens)
        graphs = tuple(TARGETS[name].graph(name) for name in targets)
        reduced = _reduced(checkpoint, source)
        before = {}
        if settings.refit:
            before = complete(checkpoint, staging, graphs, reduced, float("inf")).evaluation
            for name in (n for n in targets if TARGETS[n].precision == "int8"):
                _refit(checkpoint, source, encoders[name], staging, TARGETS[name], settings)
        graphs = _with_exits(checkpoint, exits, graphs, staging, Path(work), settings)
        add_forms(staging, graphs, checkpoint.max_tokens, settings)
        return complete(
            checkpoint, staging, graphs, reduced, settings.max_accuracy_drop, before, exits
        )


def _with_exits(
    checkpoint: Checkpoint,
    exits: Sequence[Exit],
    graphs: Sequence[Graph],
    staging: Path,
    work: Path,
    settings: Settings,
) -> tuple[Graph, ...]:
    """The graphs with their early exits, which are written beside them."""
    found: dict[str, list[ExitGraph]] = {graph.target: [] for graph in graphs}
    for depth in (one.depth for one in exits):
        folder = work / f"exit{depth}"
        folder.mkdir()
        with step(f"build exit at depth {depth}"):
            shallow = checkpoint.at(depth)
            source = captured(shallow, folder, settings)
            heads = folder / "heads.onnx"
            capture_heads(shallow, heads)
            for name, built in found.items():
                target = TARGETS[name]
                built.append(target.write_exit(target.encoder(source), heads, staging, depth))
    return tuple(replace(graph, exits=tuple(found[graph.target])) for graph in graphs)


def _reduced(checkpoint: Checkpoint, source: Source) -> dict[str, Any]:
    """An account of what the word tables were made smaller by, for the manifest."""
    account: dict[str, Any] = {"embeddings": "4bit"} if source.settings.four_bits else {}
    if source.words.kept is not None:
        tokenizer = checkpoint.backbone.text_encoder(checkpoint.max_tokens)
        rows = [s.text for own in held_out(checkpoint).values() for s in own]
        account["vocabulary"] = {
            "tokens": checkpoint.backbone.info.vocabulary,
            "tokens_kept": len(source.words.kept),
            "share_of_held_out_tokens_kept": share_kept(tokenizer(rows), source.words.kept),
        }
    return account


def _refit(
    checkpoint: Checkpoint,
    source: Source,
    encoder: Any,
    staging: Path,
    target: Target,
    settings: Settings,
) -> None:
    """Give a written graph heads that were fitted to its own encoder."""
    tokenizer = checkpoint.backbone.text_encoder(checkpoint.max_tokens)
    cache = StateCache(settings.cache, settings.cache_limit)
    states = target.format.states(encoder, source)
    heads = refitted(checkpoint, states, tokenizer(settings.refit), cache)
    file = source.file.with_name("refitted.onnx")
    capture_heads(replace(checkpoint, heads=heads), file)
    target.format.replace_heads(staging, file, staging, target.files)
