"""What training leaves: a folder of safetensors and JSON.

checkpoint.json      tasks, heads, recipe, figures, versions; every file's size and sha256
heads.safetensors    the heads' weights, as `0.mix`, `0.query.weight`, ... in the tasks' order
backbone/            configuration, weights and tokenizer, as transformers writes them
samples.jsonl        texts for calibrating int8 and for comparing what export makes
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import nn

from mtl_edge.bundle import Backbone as BackboneInfo
from mtl_edge.bundle import FileEntry, Task
from mtl_edge.errors import CheckpointError
from mtl_edge.files import sha256_of, staged_folder
from mtl_edge.training.backbone import Backbone, load_backbone
from mtl_edge.training.heads import Head, HeadConfig, build_head
from mtl_edge.training.model import MultiTaskModel

__all__ = ["Checkpoint", "Sample", "Samples", "load_checkpoint", "save_checkpoint"]

SCHEMA = 1
RECORD, HEADS, BACKBONE, SAMPLES = (
    "checkpoint.json",
    "heads.safetensors",
    "backbone",
    "samples.jsonl",
)


@dataclass(frozen=True, slots=True)
class Sample:
    """A labelled text that the checkpoint carries along.

    Attributes:
        split: `calibration` (from train), `selection` or `dev`.
    """

    split: str
    task: str
    text: str
    label: str


Samples = Sequence[Sample]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model and what is known of it.

    Attributes:
        depth: how many of the backbone's layers it uses.
        report: per task, the figures of training: see `mtl_edge.training.run`.
        run: scenario, recipe and versions of the run, for the record.
    """

    backbone: Backbone
    depth: int
    tasks: tuple[Task, ...]
    heads: Mapping[str, Head]
    max_tokens: int
    samples: Samples
    report: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)

    def model(self) -> MultiTaskModel:
        """Encoder and heads in one module, in evaluation mode."""
        model = MultiTaskModel(self.backbone.encoder, self.heads)
        return model.eval().requires_grad_(False)


def save_checkpoint(checkpoint: Checkpoint, folder: Path, *, overwrite: bool = False) -> None:
    """Write a checkpoint whole or not at all.

    Raises:
        OutputExistsError: `folder` exists and `overwrite` is false.
    """
    heads = nn.ModuleList(checkpoint.heads[task.name] for task in checkpoint.tasks)
    with staged_folder(folder, overwrite=overwrite) as stage:
        safetensors.torch.save_file(heads.state_dict(), stage / HEADS)
        checkpoint.backbone.save(stage / BACKBONE)
        with (stage / SAMPLES).open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(sample)) + "\n" for sample in checkpoint.samples)
        record = {
            "schema": SCHEMA,
            "tasks": [asdict(task) for task in checkpoint.tasks],
            "heads": [checkpoint.heads[task.name].config.to_json() for task in checkpoint.tasks],
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
        text = json.dumps(record, indent=2, ensure_ascii=False)
        (stage / RECORD).write_text(text + "\n", encoding="utf-8")


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
        tasks = tuple(
            Task(t["name"], tuple(t["labels"]), t["temperature"]) for t in record["tasks"]
        )
        heads = [build_head(HeadConfig(**config)) for config in record["heads"]]
        weights = safetensors.torch.load_file(folder / HEADS)
        nn.ModuleList(heads).load_state_dict(weights)
        lines = (folder / SAMPLES).read_text(encoding="utf-8").splitlines()
        samples = [Sample(**json.loads(line)) for line in lines]
        backbone = load_backbone(str(folder / BACKBONE))
        backbone = replace(backbone, info=BackboneInfo(**record["backbone"]))
        return Checkpoint(
            backbone=backbone,
            depth=record["depth"],
            tasks=tasks,
            heads={task.name: head.eval() for task, head in zip(tasks, heads, strict=True)},
            max_tokens=record["max_tokens"],
            samples=samples,
            report=record["report"],
            run=record["run"],
        )
    except (KeyError, TypeError, ValueError, RuntimeError, OSError, SafetensorError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise _altered(f"{folder}: {' '.join(str(error).split())[:300]}") from error


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
    return record


def _check(folder: Path, entry: FileEntry) -> None:
    path = folder / entry.path
    if not path.is_file():
        raise _altered(f"{path} is missing")
    if path.stat().st_size != entry.size or sha256_of(path) != entry.sha256:
        raise _altered(f"{path} is not the file that {RECORD} describes")


def _altered(what: str) -> CheckpointError:
    return CheckpointError(f"{what}; the checkpoint is incomplete or altered: copy or train again")
