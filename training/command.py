"""`mtl-edge train`: labelled files in, checkpoint out."""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from mtl_edge.cli.named_values import for_each, named
from mtl_edge.cli.reading import (
    add_label_arguments,
    add_read_arguments,
    labels_of,
    note,
    rows_of,
)
from mtl_edge.errors import OptionError
from mtl_edge.io.folders import require_free, sha256_of
from mtl_edge.io.labelled import Rows
from mtl_edge.io.labels import look_alikes, ordered
from mtl_edge.table import text_table
from mtl_edge.training.backbone import Backbone, load_backbone
from mtl_edge.training.batches import MIXES
from mtl_edge.training.checkpoint import RECORD, Checkpoint, load_checkpoint, save_checkpoint
from mtl_edge.training.data import TaskData, build_task, conflicts
from mtl_edge.training.heads import DEFAULT_HEAD, HEADS
from mtl_edge.training.journal import Journal
from mtl_edge.training.recipe import Recipe
from mtl_edge.training.run import CACHE_LIMIT, MAX_TOKENS, Options, train
from mtl_edge.training.scenarios import SCENARIOS
from mtl_edge.training.states import default_cache, device
from mtl_edge.training.weighting import WEIGHTINGS

__all__ = [
    "add_arguments",
    "add_cache_arguments",
    "add_data_arguments",
    "add_recipe_arguments",
    "depths_of",
    "options_of",
    "read_tasks",
    "run",
    "task_sources",
]

BACKBONE = "distilbert-base-uncased"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_arguments(parser, extends=True)
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint's folder")
    parser.add_argument("--overwrite", action="store_true", help="replace --out if it exists")
    parser.add_argument(
        "--restart", action="store_true", help="forget what a stopped run with this --out left"
    )
    parser.add_argument(
        "--tensorboard", type=Path, metavar="FOLDER", help="write figures for TensorBoard there"
    )
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
    stages = parser.add_argument_group("cheaper stages")
    stages.add_argument(
        "--exits",
        metavar="DEPTHS",
        help="depths of cheaper stages, as 0 or 0,2, for `export --exits`: teach heads for them "
        "too, and keep what heads answer on rows that they were not taught",
    )
    stages.add_argument(
        "--exit-folds",
        type=int,
        default=Options().exit_folds,
        help="of --exits: as many parts the rows are split into, each asked of heads that were "
        "taught the others; default: %(default)s",
    )


