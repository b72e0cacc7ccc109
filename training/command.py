"""`mtl-edge train`: labelled files in, checkpoint out."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score

from mtl_edge.bundle import Task
from mtl_edge.errors import OptionError
from mtl_edge.files import require_free
from mtl_edge.options import named
from mtl_edge.table import text_table
from mtl_edge.training.backbone import Backbone, load_backbone
from mtl_edge.training.baselines import bag_of_words, mean_pooling
from mtl_edge.training.checkpoint import Checkpoint, Sample, save_checkpoint
from mtl_edge.training.data import Columns, Rows, TaskData, build_task, conflicts, read_rows
from mtl_edge.training.fit import Labelled, Recipe, fit_head, fit_temperature, predict
from mtl_edge.training.heads import HeadConfig, MixedAttentionHead, build_head
from mtl_edge.training.states import States, encode

__all__ = ["add_arguments", "add_column_arguments", "columns_of", "run", "train"]

CALIBRATION_ROWS = 300
PACKAGES = ("torch", "transformers", "optimum", "tokenizers", "numpy", "scikit-learn")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--task",
        action="append",
        required=True,
        metavar="NAME=FILE",
        help="a task and its training rows: CSV, TSV, JSONL or Parquet; repeat for each task",
    )
    parser.add_argument(
        "--dev", action="append", default=[], metavar="NAME=FILE", help="rows to report figures on"
    )
    add_column_arguments(parser)
    parser.add_argument(
        "--backbone",
        default="distilbert-base-uncased",
        help="a name on the Hub, a local folder, or minilm (packaged); default: %(default)s",
    )
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint's folder")
    parser.add_argument("--overwrite", action="store_true", help="replace --out if it exists")
    parser.add_argument("--max-tokens", type=int, default=128, help="default: %(default)s")
    default = Recipe()
    parser.add_argument(
        "--epochs", type=int, help="default: 8, or as many more as 500 steps take on few rows"
    )
    parser.add_argument(
        "--batch-size", type=int, default=default.batch_size, help="default: %(default)s"
    )
    parser.add_argument(
        "--learning-rate", type=float, default=default.learning_rate, help="default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=default.seed, help="default: %(default)s")


def add_column_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that say where files keep texts and labels."""
    parser.add_argument("--text-column", default="text", help="default: %(default)s")
    parser.add_argument(
        "--label-column",
        action="append",
        default=[],
        metavar="[NAME=]COLUMN",
        help="for all tasks or for one; default: label, or else the task's name",
    )


def columns_of(args: argparse.Namespace, tasks: Sequence[str]) -> dict[str, Columns]:
    """Each task's columns, from the options of `add_column_arguments`."""
    columns = dict.fromkeys(tasks, Columns(args.text_column))
    for option in sorted(args.label_column, key=lambda o: "=" in o):
        task, _, column = option.rpartition("=")
        if task and task not in columns:
            raise OptionError(f"--label-column {option}: no task {task!r}; there are {tasks}")
        for name in [task] if task else tasks:
            columns[name] = Columns(args.text_column, column)
    return columns


def run(args: argparse.Namespace) -> None:
    require_free(args.out, overwrite=args.overwrite)
    recipe = Recipe(
        epochs=None if args.epochs is None else _positive("--epochs", args.epochs),
        batch_size=_positive("--batch-size", args.batch_size),
        learning_rate=_positive("--learning-rate", args.learning_rate),
        seed=args.seed,
    )
    if args.max_tokens < 3:
        raise OptionError(f"--max-tokens is {args.max_tokens}, expected 3 or more")
    started = time.monotonic()
    tasks = _read_tasks(args)
    backbone = load_backbone(args.backbone)
    checkpoint = train(tasks, backbone, recipe, args.max_tokens)
    save_checkpoint(checkpoint, args.out, overwrite=args.overwrite)
    print(_summary(checkpoint))
    print(f"\ncheckpoint {args.out}, {time.monotonic() - started:.0f} s")


def _positive(option: str, value: float) -> Any:
    if not value > 0:
        raise OptionError(f"{option} is {value}, expected more than 0")
    return value


def _read_tasks(args: argparse.Namespace) -> list[TaskData]:
    files, dev_files = named("--task", args.task), named("--dev", args.dev)
    if unknown := sorted(set(dev_files) - set(files)):
        raise OptionError(f"--dev {unknown[0]}: no such --task; there are {', '.join(files)}")
    columns = columns_of(args, list(files))
    tasks = []
    for name, file in files.items():
        rows = read_rows(name, Path(file), columns[name])
        dev = read_rows(name, Path(dev_files[name]), columns[name]) if name in dev_files else None
        tasks.append(build_task(name, rows, dev, args.seed))
        for remark in _remarks(name, rows, dev):
            print(f"note: {remark}", file=sys.stderr)
    return tasks


