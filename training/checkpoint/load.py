"""A folder to a checkpoint, verified file by file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
from safetensors import SafetensorError
from torch import nn

from mtl_edge.bundle import BackboneInfo, FileEntry, Scale, Task
from mtl_edge.errors import CheckpointError, one_line
from mtl_edge.io.folders import sha256_of
from mtl_edge.training.backbone import Backbone, load_backbone
from mtl_edge.training.checkpoint.checkpoint import Checkpoint, Sample
from mtl_edge.training.checkpoint.layout import (
    BACKBONE,
    CONFIG,
    DOMAINS,
    FOLDS,
    HEADS,
    METRICS,
    RECORD,
    SAMPLES,
    SCHEMA,
    heads_file,
    read_folds,
    read_gates,
)
from mtl_edge.training.heads import Head, HeadConfig, build_head

__all__ = ["load_checkpoint"]

_T = TypeVar("_T")


def load_checkpoint(folder: Path) -> Checkpoint:
    """Verify and read a checkpoint.

    Raises:
        CheckpointError: missing, cut short, altered, or from a newer release.
        BackboneError: its backbone cannot be loaded.
    """
    record = _read_record(folder)
    try:
        for entry in record["files"]:
            _check(folder, FileEntry(**entry))
        tasks = tuple(map(_task, record["tasks"]))
        names = [task.name for task in tasks]
        heads = _read_heads(folder / HEADS, names, record["heads"])
        shallower = {
            int(depth): _read_heads(folder / heads_file(int(depth)), names, configs)
            for depth, configs in record["shallower"].items()
        }
        folds = folder / FOLDS
        lines = (folder / SAMPLES).read_text(encoding="utf-8").splitlines()
        samples = [_sample(json.loads(line)) for line in lines]
        backbone = load_backbone(str(folder / BACKBONE))
        backbone = replace(backbone, info=BackboneInfo(**record["backbone"]))
        _require_width(backbone, {**shallower, record["depth"]: heads})
        return Checkpoint(
            backbone=backbone,
            depth=record["depth"],
            tasks=tasks,
            heads=heads,
            shallower=shallower,
            max_tokens=record["max_tokens"],
            samples=samples,
            report=record["report"],
            run=record["run"],
            out_of_fold=read_folds(folds, names) if folds.is_file() else {},
            gates=read_gates(folder / DOMAINS, names) if (folder / DOMAINS).is_file() else {},
            config=_optional(folder / CONFIG, tomllib.loads, {}),
            metrics=_optional(
                folder / METRICS, lambda text: list(map(json.loads, text.splitlines())), []
            ),
        )
    except (KeyError, TypeError, ValueError, RuntimeError, OSError, SafetensorError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise _altered(f"{folder}: {one_line(error)}") from error


def _task(record: dict[str, Any]) -> Task:
    scale = record["scale"] and Scale(**record["scale"])
    lists = {key: tuple(record[key]) for key in ("labels", "thresholds")}
    return Task(**{**record, **lists, "scale": scale})


def _sample(record: dict[str, Any]) -> Sample:
    label = record["label"]
    return Sample(**{**record, "label": tuple(label) if isinstance(label, list) else label})


def _read_heads(
    file: Path, names: Sequence[str], configs: Sequence[Mapping[str, Any]]
) -> dict[str, Head]:
    heads = [build_head(HeadConfig(**config)).eval() for config in configs]
    nn.ModuleList(heads).load_state_dict(safetensors.torch.load_file(file))
    return dict(zip(names, heads, strict=True))


def _require_width(backbone: Backbone, heads: Mapping[int, Mapping[str, Head]]) -> None:
    """Heads of depth 0 read what `mtl_edge.training.static` makes, as they did not always."""
    for head in heads.get(0, {}).values():
        if head.config.width != backbone.width_at(0):
            raise CheckpointError(
                f"its heads without layers read {head.config.width} numbers a token, and this "
                f"release makes {backbone.width_at(0)}; train again"
            )


def _optional(file: Path, parse: Callable[[str], _T], absent: _T) -> _T:
    return parse(file.read_text(encoding="utf-8")) if file.is_file() else absent


def _read_record(folder: Path) -> dict[str, Any]:
    file = folder / RECORD
    if not file.is_file():
        raise CheckpointError(
            f"no checkpoint at {folder}: expected a folder with {RECORD} in it; "
            "`mtl-edge train` writes one"
        )
    try:
        record = json.loads(file.read_bytes())
    except ValueError as error:
        raise _altered(f"{file} is not JSON ({error})") from None
    if not isinstance(record, dict) or not isinstance(record.get("schema"), int):
        raise _altered(f"{file} has no schema version")
    if record["schema"] > SCHEMA:
        raise CheckpointError(
            f"{file} has schema {record['schema']}, and this release reads up to {SCHEMA}; "
            "upgrade with `pip install -U mtl-edge`"
        )
    if record["schema"] < SCHEMA:
        raise CheckpointError(
            f"{file} has schema {record['schema']}, and this release reads {SCHEMA}; train again"
        )
    return record


def _check(folder: Path, entry: FileEntry) -> None:
    path = folder / entry.path
    if not path.is_file():
        raise _altered(f"{path} is missing")
    if path.stat().st_size != entry.size or sha256_of(path) != entry.sha256:
        raise _altered(f"{path} is not the file that {RECORD} describes")


def _altered(what: str) -> CheckpointError:
    return CheckpointError(f"{what}; the checkpoint is incomplete or altered: copy or train again")
