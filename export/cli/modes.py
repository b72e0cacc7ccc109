"""What `mtl-edge export` does, a function for each way to ask for it; each prints its summary."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from mtl_edge.bundle import open_bundle
from mtl_edge.bundle.update import previous_of, write_update
from mtl_edge.cli.reading import note
from mtl_edge.export.budget_search.budget import Limit
from mtl_edge.export.budget_search.search import search
from mtl_edge.export.build import export
from mtl_edge.export.cli.budget_options import frontier_summary
from mtl_edge.export.cli.prepare import checkpoint_of, promise_with, settings_of
from mtl_edge.export.cli.summary import noise_table, summary
from mtl_edge.export.graphs import openvino_graph
from mtl_edge.export.graphs.source import captured
from mtl_edge.export.heads_only import replace_heads
from mtl_edge.export.int8 import int8_openvino
from mtl_edge.export.int8.explain import noise_of, noise_of_openvino
from mtl_edge.export.options import ExportOptions
from mtl_edge.export.settings import Settings
from mtl_edge.export.targets import targets_of
from mtl_edge.io.folders import require_free
from mtl_edge.training.checkpoint import load_checkpoint

__all__ = ["best_within", "explain", "new_bundle", "new_heads"]


def new_bundle(checkpoint: Path, out: Path, options: ExportOptions, *, overwrite: bool) -> None:
    """Write a bundle of the checkpoint."""
    require_free(out, overwrite=overwrite)
    loaded = checkpoint_of(checkpoint, options)
    targets = targets_of(options.targets)
    print(summary(export(loaded, out, targets, overwrite, settings_of(options))))


def best_within(
    limits: Sequence[Limit], checkpoint: Path, out: Path, options: ExportOptions, *, overwrite: bool
) -> None:
    """Write the best bundle within a budget."""
    require_free(out, overwrite=overwrite)
    loaded = checkpoint_of(checkpoint, options)
    settings, promise = settings_of(options), promise_with(options, None)
    manifest, frontier = search(
        loaded, out, targets_of(options.targets), limits, promise, settings, overwrite
    )
    print(f"{frontier_summary(frontier)}\n")
    print(summary(manifest))


def new_heads(checkpoint: Path, into: Path, options: ExportOptions, *, update: Path | None) -> None:
    """Give the bundle `into` the checkpoint's heads; the file `update` gets what changed."""
    bundle = open_bundle(into)
    loaded = load_checkpoint(checkpoint)
    if bundle.manifest.depth in loaded.shallower:
        loaded = loaded.at(bundle.manifest.depth)
    kept = {task.name for task in loaded.tasks}
    if gone := [task.name for task in bundle.manifest.tasks if task.name not in kept]:
        note(f"the checkpoint has no task {', '.join(gone)}; it goes")
    settings = Settings(max_accuracy_drop=options.max_accuracy_drop)
    print(summary(replace_heads(loaded, bundle, settings)))
    print(f"\nthe version before is {previous_of(into)}")
    if update is not None:
        size = write_update(open_bundle(previous_of(into), verify="size"), into, update)
        print(f"update {update}, {size / 1e6:.2f} MB")


def explain(checkpoint: Path, options: ExportOptions) -> None:
    """Print each product's noise in int8, a table for each engine that is exported to."""
    loaded, settings = checkpoint_of(checkpoint, options), settings_of(options)
    tables = []
    with tempfile.TemporaryDirectory(prefix="mtl-edge-") as work:
        source = captured(loaded, Path(work), settings)
        if "onnx-int8" in options.targets:
            noises = noise_of(
                source.prepared(), source.width, source.calibration, settings.reduce_range
            )
            tables.append(f"onnx-int8\n\n{noise_table(noises)}")
        if "openvino-int8" in options.targets:
            exact = openvino_graph.read(source.file)
            rounded = int8_openvino.quantize(source)
            noises = noise_of_openvino(exact, rounded, source.calibration)
            tables.append(f"openvino-int8\n\n{noise_table(noises)}")
    print(
        "\n\n".join(tables) + "\n\nsignal to noise of each product in int8, in decibels: its own, "
        "and with that of all before it\nof onnx-int8, `--keep-worst N` leaves the noisiest in "
        "float32"
    )