def _remarks(name: str, rows: Rows, dev: Rows | None) -> list[str]:
    """What a careful reader of the data would mention."""
    remarks = []
    if rows.unlabelled:
        remarks.append(f"task {name}: {rows.unlabelled} rows without a label were passed over")
    if count := conflicts(rows):
        remarks.append(f"task {name}: {count} texts stand in train with more than one label")
    if dev is not None and (shared := len(set(rows.texts) & set(dev.texts))):
        remarks.append(f"task {name}: {shared} texts stand in train and in dev")
    return remarks


def train(
    tasks: Sequence[TaskData], backbone: Backbone, recipe: Recipe, max_tokens: int
) -> Checkpoint:
    """Teach one head per task on the frozen backbone."""
    encoder = backbone.text_encoder(max_tokens)
    # A text that several tasks label is encoded once.
    place: dict[str, int] = {}
    for task in tasks:
        for rows in filter(None, (task.train, task.selection, task.dev)):
            for text in rows.texts:
                place.setdefault(text, len(place))
    with tempfile.TemporaryDirectory(prefix="mtl-edge-") as folder:
        states = encode(backbone.encoder, encoder(list(place)), Path(folder) / "states.npy")
        heads: dict[str, MixedAttentionHead] = {}
        done: list[Task] = []
        report: dict[str, Any] = {}
        for task in tasks:
            heads[task.name], temperature, report[task.name] = _fit(
                task, states, place, backbone, recipe
            )
            done.append(Task(task.name, task.labels, temperature))
    return Checkpoint(
        backbone=backbone,
        tasks=tuple(done),
        heads=heads,
        max_tokens=encoder.max_tokens,
        samples=_samples(tasks, recipe.seed),
        report=report,
        run={
            "scenario": "backbone frozen, heads trained",
            "recipe": recipe.to_json(),
            "versions": {name: version(name) for name in ("mtl-edge", *PACKAGES)},
        },
    )


def _fit(
    task: TaskData,
    states: States,
    place: Mapping[str, int],
    backbone: Backbone,
    recipe: Recipe,
) -> tuple[MixedAttentionHead, float, dict[str, Any]]:
    """A taught head, its temperature and its figures."""
    torch.manual_seed(recipe.seed)
    head = build_head(
        HeadConfig(
            states=backbone.info.layers + 1,
            width=backbone.info.hidden_size,
            labels=len(task.labels),
        )
    )
    learn, choose = (
        Labelled([place[text] for text in rows.texts], task.indices(rows))
        for rows in (task.train, task.selection)
    )
    chosen = fit_head(head, states, learn, choose, recipe, f"task {task.name}")
    temperature = fit_temperature(predict(head, states, choose.rows).numpy(), choose.labels)
    split, rows = task.report
    asked = [place[text] for text in rows.texts]
    means = states.means()
    answers = {
        "head": np.array(task.labels)[predict(head, states, asked).argmax(1).numpy()],
        "mean_pooling": mean_pooling(means[learn.rows], task.train.labels, means[asked]),
        "bag_of_words": bag_of_words(task.train.texts, task.train.labels, rows.texts),
    }
    report = {
        "train": {**task.train.source, "rows": len(task.train)},
        "selection": {"rows": len(task.selection), **chosen},
        "reported": {**rows.source, "split": split, "rows": len(rows)},
        "parameters": sum(p.numel() for p in head.parameters()),
        **{
            name: {
                "accuracy": float(accuracy_score(rows.labels, answer)),
                "macro_f1": float(f1_score(rows.labels, answer, average="macro")),
            }
            for name, answer in answers.items()
        },
    }
    return head, temperature, report


def _samples(tasks: Sequence[TaskData], seed: int) -> list[Sample]:
    """Rows that export needs: some of train to calibrate with, the rest to compare on."""
    generator = random.Random(seed)
    samples = []
    for task in tasks:
        count = min(len(task.train), CALIBRATION_ROWS // len(tasks) + 1)
        calibration = task.train.take(generator.sample(range(len(task.train)), count))
        splits = {"calibration": calibration, "selection": task.selection, "dev": task.dev}
        for split, rows in splits.items():
            if rows is not None:
                samples += [
                    Sample(split, task.name, text, label)
                    for text, label in zip(rows.texts, rows.labels, strict=True)
                ]
    return samples


def _summary(checkpoint: Checkpoint) -> str:
    rows = []
    for task in checkpoint.tasks:
        report = checkpoint.report[task.name]
        rows.append(
            [
                task.name,
                str(report["train"]["rows"]),
                str(len(task.labels)),
                f"{report['reported']['split']} ({report['reported']['rows']})",
                f"{report['head']['accuracy']:.1%}",
                f"{report['head']['macro_f1']:.1%}",
                f"{report['mean_pooling']['accuracy']:.1%}",
                f"{report['bag_of_words']['accuracy']:.1%}",
            ]
        )
    header = ["task", "train rows", "labels", "reported on", "accuracy", "macro-F1"]
    return text_table([*header, "usual recipe", "bag of words"], rows) + (
        "\n\nusual recipe: mean of the last layer + logistic regression on the same encoder; "
        "bag of words: TF-IDF + logistic regression, no encoder"
    )
