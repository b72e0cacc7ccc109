"""`mtl-edge train`: labelled files in, checkpoint out."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from mtl_edge.bundle import Task
from mtl_edge.cli.reading import note, read_options
from mtl_edge.errors import OptionError
from mtl_edge.io.folders import require_free, sha256_of
from mtl_edge.table import text_table
from mtl_edge.training.arguments import add_train_arguments, depths_of, train_options
from mtl_edge.training.backbone import Backbone, load_backbone
from mtl_edge.training.baselines import BASELINES
from mtl_edge.training.checkpoint import RECORD, Checkpoint, load_checkpoint, save_checkpoint
from mtl_edge.training.data import TaskData
from mtl_edge.training.device import device
from mtl_edge.training.few import takes_all_rows
from mtl_edge.training.journal import Journal
from mtl_edge.training.kinds import headline, shown
from mtl_edge.training.options import DEFAULT_BACKBONE, DEFAULT_MAX_TOKENS, TrainOptions
from mtl_edge.training.run import train
from mtl_edge.training.scenarios import SCENARIOS
from mtl_edge.training.task_arguments import add_data_arguments, task_files
from mtl_edge.training.task_files import read_tasks

__all__ = ["add_arguments", "run"]

EXPLAINED = (
    "usual recipe: mean of the last layer + logistic regression on the same encoder; "
    "bag of words: TF-IDF + logistic regression, no encoder"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = TrainOptions()
    add_data_arguments(parser, extends=True)
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint's folder")
    parser.add_argument("--overwrite", action="store_true", help="replace --out if it exists")
    parser.add_argument(
        "--restart", action="store_true", help="forget what a stopped run with this --out left"
    )
    parser.add_argument(
        "--tensorboard", type=Path, metavar="FOLDER", help="write figures for TensorBoard there"
    )
    add_train_arguments(parser)
    parts = parser.add_argument_group("what learns")
    known = "; ".join(f"{name}: {scenario.summary}" for name, scenario in SCENARIOS.items())
    parts.add_argument(
        "--scenario", default=default.scenario, help=f"default: %(default)s. {known}"
    )
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
        default=default.exit_folds,
        help="of --exits: as many parts the rows are split into, each asked of heads that were "
        "taught the others; default: %(default)s",
    )


def run(args: argparse.Namespace) -> None:
    require_free(args.out, overwrite=args.overwrite)
    started = time.monotonic()
    files = task_files(args)
    options = replace(
        train_options(args, [task.name for task in files]),
        scenario=args.scenario,
        learn=args.learn,
        freeze=args.freeze,
        exits=depths_of(args.exits) if args.exits is not None else (),
        exit_folds=args.exit_folds,
    )
    config = args.resolved
    if not args.extend:
        config = {"backbone": DEFAULT_BACKBONE, "max-tokens": DEFAULT_MAX_TOKENS, **config}
    start = load_checkpoint(args.extend) if args.extend else None
    tasks = read_tasks(
        files,
        read_options(args),
        options.recipe.seed,
        note,
        start,
        lambda task, rows: not takes_all_rows(task, rows, options, start),
    )
    backbone = _backbone(args.backbone, start)
    journal = Journal(
        Path(f"{os.path.abspath(args.out)}.unfinished"),
        _identity(config, tasks, backbone, args.extend),
        restart=args.restart,
        tensorboard=args.tensorboard,
    )
    checkpoint = train(tasks, backbone, options, start, journal)
    if cut := checkpoint.run["texts_cut_to_max_tokens"]:
        note(
            f"{cut} of {checkpoint.run['texts']} texts are longer than {checkpoint.max_tokens} "
            "tokens and were cut; --max-tokens sets the limit"
        )
    checkpoint = replace(checkpoint, config={"train": config})
    save_checkpoint(checkpoint, args.out, overwrite=args.overwrite)
    journal.close()
    print(_summary(checkpoint))
    print(f"\ncheckpoint {args.out}, {time.monotonic() - started:.0f} s")


def _backbone(name: str | None, start: Checkpoint | None) -> Backbone:
    """The backbone of that name, or the checkpoint's.

    Raises:
        OptionError: they are two different ones.
    """
    backbone = start.backbone if start else load_backbone(name or DEFAULT_BACKBONE)
    if name not in (None, backbone.info.name):
        raise OptionError(
            f"--backbone is {name!r}, and the checkpoint's is {backbone.info.name!r}; "
            "leave --backbone out"
        )
    return backbone


def _identity(
    config: Mapping[str, Any],
    tasks: Sequence[TaskData],
    backbone: Backbone,
    extends: Path | None,
) -> dict[str, Any]:
    """What decides the result of a run."""
    return {
        "options": config,
        "data": {
            task.name: [
                dict(rows.source)
                for rows in (task.train, task.dev, task.described)
                if rows is not None
            ]
            for task in tasks
        },
        "backbone": backbone.info.sha256,
        "extends": sha256_of(extends / RECORD) if extends else None,
        "versions": {name: version(name) for name in ("mtl-edge", "torch", "transformers")},
        "device": str(device()),
        "threads": torch.get_num_threads(),  # sums are split among them
    }


def _summary(checkpoint: Checkpoint) -> str:
    """The table that ends a run: each task's head beside what it has to beat."""
    reports = {task.name: checkpoint.report[task.name] for task in checkpoint.tasks}
    # Tasks that a run with --no-baselines began with may have them from before.
    measured = [name for name in BASELINES if any(name in report for report in reports.values())]
    rows = []
    for task in checkpoint.tasks:
        report = reports[task.name]
        rows.append(
            [
                task.name,
                str(report["train"]["rows"]),
                "score" if task.kind == "score" else str(len(task.labels)),
                f"{report['reported']['split']} ({report['reported']['rows']})",
                shown(task, report["head"]) or "-",
                *(_headline(task, report.get(name)) for name in measured),
            ]
        )
    header = ["task", "train rows", "labels", "reported on", "head"]
    table = text_table([*header, *(BASELINES[name] for name in measured)], rows)
    remarks = [_few_remark(task.name, checkpoint.report[task.name]) for task in checkpoint.tasks]
    return "\n\n".join(filter(None, [table, EXPLAINED if measured else "", *remarks]))


def _headline(task: Task, figures: Mapping[str, float] | None) -> str:
    return f"{headline(task, figures):.1%}" if figures else "-"


def _few_remark(task: str, report: Mapping[str, Any]) -> str:
    """What figures of a task with but a few rows are worth."""
    selection = report["selection"]
    if "folds" not in selection:
        return ""
    said = f"task {task}: so few rows that none was set aside; "
    if not selection["rows"]:
        return said + "no label has two texts, so that nothing could be measured on them"
    said += f"{selection['folds']}-fold cross-validation on {selection['rows']} of them"
    if "interval" not in selection:
        return said
    low, high = selection["interval"]
    return said + f": {selection['score']:.1%} right, with 95% confidence {low:.1%} to {high:.1%}"