def add_data_arguments(parser: argparse.ArgumentParser, *, extends: bool = False) -> None:
    """Options that say what the tasks are and what they start from.

    Args:
        extends: whether that may be a checkpoint; what it decides is then none if it is not given.
    """
    default = "default: that of --extend, or {}" if extends else "default: %(default)s"
    parser.add_argument(
        "--task",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="a task and its training rows: CSV, TSV, JSONL, Parquet or Arrow, or "
        "hub:NAME[:SUBSET][:SPLIT], a data set of the Hub; repeat for each task",
    )
    parser.add_argument(
        "--dev", action="append", default=[], metavar="NAME=FILE", help="rows to report figures on"
    )
    parser.add_argument("--data", metavar="FILE", help="training rows with a label column a task")
    parser.add_argument("--dev-data", metavar="FILE", help="the same, to report figures on")
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="TASK=COLUMN",
        help="of --data: a task, and the column of its labels; rows without one are passed over",
    )
    add_read_arguments(parser)
    add_label_arguments(parser)
    parser.add_argument(
        "--labels",
        action="append",
        default=[],
        metavar="TASK=A,B,...",
        help="a task's labels, in the order that they shall have; default: those of the rows, "
        "numbers by their size, anything else by its characters",
    )
    parser.add_argument(
        "--backbone",
        default=None if extends else BACKBONE,
        help="a name on the Hub, a local folder, or minilm (packaged); " + default.format(BACKBONE),
    )
    parser.add_argument(
        "--max-tokens",
        type=int,
        default=None if extends else MAX_TOKENS,
        help=default.format(MAX_TOKENS),
    )


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
    parser.add_argument(
        "--patience",
        type=int,
        metavar="EPOCHS",
        help="stop early after so many without improvement; default: run all, keep the best",
    )
    parts = parser.add_argument_group("where the backbone learns")
    parts.add_argument("--top-layers", type=int, default=2, help="default: %(default)s")
    parts.add_argument(
        "--backbone-learning-rate",
        type=float,
        default=default.backbone_learning_rate,
        help="where the backbone learns; default: %(default)s",
    )
    parts.add_argument(
        "--mix",
        default=default.mix,
        choices=MIXES,
        help="which task a batch is of: drawn by their rows, by rows to the power of "
        "1/temperature, with equal chances, or in turns; default: %(default)s",
    )
    parts.add_argument(
        "--mix-temperature",
        type=float,
        default=default.mix_temperature,
        help="of --mix temperature; default: %(default)s",
    )
    parts.add_argument(
        "--weighting",
        default=default.weighting,
        choices=WEIGHTINGS,
        help="of the tasks' losses: by --task-weight, or learned from how uncertain each task stays"
        "; default: %(default)s",
    )
    parts.add_argument(
        "--task-weight",
        action="append",
        default=[],
        metavar="TASK=WEIGHT",
        help="how much a task's loss counts; default: 1",
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
    model.add_argument(
        "--all-depths",
        action="store_true",
        help="teach heads for every smaller depth too, for `export --depth`",
    )
    model.add_argument(
        "--refit",
        action="store_true",
        help="at the end teach the heads once more, on the rows that chose as well; needs --dev",
    )
    model.add_argument(
        "--abstain",
        type=float,
        metavar="ACCURACY",
        help="fit thresholds from which on answers are right at this rate, as 0.95; an answer "
        "below its label's is marked unsure",
    )
    add_cache_arguments(parser)


def add_cache_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that say where encoder states are kept, and how many bytes of them."""
    cache = parser.add_argument_group("cache of encoder states")
    cache.add_argument("--cache", type=Path, default=default_cache(), help="default: %(default)s")
    cache.add_argument(
        "--cache-limit",
        type=float,
        default=CACHE_LIMIT / 10**9,
        metavar="GB",
        help="default: %(default)s",
    )


def run(args: argparse.Namespace) -> None:
    require_free(args.out, overwrite=args.overwrite)
    started = time.monotonic()
    options = replace(
        options_of(args),
        scenario=args.scenario,
        learn=args.learn,
        freeze=args.freeze,
        exits=depths_of(args.exits) if args.exits is not None else (),
        exit_folds=args.exit_folds,
    )
    if not args.extend:
        args.resolved = {"backbone": BACKBONE, "max-tokens": MAX_TOKENS, **args.resolved}
    start = load_checkpoint(args.extend) if args.extend else None
    tasks = read_tasks(args, start)
    backbone = start.backbone if start else load_backbone(args.backbone or BACKBONE)
    if args.backbone not in (None, backbone.info.name):
        raise OptionError(
            f"--backbone is {args.backbone!r}, and the checkpoint's is {backbone.info.name!r}; "
            "leave --backbone out"
        )
    journal = Journal(
        Path(f"{os.path.abspath(args.out)}.unfinished"),
        _identity(args, tasks, backbone),
        restart=args.restart,
        tensorboard=args.tensorboard,
    )
    checkpoint = train(tasks, backbone, options, start, journal)
    if cut := checkpoint.run["texts_cut_to_max_tokens"]:
        note(
            f"{cut} of {checkpoint.run['texts']} texts are longer than {checkpoint.max_tokens} "
            "tokens and were cut; --max-tokens sets the limit"
        )
    checkpoint = replace(checkpoint, config={"train": args.resolved})
    save_checkpoint(checkpoint, args.out, overwrite=args.overwrite)
    journal.close()
    print(_summary(checkpoint))
    print(f"\ncheckpoint {args.out}, {time.monotonic() - started:.0f} s")


def _identity(
    args: argparse.Namespace, tasks: Sequence[TaskData], backbone: Backbone
) -> dict[str, Any]:
    """What decides the result of a run."""
    return {
        "options": args.resolved,
        "data": {
            task.name: [dict(rows.source) for rows in (task.train, task.dev) if rows is not None]
            for task in tasks
        },
        "backbone": backbone.info.sha256,
        "extends": sha256_of(args.extend / RECORD) if args.extend else None,
        "versions": {name: version(name) for name in ("mtl-edge", "torch", "transformers")},
        "device": str(device()),
        "threads": torch.get_num_threads(),  # sums are split among them
    }


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
        mix=args.mix,
        mix_temperature=_positive("--mix-temperature", args.mix_temperature),
        weighting=args.weighting,
        task_weights=_weights(args),
        patience=None if args.patience is None else _positive("--patience", args.patience),
        seed=args.seed,
    )
    if not math.isfinite(args.cache_limit):
        raise OptionError(f"--cache-limit is {args.cache_limit}, expected gigabytes")
    if args.max_tokens is not None and args.max_tokens < 3:
        raise OptionError(f"--max-tokens is {args.max_tokens}, expected 3 or more")
    if args.abstain is not None and not 0 < args.abstain < 1:
        raise OptionError(f"--abstain is {args.abstain}, expected a share between 0 and 1")
    return Options(
        top_layers=_positive("--top-layers", args.top_layers),
        heads=for_each("--head", args.head, list(task_sources(args))),
        depth=args.depth,
        all_depths=args.all_depths,
        max_tokens=args.max_tokens,
        recipe=recipe,
        refit=args.refit,
        abstain=args.abstain,
        cache=args.cache,
        cache_limit=int(_positive("--cache-limit", args.cache_limit) * 10**9),
    )


def depths_of(text: str) -> tuple[int, ...]:
    """Depths as a user lists them for `--exits`, separated by commas; the least first.

    Raises:
        OptionError: one is no number of layers, or there is none.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise OptionError(f"--exits {text!r}: expected numbers of layers, as 0 or 0,2")
    return tuple(sorted({int(part) for part in parts}))


def _weights(args: argparse.Namespace) -> dict[str, float]:
    weights = named("--task-weight", args.task_weight)
    tasks = list(task_sources(args))
    if unknown := sorted(set(weights) - set(tasks)):
        raise OptionError(f"--task-weight {unknown[0]}: no such task; there are {', '.join(tasks)}")
    try:
        return {task: _positive("--task-weight", float(value)) for task, value in weights.items()}
    except ValueError as error:
        raise OptionError(f"--task-weight: {error}; expected TASK=NUMBER") from None


def task_sources(args: argparse.Namespace) -> dict[str, str]:
    """Where each task's training rows come from, in order.

    Raises:
        OptionError: no task is named, or one twice.
    """
    files, labels = named("--task", args.task), named("--label", args.label)
    if bool(labels) != bool(args.data):
        raise OptionError("--data FILE goes with --label TASK=COLUMN, once or more; give both")
    if args.dev_data and not args.data:
        raise OptionError("--dev-data goes with --data")
    if twice := sorted(set(files) & set(labels)):
        raise OptionError(f"task {twice[0]!r} is named by both --task and --label; name it once")
    sources = {**files, **dict.fromkeys(labels, args.data)}
    if not sources:
        raise OptionError("no task: give --task NAME=FILE, or --data FILE and --label TASK=COLUMN")
    return sources


def _positive(option: str, value: float) -> Any:
    if not value > 0:
        raise OptionError(f"{option} is {value}, expected more than 0")
    return value


def read_tasks(args: argparse.Namespace, start: Checkpoint | None = None) -> list[TaskData]:
    """The tasks that the options of `add_data_arguments` name; remarks go to standard error.

    Args:
        start: a task that it has as well keeps the order of its labels.

    Raises:
        DataError: a file that cannot be used.
        OptionError: names that do not fit together.
    """
    sources, columns = task_sources(args), named("--label", args.label)
    dev = {**dict.fromkeys(columns if args.dev_data else (), args.dev_data)}
    dev |= named("--dev", args.dev)
    if unknown := sorted(set(dev) - set(sources)):
        raise OptionError(f"--dev {unknown[0]}: no such --task; there are {', '.join(sources)}")
    orders = labels_of(args, list(sources))
    before = {task.name: task.labels for task in start.tasks} if start else {}
    tasks = []
    for name, source in sources.items():
        order, column = orders.get(name), columns.get(name)
        rows = rows_of(name, source, args, list(sources), order, column)
        if order is None and {*before.get(name, ())} == {*rows.labels}:
            order = list(before[name])
        known = order or ordered(rows.labels)
        reported = (
            rows_of(name, dev[name], args, list(sources), known, column) if name in dev else None
        )
        tasks.append(build_task(name, rows, reported, args.seed, order))
        for remark in _remarks(rows, reported):
            note(f"task {name}: {remark}")
    return tasks


def _remarks(rows: Rows, dev: Rows | None) -> list[str]:
    """What a careful reader of the data would mention."""
    remarks = []
    if alike := look_alikes(ordered(rows.labels)):
        pairs = ", ".join(f"{one!a} and {other!a}" for one, other in alike[:3])
        remarks.append(f"the labels {pairs} look alike and are taken for different ones")
    if count := sum(not text.strip() for text in rows.texts):
        remarks.append(f"{count} texts of train are empty")
    if count := conflicts(rows):
        remarks.append(f"{count} texts stand in train with more than one label")
    if dev is not None and (shared := len(set(rows.texts) & set(dev.texts))):
        remarks.append(f"{shared} texts stand in train and in dev")
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
