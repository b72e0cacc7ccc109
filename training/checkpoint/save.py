"""A checkpoint to a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import tomli_w
from torch import nn

from mtl_edge.bundle import FileEntry
from mtl_edge.io.folders import sha256_of, staged_folder
from mtl_edge.training.checkpoint.checkpoint import Checkpoint
from mtl_edge.training.checkpoint.layout import (
    BACKBONE,
    CONFIG,
    FOLDS,
    HEADS,
    METRICS,
    RECORD,
    SAMPLES,
    SCHEMA,
    heads_file,
    save_folds,
)
from mtl_edge.training.drawing import drawn
from mtl_edge.training.figures import draw_curves, draw_errors
from mtl_edge.training.heads import Head

__all__ = ["save_checkpoint"]


def save_checkpoint(checkpoint: Checkpoint, folder: Path, *, overwrite: bool = False) -> None:
    """Write a checkpoint whole or not at all.

    Raises:
        OutputExistsError: `folder` exists and `overwrite` is false.
    """
    with staged_folder(folder, overwrite=overwrite) as stage:
        _write_weights(checkpoint, stage)
        with (stage / SAMPLES).open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(sample)) + "\n" for sample in checkpoint.samples)
        if checkpoint.config:
            (stage / CONFIG).write_text(tomli_w.dumps(checkpoint.config), encoding="utf-8")
        if checkpoint.metrics:
            lines = "".join(json.dumps(line) + "\n" for line in checkpoint.metrics)
            (stage / METRICS).write_text(lines, encoding="utf-8")
        text = json.dumps(_record(checkpoint, stage), indent=2, ensure_ascii=False)
        (stage / RECORD).write_text(text + "\n", encoding="utf-8")
    if checkpoint.metrics:
        drawn(folder / "curves.png", draw_curves, checkpoint.metrics)
    measured = [t for t in checkpoint.tasks if checkpoint.report.get(t.name, {}).get("head")]
    if measured:
        drawn(folder / "confusion.png", draw_errors, measured, checkpoint.report)


def _write_weights(checkpoint: Checkpoint, stage: Path) -> None:
    names = [task.name for task in checkpoint.tasks]
    shallower = {heads_file(depth): heads for depth, heads in checkpoint.shallower.items()}
    for name, heads in {HEADS: checkpoint.heads, **shallower}.items():
        modules = nn.ModuleList(heads[task] for task in names)
        safetensors.torch.save_file(modules.state_dict(), stage / name)
    if checkpoint.out_of_fold:
        save_folds(checkpoint.out_of_fold, names, stage / FOLDS)
    checkpoint.backbone.save(stage / BACKBONE)


def _record(checkpoint: Checkpoint, stage: Path) -> dict[str, Any]:
    """The content of checkpoint.json; all other files are in `stage` already."""
    names = [task.name for task in checkpoint.tasks]
    return {
        "schema": SCHEMA,
        "tasks": [asdict(task) for task in checkpoint.tasks],
        "heads": _configs(checkpoint.heads, names),
        "shallower": {
            str(depth): _configs(heads, names) for depth, heads in checkpoint.shallower.items()
        },
        "backbone": asdict(checkpoint.backbone.info),
        "depth": checkpoint.depth,
        "max_tokens": checkpoint.max_tokens,
        "report": checkpoint.report,
        "run": checkpoint.run,
        "files": [
            asdict(FileEntry(p.relative_to(stage).as_posix(), p.stat().st_size, sha256_of(p)))
            for p in sorted(stage.rglob("*"))
            if p.is_file()
        ],
    }


def _configs(heads: Mapping[str, Head], names: Sequence[str]) -> list[dict[str, Any]]:
    return [heads[name].config.to_json() for name in names]
