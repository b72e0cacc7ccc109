"""What training leaves: a folder of safetensors and JSON.

checkpoint.json      tasks, heads, recipe, figures, versions; every file's size and sha256
heads.safetensors    the heads' weights, as `0.mix`, `0.query.weight`, ... in the tasks' order
depth-N.safetensors  the same for heads on the first N layers, if they were trained
folds.safetensors    per task, what heads answered on rows that they were not taught, if that was
                     asked for: `0.labels`, `0.depth-6`, ...
backbone/            configuration, weights and tokenizer, as transformers writes them
samples.jsonl        texts for calibrating int8 and for comparing what export makes
config.toml          the options of the run: `mtl-edge train --config` repeats it
metrics.jsonl        losses and accuracies by epoch
curves.png, confusion.png   the same as pictures, and the reported rows' confusion matrices; drawn
                     when all else is there, and no part of what is checked
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import safetensors.torch
import tomli_w
from safetensors import SafetensorError
from torch import nn

from mtl_edge.bundle import Backbone as BackboneInfo
from mtl_edge.bundle import FileEntry, Task
from mtl_edge.errors import CheckpointError, OptionError
from mtl_edge.io.folders import sha256_of, staged_folder
from mtl_edge.training.backbone import Backbone, load_backbone
from mtl_edge.training.drawing import drawn
from mtl_edge.training.figures import draw_confusion, draw_curves
from mtl_edge.training.folds import OutOfFold
from mtl_edge.training.heads import Head, HeadConfig, build_head
from mtl_edge.training.model import MultiTaskModel

__all__ = ["RECORD", "Checkpoint", "Sample", "Samples", "load_checkpoint", "save_checkpoint"]

SCHEMA = 2
RECORD, HEADS, BACKBONE = "checkpoint.json", "heads.safetensors", "backbone"
FOLDS = "folds.safetensors"
SAMPLES, CONFIG, METRICS = "samples.jsonl", "config.toml", "metrics.jsonl"

_T = TypeVar("_T")


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
        shallower: heads for fewer layers, by depth and task, if they were trained.
        report: per task, the figures of training: see `mtl_edge.training.run`.
        run: scenario, recipe and versions of the run, for the record.
        config: the options of `mtl-edge train` that repeat the run.
        metrics: lines of figures by epoch: see `mtl_edge.training.loop`.
        out_of_fold: by task, answers that thresholds of cheaper stages are fitted on, if they were
            asked for: see `mtl_edge.training.folds`.
    """

    backbone: Backbone
    depth: int
    tasks: tuple[Task, ...]
    heads: Mapping[str, Head]
    max_tokens: int
    samples: Samples
    report: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
    shallower: Mapping[int, Mapping[str, Head]] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Sequence[Mapping[str, Any]] = ()
    out_of_fold: Mapping[str, OutOfFold] = field(default_factory=dict)

    def at(self, depth: int) -> Checkpoint:
        """The same with fewer layers, and the heads that were trained for them.

        Raises:
            OptionError: there are no such heads.
        """
        if depth == self.depth:
            return self
        if depth not in self.shallower:
            known = ", ".join(map(str, [*self.shallower, self.depth]))
            raise OptionError(
                f"the checkpoint has heads for depth {known}, not {depth}; train with --depth "
                f"{depth}, or for all depths with --all-depths"
            )
        return replace(
            self,
            backbone=self.backbone.truncated(depth),
            depth=depth,
            tasks=tuple(self._task_at(task, depth) for task in self.tasks),
            heads=self.shallower[depth],
            shallower={d: heads for d, heads in self.shallower.items() if d < depth},
            out_of_fold={
                task: kept
                for task, found in self.out_of_fold.items()
                if (kept := found.at(depth)) is not None
            },
        )

    def _task_at(self, task: Task, depth: int) -> Task:
        found = self.report[task.name]["depths"][str(depth)]
        return replace(
            task, temperature=found["temperature"], thresholds=tuple(found["thresholds"])
        )

    def refitted(self, task: str) -> bool:
        """Whether the task's heads were taught on selection rows as well."""
        # Reports of earlier releases do not say; of those, the run does for all tasks.
        whole = self.run.get("refitted", False)
        return bool(self.report.get(task, {}).get("refitted", whole))

    def model(self) -> MultiTaskModel:
        """Encoder and heads in one module, in evaluation mode."""
        model = MultiTaskModel(self.backbone.encoder, self.heads)
        return model.eval().requires_grad_(False)


