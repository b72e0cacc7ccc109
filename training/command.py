"""`mtl-edge train`: labelled files in, checkpoint out."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtl_edge.errors import OptionError
from mtl_edge.files import require_free
from mtl_edge.options import for_each, named
from mtl_edge.table import text_table
from mtl_edge.training.backbone import load_backbone
from mtl_edge.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from mtl_edge.training.data import Columns, Rows, TaskData, build_task, conflicts, read_rows
from mtl_edge.training.fit import Recipe
from mtl_edge.training.heads import DEFAULT_HEAD, HEADS
from mtl_edge.training.run import CACHE_LIMIT, Options, train
from mtl_edge.training.scenarios import SCENARIOS
from mtl_edge.training.states import default_cache

__all__ = [
    "add_arguments",
    "add_column_arguments",
    "add_data_arguments",
    "add_recipe_arguments",
    "columns_of",
    "options_of",
    "read_tasks",
    "run",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint's folder")
    parser.add_argument("--overwrite", action="store_true", help="replace --out if it exists")
    add_recipe_arguments(parser)
    parts = parser.add_argument_group("what learns")
    known = "; ".join(f"{name}: {scenario.summary}" for name, scenario in SCENARIOS.items())
    parts.add_argument("--scenario", default="heads", help=f"default: %(default)s. {known}")
    parts.add_argument(
        "--learn", action="append", default=[], metavar="TASK", help="of one-head: whose head"
    )
    parts.add_argument(
        "--freeze", action="append", default=[], metavar="PART", help="a task, or backbone"
    )
    parts.add_argument(
        "--extend", type=Path, metavar="CHECKPOINT", help="go on from its backbone and heads"
    )


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that say what the tasks are and what they start from."""
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
    parser.add_argument("--max-tokens", type=int, default=128, help="default: %(default)s")


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that say how parts learn and what the model is."""
    default = Recipe()
    parser.add_argument(
        "--epochs",
        type=int,
        help="default: 8, or as many more as 500 steps take on few rows; 3 if the backbone learns",
    )
    parser.add_argument(
        "--batch-size", type=int, default=default.batch_size, help="default: %(default)s"
    )
    parser.add_argument(
        "--learning-rate", type=float, default=default.learning_rate, help="default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=default.seed, help="default: %(default)s")
    parts = parser.add_argument_group("where the backbone learns")
    parts.add_argument("--top-layers", type=int, default=2, help="default: %(default)s")
    parts.add_argument(
        "--backbone-learning-rate",
        type=float,
        default=default.backbone_learning_rate,
        help="where the backbone learns; default: %(default)s",
    )
    parts.add_argument(
        "--mix-temperature",
        type=float,
        default=default.temperature,
        help="where the backbone learns: 1 mixes tasks by their rows, more evens them out, inf "
        "makes them equal; default: %(default)s",
    )
    parser.add_argument(
        "--class-weights", action="store_true", help="weight each label's loss by its rarity"
    )
    model = parser.add_argument_group("model")
    model.add_argument(
        "--head",
        action="append",
        default=[],
        metavar="[TASK=]HEAD",
        help=f"{', '.join(HEADS)}; linear and mlp with :cls, :mean or :max; "
        f"default: {DEFAULT_HEAD}",
    )
    model.add_argument("--depth", type=int, help="layers of the backbone to use; default: all")
    cache = parser.add_argument_group("cache of encoder states")
    cache.add_argument("--cache", type=Path, default=default_cache(), help="default: %(default)s")
    cache.add_argument(
        "--cache-limit",
        type=float,
        default=CACHE_LIMIT / 10**9,
        metavar="GB",
        help="default: %(default)s",
    )


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
    labels = for_each("--label-column", args.label_column, tasks)
    return {task: Columns(args.text_column, labels.get(task)) for task in tasks}


def run(args: argparse.Namespace) -> None:
    require_free(args.out, overwrite=args.overwrite)
    started = time.monotonic()
    options = replace(
        options_of(args), scenario=args.scenario, learn=args.learn, freeze=args.freeze
    )
    tasks = read_tasks(args)
    start = load_checkpoint(args.extend) if args.extend else None
    backbone = start.backbone if start else load_backbone(args.backbone)
    checkpoint = train(tasks, backbone, options, start)
    save_checkpoint(checkpoint, args.out, overwrite=args.overwrite)
    print(_summary(checkpoint))
    print(f"\ncheckpoint {args.out}, {time.monotonic() - started:.0f} s")


def options_of(args: argparse.Namespace) -> Options:
    """What the options of `add_recipe_arguments` say.

    Raises:
        OptionError: a number that is out of range, or a task that is not there.
    """
    recipe = Recipe(
        epochs=None if args.epochs is None else _positive("--epochs", args.epochs),
        batch_size=_positive("--batch-size", args.batch_size),
        learning_rate=_positive("--learning-rate", args.learning_rate),
        backbone_learning_rate=_positive("--backbone-learning-rate", args.backbone_learning_rate),
        class_weights=args.class_weights,
        temperature=_positive("--mix-temperature", args.mix_temperature),
        seed=args.seed,
    )
    if args.max_tokens < 3:
        raise OptionError(f"--max-tokens is {args.max_tokens}, expected 3 or more")
    return Options(
        top_layers=_positive("--top-layers", args.top_layers),
        heads=for_each("--head", args.head, list(named("--task", args.task))),
        depth=args.depth,
        max_tokens=args.max_tokens,
        recipe=recipe,
        cache=args.cache,
        cache_limit=int(_positive("--cache-limit", args.cache_limit) * 10**9),
    )


def _positive(option: str, value: float) -> Any:
    if not value > 0:
        raise OptionError(f"{option} is {value}, expected more than 0")
    return value


def read_tasks(args: argparse.Namespace) -> list[TaskData]:
    """The tasks that the options of `add_data_arguments` name; remarks go to standard error.

    Raises:
        DataError: a file that cannot be used.
        OptionError: names that do not fit together.
    """
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
