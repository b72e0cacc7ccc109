"""New heads for a bundle that is out already; its encoder's files stay byte for byte."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtl_edge.bundle import MANIFEST, TOKENIZER, Bundle, Manifest
from mtl_edge.bundle.update import new_version
from mtl_edge.errors import ExportError
from mtl_edge.export.budget_search.frontier import FRONTIER
from mtl_edge.export.card import CARD
from mtl_edge.export.complete import complete
from mtl_edge.export.forms import add_forms
from mtl_edge.export.graphs import ort_format
from mtl_edge.export.graphs.capture import capture_heads
from mtl_edge.export.settings import DEFAULTS, Settings
from mtl_edge.export.step import step
from mtl_edge.export.targets import TARGETS
from mtl_edge.export.text import text_graph
from mtl_edge.training.checkpoint import Checkpoint

__all__ = ["replace_heads"]


def replace_heads(
    checkpoint: Checkpoint, bundle: Bundle, settings: Settings = DEFAULTS
) -> Manifest:
    """Give a bundle the checkpoint's heads; its encoder's files stay byte for byte.

    What else the bundle has of its graphs, with a tokenizer or in ONNX Runtime's format, is written
    anew as well. Proven like a new bundle; a failure leaves the bundle as it was, and the version
    before is kept beside it: see `mtl_edge.bundle.update`.

    Raises:
        ExportError: the bundle's encoder is not the checkpoint's, it has early exits, or a graph
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
        new_version(bundle.path, without=anew) as staging,
        tempfile.TemporaryDirectory(prefix="mtl-edge-") as work,
    ):
        with step("capture"):
            heads = Path(work) / "heads.onnx"
            capture_heads(checkpoint, heads)
        for graph in graphs:
            with step(f"heads of {graph.target}"):
                TARGETS[graph.target].format.replace_heads(bundle.path, heads, staging, graph.files)
        add_forms(staging, graphs, checkpoint.max_tokens, settings)
        reduced = _reduced_still(bundle)
        return complete(checkpoint, staging, graphs, reduced, settings.max_accuracy_drop)


def _reduced_still(bundle: Bundle) -> dict[str, Any]:
    """A bundle's account, without what was measured on rows of other tasks."""
    account = dict(bundle.manifest.reduced)
    if "vocabulary" in account:
        found = account["vocabulary"]
        account["vocabulary"] = {name: found[name] for name in ("tokens", "tokens_kept")}
    return account


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