def save_checkpoint(checkpoint: Checkpoint, folder: Path, *, overwrite: bool = False) -> None:
    """Write a checkpoint whole or not at all.

    Raises:
        OutputExistsError: `folder` exists and `overwrite` is false.
    """
    names = [task.name for task in checkpoint.tasks]
    with staged_folder(folder, overwrite=overwrite) as stage:
        for name, heads in _head_files(checkpoint.heads, checkpoint.shallower).items():
            modules = nn.ModuleList(heads[task] for task in names)
            safetensors.torch.save_file(modules.state_dict(), stage / name)
        if checkpoint.out_of_fold:
            _save_folds(checkpoint, stage / FOLDS)
        checkpoint.backbone.save(stage / BACKBONE)
        with (stage / SAMPLES).open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(sample)) + "\n" for sample in checkpoint.samples)
        if checkpoint.config:
            (stage / CONFIG).write_text(tomli_w.dumps(checkpoint.config), encoding="utf-8")
        if checkpoint.metrics:
            lines = "".join(json.dumps(line) + "\n" for line in checkpoint.metrics)
            (stage / METRICS).write_text(lines, encoding="utf-8")
        record = {
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
        text = json.dumps(record, indent=2, ensure_ascii=False)
        (stage / RECORD).write_text(text + "\n", encoding="utf-8")
    if checkpoint.metrics:
        drawn(folder / "curves.png", draw_curves, checkpoint.metrics)
    if checkpoint.report:
        drawn(folder / "confusion.png", draw_confusion, checkpoint.tasks, checkpoint.report)


def _head_files(
    heads: Mapping[str, Head], shallower: Mapping[int, Mapping[str, Head]]
) -> dict[str, Mapping[str, Head]]:
    return {HEADS: heads, **{f"depth-{d}.safetensors": found for d, found in shallower.items()}}


def _configs(heads: Mapping[str, Head], names: Sequence[str]) -> list[dict[str, Any]]:
    return [heads[name].config.to_json() for name in names]


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
            Task(t["name"], tuple(t["labels"]), t["temperature"], tuple(t["thresholds"]))
            for t in record["tasks"]
        )
        names = [task.name for task in tasks]
        heads = _read_heads(folder / HEADS, names, record["heads"])
        shallower = {
            int(depth): _read_heads(folder / f"depth-{int(depth)}.safetensors", names, configs)
            for depth, configs in record["shallower"].items()
        }
        folds = folder / FOLDS
        lines = (folder / SAMPLES).read_text(encoding="utf-8").splitlines()
        samples = [Sample(**json.loads(line)) for line in lines]
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
            out_of_fold=_read_folds(folds, names) if folds.is_file() else {},
            config=_optional(folder / CONFIG, tomllib.loads, {}),
            metrics=_optional(
                folder / METRICS, lambda text: list(map(json.loads, text.splitlines())), []
            ),
        )
    except (KeyError, TypeError, ValueError, RuntimeError, OSError, SafetensorError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise _altered(f"{folder}: {' '.join(str(error).split())[:300]}") from error


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


def _save_folds(checkpoint: Checkpoint, file: Path) -> None:
    arrays: dict[str, npt.NDArray[Any]] = {}
    for place, task in enumerate(checkpoint.tasks):
        if (found := checkpoint.out_of_fold.get(task.name)) is not None:
            arrays[f"{place}.labels"] = found.labels
            arrays |= {f"{place}.depth-{d}": logits for d, logits in found.logits.items()}
    safetensors.numpy.save_file(arrays, file)


def _read_folds(file: Path, names: Sequence[str]) -> dict[str, OutOfFold]:
    labels: dict[str, Any] = {}
    logits: dict[str, dict[int, Any]] = {}
    for key, array in safetensors.numpy.load_file(file).items():
        place, kind = key.split(".", 1)
        if kind == "labels":
            labels[names[int(place)]] = array.astype(np.int64)
        else:
            logits.setdefault(names[int(place)], {})[int(kind.removeprefix("depth-"))] = array
    return {
        name: OutOfFold(found, dict(sorted(logits[name].items()))) for name, found in labels.items()
    }


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
